"""Every image becomes 8-bit RGB by one rule, whoever reads it, or is refused with what to do."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.concepts import check_concepts, open_concepts, pack_concepts
from prunescope.errors import InputError
from prunescope.images import ImageError, open_image, to_rgb
from prunescope.tasks.folders import open_folders
from prunescope.tasks.pixels import central, decode, decode_cut
from tests.concepts.small import write_concepts

COLOR = (200, 100, 50)
REFUSED = {"I": "32-bit integers", "F": "32-bit floats"}
# What one pixel is in a mode, and what it is in RGB. Transparency is dropped: the color below it stays.
MODES: dict[str, tuple[object, tuple[int, int, int]]] = {
    "1": (1, (255, 255, 255)),
    "L": (90, (90, 90, 90)),
    "P": (1, COLOR),
    "RGB": (COLOR, COLOR),
    "RGBA": ((*COLOR, 0), COLOR),
    "RGBX": ((*COLOR, 9), COLOR),
    "LA": ((90, 10), (90, 90, 90)),
    "La": ((50, 128), (99, 99, 99)),  # 50 is 99 after multiplying by 128 / 255
    "RGBa": ((100, 50, 25, 128), (199, 99, 49)),
    "PA": ((1, 10), COLOR),
    "CMYK": ((55, 155, 205, 0), COLOR),
    "YCbCr": ((128, 128, 128), (128, 128, 128)),
    "HSV": ((0, 0, 77), (77, 77, 77)),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "I;16": (0x5AFF, (90, 90, 90)),
    "I;16L": (0x5AFF, (90, 90, 90)),
    "I;16B": (0x5AFF, (90, 90, 90)),
    "I;16N": (0x5AFF, (90, 90, 90)),
}


@dataclass(frozen=True)
class One:
    """A single encoded image."""

    content: bytes

    def read(self, _: int) -> bytes:
        return self.content

    def name(self, _: int) -> str:
        return "one"


def saved(image: Image.Image, ending: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, ending, **options)
    return file.getvalue()


def tiff(values: np.ndarray, bits: int, white_is_zero: bool = False) -> bytes:
    """Write a gray TIFF by hand, since Pillow writes neither 12 bits nor zeros that are white."""
    if bits == 12:
        data = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in values.reshape(-1, 2).tolist())
    else:
        data = values.astype("<u2").tobytes()
    h, w = values.shape
    tags = {256: w, 257: h, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 8, 277: 1, 278: h, 279: len(data)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()
    )
    data += bytes(len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def concepts_with(root: Path, image: bytes) -> Path:
    """Write a data set with one image of 2 x 2 pixels."""
    write_concepts(root, [{"object": [1]}], {1: "object"}, image_size=(2, 2))
    (root / "images" / "made" / "0.png").write_bytes(image)
    return root


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_comes_as_rgb(mode: str) -> None:
    pixel, expected = MODES[mode]
    image = Image.new(mode, (2, 2), pixel)  # type: ignore[arg-type]
    if mode in ("P", "PA"):
        image.putpalette([0, 0, 0, *COLOR])
        image = Image.frombytes(mode, (2, 2), bytes(pixel if mode == "PA" else [1]) * 4)  # type: ignore[call-overload]
        image.putpalette([0, 0, 0, *COLOR])
    found = np.asarray(to_rgb(image))
    assert found.shape == (2, 2, 3)
    assert abs(found.astype(int) - expected).max() <= (1 if mode == "LAB" else 0)


@pytest.mark.parametrize("mode", REFUSED)
def test_modes_without_a_range_are_refused_and_not_made_black(mode: str) -> None:
    with pytest.raises(ImageError, match=f"the mode {mode}, {REFUSED[mode]} without a defined range") as raised:
        to_rgb(Image.new(mode, (2, 2)))
    assert raised.value.advice == "save it with 8 or 16 bits per channel"


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("read", [decode, lambda *given: decode_cut(*given, lambda w, h: central(w, h, 2), 2)])
def test_a_tasks_image_without_a_known_range_is_refused_with_its_file(
    tmp_path: Path, kind: type, read: Callable[..., torch.Tensor]
) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        Image.fromarray(np.ones((2, 2), kind)).save(tmp_path / split / "one" / "0.tif")
    train, _ = open_folders(tmp_path)
    with pytest.raises(InputError, match=r"train/one/0\.tif: .* mode [FI], 32-bit .*; save it with 8 or 16 bits"):
        read(train.images, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_an_image_is_the_same_to_a_task_and_to_concepts(tmp_path: Path, mode: str) -> None:
    pixel, expected = MODES[mode]
    image = Image.new(mode, (2, 2), pixel)  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette([0, 0, 0, *COLOR])
    content = saved(image, "JPEG", quality=100) if mode == "CMYK" else saved(image, "PNG")
    ours = decode(One(content), 0).permute(1, 2, 0).numpy()
    assert abs(ours.astype(int) - expected).max() <= (3 if mode == "CMYK" else 0)
    root = concepts_with(tmp_path, content)
    np.testing.assert_array_equal(open_concepts(root).image(0), ours)
    assert check_concepts(root).problems == ()
    pack_concepts(root)
    np.testing.assert_array_equal(open_concepts(root).image(0), ours)


def test_a_gray_tiff_is_scaled_by_its_own_bits_and_by_what_it_calls_white() -> None:
    grays = np.array([[0, 255], [2048, 4095]])
    for bits, white_is_zero in ((12, False), (16, False), (16, True)):
        values = grays * (16 if bits == 16 else 1)
        content = tiff(values, bits, white_is_zero)
        expected = grays >> 4
        found = decode(One(content), 0)[0].numpy()
        np.testing.assert_array_equal(found, 255 - expected if white_is_zero else expected)


def test_of_an_animation_and_of_pages_the_first_is_taken() -> None:
    first, second = (Image.new("L", (4, 4), value) for value in (40, 200))
    for ending in ("GIF", "TIFF", "PNG", "WEBP"):
        options = {"lossless": True} if ending == "WEBP" else {}
        content = saved(first, ending, save_all=True, append_images=[second], **options)
        assert decode(One(content), 0).unique().tolist() == [40]


def test_an_orientation_that_a_camera_noted_is_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 85], [170, 255]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(image, "PNG", exif=exif)
    assert decode(One(content), 0)[0].tolist() == [[0, 85], [170, 255]]
    assert open_concepts(concepts_with(tmp_path, content)).image(0)[..., 0].tolist() == [[0, 85], [170, 255]]


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, *COLOR])
    content = saved(image, "PNG", transparency=bytes([0, 9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(One(content), 0)[:, 0, 0].tolist() == list(COLOR)
        assert open_concepts(concepts_with(tmp_path, content)).image(0)[0, 0].tolist() == list(COLOR)


def test_whatever_is_damaged_it_is_an_image_or_a_clear_error() -> None:
    warnings.simplefilter("ignore")  # of Pillow, about the metadata
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    for ending in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        content = saved(image, ending)
        for at in rng.integers(0, len(content), 60):
            damaged = bytearray(content)
            damaged[at] = rng.integers(256)
            with suppress(ImageError), open_image(bytes(damaged)) as opened:
                assert to_rgb(opened).mode == "RGB"


def test_a_pipe_among_a_tasks_images_is_refused_instead_of_waiting_for_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        os.mkfifo(tmp_path / split / "one" / "0.png")
    train, _ = open_folders(tmp_path)
    assert train.images is not None
    with pytest.raises(InputError, match=r"0\.png: cannot be read as an image \(.*Not a regular file"):
        decode(train.images, 0)
