"""Take the pictures of the report page for the documentation: `python docs/pictures.py out/demo docs`.

Two further arguments choose another unit and another concept than 7 and train. The program needs Playwright, which
`make install` installs, and a Chromium on the path.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1280
# The address of each view, the colours, and the height of the picture.
VIEWS = {
    "page-overview": ("#level=4", "light", 1040),
    "page-units": ("#view=units&level=4", "light", 900),
    "page-unit": ("#unit={unit}&level=5&truth=1", "light", 1600),
    "page-concept": ("#concept={concept}&level=5", "dark", 760),
}


def main() -> None:
    """Write a picture of each view."""
    study, folder = Path(sys.argv[1]), Path(sys.argv[2])
    unit, concept = sys.argv[3:5] if len(sys.argv) > 4 else ("7", "train")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (address, colors, height) in VIEWS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=colors)
            place = (study / "report" / "index.html").resolve().as_uri()
            page.goto(place + address.format(unit=unit, concept=concept))
            page.wait_for_selector("html[data-ready]", state="attached")
            page.wait_for_timeout(2000)  # until all images are drawn
            page.screenshot(path=folder / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
