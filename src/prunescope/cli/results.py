"""The commands that show the results of studies and dissections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import prunescope
from prunescope.plurals import counted
from prunescope.terminal import err, out, print_table, progress_of

if TYPE_CHECKING:
    import pandas as pd

# The heading of each number, the factor that it is shown with, and the number of decimals.
HEADINGS = {
    "weights_remaining": ("weights %", 100, 1),
    "accuracy": ("top-1 %", 100, 1),
    "interpretable": ("units", 1, 1),
    "concepts": ("concepts", 1, 1),
    "still_interpretable": ("still %", 100, 0),
    "same_concept": ("same %", 100, 0),
}


def show(
    directory: Annotated[
        Path, typer.Argument(help="The folder of a study, a series or a sweep, finished or not, or of a dissection.")
    ],
) -> None:
    """Print the main numbers, the verdict and the paper's claims of a study, or the summary of a dissection."""
    with progress_of("resampling images") as progress:
        found = prunescope.show(directory, progress=progress)
    if found.kind == "dissection":
        print_table(_dissections(found.summary))
        out.print("Numbers in parentheses are 95 % intervals over resampled images.")
    else:
        trials = int(found.summary["trials"].max())
        over = "t intervals over the trials" if trials > 1 else "intervals over resampled images"
        out.print(f"{found.name}: a {found.kind} with {counted(trials, 'trial')}; in parentheses: 95 % {over}")
        for layer, rows in found.summary.groupby("layer", sort=False):
            if found.summary["layer"].nunique() > 1:
                out.print(f"\nlayer {layer}")
            print_table(_levels(rows))
        out.print(
            "units: the interpretable ones; still: of the dense network's interpretable units, still interpretable; "
            "same: of those, same concept"
        )
    if found.verdict is not None:
        out.print(f"\nVerdict: {found.verdict.hypothesis}. {found.verdict.text}")
    if found.claims is not None:
        out.print("\nThe claims of Frankle and Bau 2019:")
        print_table(_claims(found.claims))
    for note in found.notes:
        err.print(f"note: {note}")


def figures(
    directory: Annotated[Path, typer.Argument(help="The folder of a study, a series or a sweep, finished or not.")],
    style: Annotated[str, typer.Option(help="`paper`, for one column of a page, or `slides`.")] = "paper",
    formats: Annotated[
        str, typer.Option("--format", metavar="FORMATS", help="The formats, separated by commas: pdf, svg, png.")
    ] = "pdf,svg,png",
    out_directory: Annotated[
        Path | None, typer.Option("--out", help="The folder for the figures; by default, figures/STYLE in DIRECTORY.")
    ] = None,
) -> None:
    """Write the figures of a study in a size for a paper or for slides, with embedded fonts."""
    with progress_of("resampling images") as progress:
        files = prunescope.write_figures(
            directory,
            style=style,
            formats=[name.strip() for name in formats.split(",")],
            directory=out_directory,
            progress=progress,
        )
    out.print(f"{counted(len(files), 'file')} of figures: {files[0].parent}")


def compare(
    studies: Annotated[list[Path], typer.Argument(help="The folders of at least two studies or series.")],
    out_directory: Annotated[Path, typer.Option("--out", help="The folder for the tables, the figures and the page.")],
    style: Annotated[str, typer.Option(help="The size of the figures: `page`, `paper` or `slides`.")] = "page",
    formats: Annotated[
        str, typer.Option("--format", metavar="FORMATS", help="The formats, separated by commas: svg, pdf, png.")
    ] = "svg,pdf,png",
) -> None:
    """Compare studies with the first of them at equal weights remaining and at equal accuracy.

    The table holds the differences with 95 % intervals. Trials are paired if the studies share their dense networks.
    """
    with progress_of("reading studies") as progress:
        found = prunescope.compare(
            studies,
            out_directory,
            style=style,
            formats=[name.strip() for name in formats.split(",")],
            progress=progress,
        )
    at_end = found.differences.groupby(["study", "layer", "quantity", "at"], sort=False).tail(1)
    print_table(_compared(at_end))
    for note in found.notes:
        err.print(f"note: {note}")
    out.print(f"The differences at every level are in {out_directory / 'differences.csv'}, with figures beside them")
    out.print(f"The report is {(out_directory / 'report' / 'index.html').resolve()}")


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return differences as text, one row for each study, layer, quantity and way of comparing."""
    import pandas as pd

    return pd.DataFrame(
        {
            "study": rows["study"],
            "minus": rows["reference"],
            "layer": rows["layer"],
            "quantity": rows["quantity"],
            "at": [
                f"{100 * position:.3g} % {'of weights' if at == 'weights_remaining' else 'accuracy'}"
                for at, position in zip(rows["at"], rows["position"], strict=True)
            ],
            "difference": _numbers(rows, "difference", ("low", "high"), digits=3),
        }
    )


def _levels(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of one layer as text, narrow enough for a terminal of 80 columns."""
    import pandas as pd

    columns: dict[str, Any] = {"level": summary["level"]}
    for name, (heading, scale, digits) in HEADINGS.items():
        if name in summary.columns and summary[name].notna().any():
            texts = _numbers(summary, name, (f"{name}_low", f"{name}_high"), scale, digits)
            columns[heading] = [text.replace(" to ", "–") for text in texts]
    return pd.DataFrame(columns)


def _dissections(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the counts of dissections with a row for each count and a column for each folder."""
    shown = summary[[name for name in summary.columns if not name.endswith(("_low", "_high"))]]
    rows: dict[str, Any] = {
        str(name).replace("_", " "): _numbers(summary, str(name), (f"{name}_low", f"{name}_high"))
        for name in shown.columns.drop("folder")
    }
    folders = [folder if folder != "." else "units" for folder in summary["folder"]]
    return shown.from_dict(rows, orient="index", columns=folders).reset_index(names="")


def _claims(claims: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "claim": claims["claim"],
            "paper": _numbers(claims, "paper", digits=3),
            "here": _numbers(claims, "value", ("low", "high"), digits=3),
            "answer": claims["answer"],
        }
    )


def _numbers(
    table: pd.DataFrame, name: str, ends: tuple[str, str] = ("", ""), scale: float = 1, digits: int = 1
) -> list[str]:
    """Return a column as text, each number with its interval in parentheses where there is one."""
    found = []
    for row in table.to_dict("records"):
        low, high = (_plain(scale * row[end], digits) if end in row else "-" for end in ends)
        found.append(_plain(scale * row[name], digits) + (f" ({low} to {high})" if "-" not in (low, high) else ""))
    return found


def _plain(value: float, digits: int) -> str:
    """Return a number with at most `digits` decimals, or none from 100 on; a dash if it is not known."""
    if value != value:
        return "-"
    text = f"{value:.{digits if abs(value) < 99.95 else 0}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
