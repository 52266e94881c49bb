"""The sources that the images of a classification task can come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from prunescope.files import expanded
from prunescope.progress import Progress, silent
from prunescope.tasks.source import Source
from prunescope.validation import Strict, Text

if TYPE_CHECKING:
    from prunescope.tasks.cifar import Published


Augmentation = Literal["none", "flip", "shift-flip", "imagenet"]


class Cifar(Strict):
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009) in the binary version; the test images are used for validation."""

    cifar10: Annotated[Text | None, Field(description="the folder of CIFAR-10's binary version")] = None
    cifar100: Annotated[Text | None, Field(description="the folder of CIFAR-100's binary version")] = None
    download: Annotated[
        bool, Field(description="whether to download the data set into the folder if it is not there")
    ] = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.cifar10 is None) == (self.cifar100 is None):
            raise PydanticCustomError("cifar", "expected either `cifar10: FOLDER` or `cifar100: FOLDER`")
        return self


class HuggingFace(Strict):
    """An image data set that Hugging Face's `datasets` reads."""

    huggingface: Annotated[
        Text,
        Field(min_length=1, description="a name on the hub, or a folder (written by `save_to_disk`, or of images)"),
    ]
    configuration: Annotated[Text | None, Field(description="the configuration, for a data set with several")] = None
    revision: Annotated[
        Text | None, Field(description="a commit or tag on the hub, which fixes the version of the data")
    ] = None
    train: Annotated[Text | None, Field(description="the training split; by default train")] = None
    validation: Annotated[
        Text | None, Field(description="the validation split; by default validation, valid, val, dev or test")
    ] = None
    image: Annotated[
        Text | None, Field(description="the column of the images; by default the only one that contains images")
    ] = None
    label: Annotated[
        Text | None, Field(description="the column of the classes; by default the only one that contains classes")
    ] = None


def open_sources(
    origin: str | Path | Cifar | HuggingFace, size: int, progress: Progress = silent, *, training: bool = True
) -> tuple[str, Source, Source]:
    """Open the training and validation images of a task.

    Parameters
    ----------
    origin
        A folder in ImageFolder's layout, a `Cifar` or a `HuggingFace` source.
    size
        The height and width of the network's input images, in pixels. It has to be 32 for CIFAR.
    progress
        Called with the number of bytes downloaded and the total number of bytes.
    training
        Whether training images are needed; see `open_task`.

    Returns
    -------
    tuple of str, Source, Source
        The name of the task for messages, the training images and the validation images.

    Raises
    ------
    InputError
        If the images do not exist or are not as expected.
    """
    if isinstance(origin, Cifar):
        from prunescope.tasks.cifar import open_cifar

        folder, kind = _which_cifar(origin)
        return str(folder), *open_cifar(folder, kind, size, download=origin.download, progress=progress)
    if isinstance(origin, HuggingFace):
        from prunescope.tasks.huggingface import open_huggingface

        fields = origin.model_dump()
        return origin.huggingface, *open_huggingface(fields.pop("huggingface"), **fields)
    from prunescope.tasks.folders import open_folders

    root = expanded(origin)
    return str(root), *open_folders(root, training=training)


def cifar_files(origin: Cifar, progress: Progress = silent) -> list[Path]:
    """Return the paths of CIFAR's files; they are downloaded first if the recipe allows it.

    Parameters
    ----------
    origin
        The source in the recipe.
    progress
        Called with the number of bytes downloaded and the total number of bytes.

    Raises
    ------
    InputError
        If the files are missing.
    """
    from prunescope.tasks.cifar import find_cifar

    return find_cifar(*_which_cifar(origin), download=origin.download, progress=progress)


def _which_cifar(origin: Cifar) -> tuple[Path, Published]:
    from prunescope.tasks.cifar import CIFAR10, CIFAR100

    folder = expanded(origin.cifar10 or origin.cifar100 or "")
    return folder, CIFAR10 if origin.cifar10 is not None else CIFAR100
