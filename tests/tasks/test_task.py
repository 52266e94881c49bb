"""Images are read, cut and augmented as functions of (seed, epoch, image), however many processes read them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from scipy.stats import ks_2samp

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.tasks import Task, open_task
from prunescope.tasks.order import Plan
from prunescope.tasks.pixels import CROP_DRAWS, Cut, central, decode, decode_cut, random_crop
from prunescope.tasks.source import Source, hold
from prunescope.tasks.task import TaskBatch

CPU = torch.device("cpu")


def waves(width: int, height: int, number: int = 0) -> Image.Image:
    """A smooth image whose every place and color is told apart."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    planes = [np.sin(x * 9 + number), np.cos(y * 7 + number), np.sin((x + y) * 5 + number)]
    return Image.fromarray((np.stack(planes, axis=2) * 100 + 128).astype(np.uint8))


def photographs(root: Path) -> Path:
    """Images of several sizes, formats and color modes; some are so large that a JPEG is decoded at a fraction."""
    shapes = [(50, 40), (400, 300), (33, 170), (64, 64), (90, 90), (128, 65)]
    for split in ("train", "val"):
        for label, name in enumerate(("one", "other")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, (width, height) in enumerate(shapes):
                image = waves(width, height, 2 * number + label)
                if number == 2:
                    image.convert("L").save(folder / f"{number}.jpg")
                elif number == 4:
                    image.convert("CMYK").save(folder / f"{number}.jpg")
                elif number == 5:
                    image.convert("P").save(folder / f"{number}.png")
                else:
                    image.save(folder / f"{number}.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"))


def opened(
    root: Path, augmentation: str = "imagenet", workers: int = 0, in_memory: bool = False, size: int = 32
) -> Task:
    return open_task(
        root,
        size=size,
        augmentation=augmentation,  # type: ignore[arg-type]
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.5, 0.2),
        workers=workers,
        in_memory=in_memory,
    )


def bytes_of(batches: Iterable[TaskBatch]) -> list[bytes]:
    """Each image with its class."""
    return [
        image.contiguous().numpy().tobytes() + bytes([int(target)])
        for batch in batches
        for image, target in zip(*batch, strict=True)
    ]


@dataclass(frozen=True)
class One:
    """A single encoded image."""

    content: bytes

    def read(self, _place: int) -> bytes:
        return self.content

    def name(self, _place: int) -> str:
        return "one"


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "png")
    return file.getvalue()


def encoded(image: Image.Image, folder: Path, ending: str = "jpg") -> One:
    image.save(folder / f"image.{ending}", **({"quality": 95} if ending == "jpg" else {}))
    return One((folder / f"image.{ending}").read_bytes())


@pytest.mark.parametrize("augmentation", ["none", "shift-flip", "imagenet"])
def test_neither_workers_nor_the_batch_size_nor_another_start_change_an_image(root: Path, augmentation: str) -> None:
    plan, places = Plan(12, 4, seed=3), range(12)
    task, with_workers = opened(root, augmentation), opened(root, augmentation, workers=2)
    whole = list(task.training_batches(plan, 0, 6, CPU))
    assert bytes_of(whole) == bytes_of(with_workers.training_batches(plan, 0, 6, CPU))
    assert bytes_of(whole)[16:] == bytes_of(task.training_batches(plan, 4, 6, CPU))
    again = bytes_of(task.training_batches(Plan(12, 12, seed=3), 0, 1, CPU))
    assert again == bytes_of(whole)[:12]
    assert (bytes_of(whole)[:12] == bytes_of(whole)[12:]) is False
    checks = [bytes_of(t.validation_batches(n, CPU, places)) for t in (task, with_workers) for n in (1, 5, 12)]
    assert all(check == checks[0] for check in checks)


def test_another_epoch_and_another_seed_crop_otherwise(root: Path) -> None:
    task = opened(root)
    found = [
        sorted(bytes_of(task.training_batches(Plan(12, 12, seed), epoch, epoch + 1, CPU)))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert found[0] == found[3]
    assert not set(found[0]) & set(found[1])
    assert not set(found[0]) & set(found[2])


def test_images_that_have_the_size_already_come_out_as_they_always_did(tmp_path: Path) -> None:
    """Published numbers rest on these."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (16, 16, 3)) + 130 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / split / name / f"{number:03d}.png")
    found = {}
    for in_memory in (True, False):
        for augmentation in ("none", "flip", "shift-flip"):
            task, digest = opened(tmp_path, augmentation, in_memory=in_memory, size=16), hashlib.sha256()
            for images, targets in [
                *task.training_batches(Plan(24, 8, 5), 1, 7, CPU),
                *task.validation_batches(5, CPU),
            ]:
                assert images.is_contiguous(memory_format=torch.channels_last)
                mean, std = (torch.tensor(color).view(1, 3, 1, 1) for color in (task.mean, task.std))
                digest.update(((images * std + mean) * 255).round().byte().contiguous().numpy().tobytes())
                digest.update(targets.numpy().tobytes())
            found[in_memory, augmentation] = digest.hexdigest()[:16]
    assert found == {
        (True, "none"): "f01abc36a843180d",
        (True, "flip"): "acb169801459dce4",
        (True, "shift-flip"): "21cc8ad6fb6df300",
        (False, "none"): "f01abc36a843180d",
        (False, "flip"): "0129507860ffe600",
        (False, "shift-flip"): "aee52962ea1d052e",
    }


def test_pixels_are_normalised_by_the_colors_mean_and_deviation(root: Path) -> None:
    task = opened(root, "none")
    images = next(task.validation_batches(12, CPU)).images
    assert task.val.images is not None
    for place in range(12):
        pixels = decode_cut(task.val.images, place, lambda width, height: central(width, height, 32), 32)
        for channel in range(3):
            expected = (pixels[channel].numpy() / 255.0 - task.mean[channel]) / task.std[channel]
            np.testing.assert_allclose(images[place, channel].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(341, 256), (300, 300), (100, 301), (40, 33), (224, 224), (224, 225)])
def test_validation_images_are_cut_as_torchvision_does(tmp_path: Path, width: int, height: int) -> None:
    import_torchvision()
    from torchvision.transforms.v2 import functional

    images = encoded(waves(width, height), tmp_path, "png")
    resized = functional.resize(decode(images, 0), [256], antialias=True) if (width, height) != (224, 224) else None
    expected = functional.center_crop(resized, [224, 224]) if resized is not None else decode(images, 0)
    assert torch.equal(decode_cut(images, 0, lambda w, h: central(w, h, 224), 224), expected)


def test_a_crop_is_resized_as_torchvision_does(tmp_path: Path) -> None:
    import_torchvision()
    from torchvision.transforms.v2 import functional

    images = encoded(waves(120, 80), tmp_path, "png")
    expected = functional.resized_crop(decode(images, 0), 10, 20, 50, 90, [32, 32], antialias=True)
    assert torch.equal(decode_cut(images, 0, lambda _w, _h: Cut(20, 10, 110, 60, 32, 32), 32), expected)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (100, 100), (60, 200)])
def test_crops_are_distributed_as_torchvisions(width: int, height: int) -> None:
    import_torchvision()
    from torchvision.transforms import RandomResizedCrop

    image, count = torch.zeros(3, height, width), 1500
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    random = np.random.default_rng(0)
    cuts = [random_crop(width, height, 224, random.random(CROP_DRAWS).tolist()) for _ in range(count)]
    ours = np.array([(cut.upper, cut.left, cut.lower - cut.upper, cut.right - cut.left) for cut in cuts])
    assert all(ks_2samp(one, other).pvalue > 0.001 for one, other in zip(ours.T, theirs.T, strict=True))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 50), (400, 3), (1000, 20), (7, 90)])
def test_of_an_image_too_long_for_a_crop_the_middle_is_taken_as_torchvision_does(width: int, height: int) -> None:
    import_torchvision()
    from torchvision.transforms import RandomResizedCrop

    upper, left, h, w = RandomResizedCrop.get_params(torch.zeros(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    whole = [0.999999, 0.5] * 10 + [0.0, 0.0]
    if (width, height) == (1, 1):
        whole = [0.0, 0.0] * 10 + [0.0, 0.0]  # a crop of 8 % of one pixel is none
    assert random_crop(width, height, 224, whole)[:4] == (left, upper, left + w, upper + h)


DRAWS = st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=CROP_DRAWS, max_size=CROP_DRAWS)


@settings(max_examples=200, deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000), draws=DRAWS)
def test_a_crop_lies_within_its_image(width: int, height: int, draws: list[float]) -> None:
    cut = random_crop(width, height, 224, draws)
    assert 0 <= cut.left < cut.right <= width
    assert 0 <= cut.upper < cut.lower <= height


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 600), height=st.integers(1, 600), size=st.integers(48, 64), draws=DRAWS)
def test_a_jpeg_decoded_at_a_fraction_shows_what_the_whole_shows(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, size: int, draws: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("jpeg")
    images = encoded(waves(width, height), folder)
    same = encoded(Image.fromarray(decode(images, 0).permute(1, 2, 0).numpy()), folder, "png")
    for cut in (lambda w, h: random_crop(w, h, size, draws), lambda w, h: central(w, h, size)):
        small, whole = (decode_cut(one, 0, cut, size).int() for one in (images, same))
        assert small.shape == (3, size, size)
        assert (small - whole).abs().float().mean() < 8


@pytest.mark.parametrize(("side", "decoded"), [(63, 63), (64, 32), (127, 64), (128, 32), (256, 32), (300, 38)])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_no_more_of_a_jpeg_is_decoded_than_the_crop_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, decoded: int, mode: str
) -> None:
    shapes = []

    def load(image: JpegImagePlugin.JpegImageFile) -> object:
        shapes.append(image.size)
        return by_pillow(image)

    def decode_jpeg(*given: object, **named: object) -> np.ndarray:
        pixels = by_simplejpeg(*given, **named)
        shapes.append(pixels.shape[:2])
        return pixels

    by_pillow, by_simplejpeg = JpegImagePlugin.JpegImageFile.load, simplejpeg.decode_jpeg
    images = encoded(waves(side, side).convert(mode), tmp_path)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    decode_cut(images, 0, lambda w, h: Cut(0, 0, w, h, 32, 32), 32)
    assert set(shapes) == {(decoded, decoded)}


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(8, 40),
    draws=DRAWS,
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.fixed_dictionaries(
        {"quality": st.integers(1, 95), "subsampling": st.integers(0, 2), "progressive": st.booleans()}
    ),
)
def test_a_jpeg_has_the_pixels_that_pillow_finds(
    width: int, height: int, size: int, draws: list[float], mode: str, options: dict[str, int]
) -> None:
    file = BytesIO()
    waves(width, height).convert(mode).save(file, "jpeg", **options)
    cut = random_crop(width, height, size, draws)
    by = next((by for by in (8, 4, 2) if min(cut.right - cut.left, cut.lower - cut.upper) >= by * size), 1)
    with Image.open(file) as image:
        image.draft(None, (width // by, height // by))
        box = cut.left // by, cut.upper // by, -(-cut.right // by), -(-cut.lower // by)
        same = One(png(image.convert("RGB").crop(box)))
    expected = decode_cut(same, 0, lambda w, h: Cut(0, 0, w, h, size, size), size)
    assert torch.equal(decode_cut(One(file.getvalue()), 0, lambda *_: cut, size), expected)


def test_a_jpeg_with_bytes_too_many_is_read_and_one_with_bytes_too_few_is_not(tmp_path: Path) -> None:
    whole = encoded(waves(64, 64), tmp_path).content
    cut = partial(central, size=32)
    stuffed = One(whole[:-2] + b"none of a JPEG's" + whole[-2:])
    assert torch.equal(decode_cut(stuffed, 0, cut, 32), decode_cut(One(whole), 0, cut, 32))
    for end in (1, 30, len(whole) // 2, len(whole) - 40):
        with pytest.raises(InputError, match="one: cannot be read as an image"):
            decode_cut(One(whole[:end]), 0, cut, 32)


def test_a_jpeg_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    content = bytearray(encoded(waves(64, 64), tmp_path).content)
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = b"\xff\xdc" * 2  # 65500 x 65500 pixels
    with pytest.raises(InputError, match=r"one: cannot be read as an image \(.*exceeds limit"):
        decode_cut(One(bytes(content)), 0, partial(central, size=32), 32)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_color_mode_comes_as_rgb(tmp_path: Path, mode: str) -> None:
    gray = Image.fromarray(np.full((20, 20), 255, np.uint8))
    images = encoded(gray.convert(mode), tmp_path, "tif")
    found = decode_cut(images, 0, lambda w, h: central(w, h, 16), 16)
    assert found.unique().tolist() == [255]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grays_come_as_the_same_grays_of_8_bits(tmp_path: Path, ending: str) -> None:
    grays = np.arange(0, 65536, 164, dtype=np.uint16).reshape(20, 20)
    images = encoded(Image.fromarray(grays), tmp_path, ending)
    whole = decode(images, 0)
    assert torch.equal(whole, torch.from_numpy((grays >> 8).astype(np.uint8)).expand(3, 20, 20))
    assert torch.equal(decode_cut(images, 0, lambda w, h: Cut(2, 3, w, h, 18, 17), 16), whole[:, 3:19, 2:18])


def test_images_that_memory_cannot_hold_are_refused() -> None:
    source = Source(("one",), np.zeros(10**7, np.int64), images=One(b""))
    with pytest.raises(
        InputError, match=r"need 120000\.0 GB of memory, which is not available; set `in_memory: false`"
    ):
        hold(source, 2000)


def test_reading_leaves_pytorchs_random_numbers_alone(root: Path) -> None:
    before = torch.get_rng_state()
    for task in (opened(root), opened(root, workers=1)):
        list(task.training_batches(Plan(12, 4, 0), 0, 2, CPU))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("left", [1500, 0], ids=["cut off", "empty"])
def test_a_damaged_image_is_the_same_error_whoever_reads_it(tmp_path: Path, left: int) -> None:
    photographs(tmp_path)
    damaged = tmp_path / "train" / "other" / "1.jpg"
    damaged.write_bytes(damaged.read_bytes()[:left])
    messages, others = [], set(multiprocessing.active_children())
    for workers in (0, 2):
        with pytest.raises(InputError) as raised:
            list(opened(tmp_path, workers=workers).training_batches(Plan(12, 4, 0), 0, 3, CPU))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{damaged}: cannot be read as an image (")
    assert not set(multiprocessing.active_children()) - others


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    task = opened(photographs(tmp_path), workers=1)
    (tmp_path / "val" / "one" / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"val/one/3\.jpg: cannot be read as an image \(.*No such file"):
        list(task.validation_batches(4, CPU))


@dataclass(frozen=True)
class Deadly:
    """Ends the process that reads the image."""

    def read(self, _place: int) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def name(self, _place: int) -> str:
        return "deadly"


def test_a_worker_that_is_killed_is_said_so(root: Path) -> None:
    task = opened(root, workers=2)
    task = replace(task, train=replace(task.train, images=Deadly()))
    with pytest.raises(InputError, match=r"a process that decodes images has ended .* fewer `workers`"):
        list(task.training_batches(Plan(12, 4, 0), 0, 3, CPU))


def test_workers_end_when_batches_are_no_longer_wanted(root: Path) -> None:
    batches = opened(root, workers=2).training_batches(Plan(12, 4, 0), 0, 300, CPU)
    others = set(multiprocessing.active_children())
    next(batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    del batches
    assert not set(multiprocessing.active_children()) - others


SCRIPT = """
import multiprocessing, pickle, sys, torch
from pathlib import Path
from prunescope.tasks.order import Plan

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    task = pickle.loads(Path(sys.argv[2]).read_bytes())
    for step, batch in enumerate(task.training_batches(Plan(12, 4, 0), 0, int(sys.argv[3]), torch.device("cpu"))):
        print(f"{batch.images.double().sum().item():.6f}", flush=True)
"""


def start(folder: Path, task: Task, method: str, steps: int) -> subprocess.Popen[str]:
    (folder / "run.py").write_text(SCRIPT)
    (folder / "task.pickle").write_bytes(pickle.dumps(task))
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py"), method, str(folder / "task.pickle"), str(steps)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_workers_that_are_spawned_read_the_same(root: Path, tmp_path: Path) -> None:
    process = start(tmp_path, opened(root, workers=1), "spawn", 3)
    printed, errors = process.communicate(timeout=120)
    batches = opened(root).training_batches(Plan(12, 4, 0), 0, 3, CPU)
    assert printed.split() == [f"{batch.images.double().sum().item():.6f}" for batch in batches], errors


def test_ctrl_c_ends_the_workers_without_a_word_of_theirs(root: Path, tmp_path: Path) -> None:
    process = start(tmp_path, opened(root, workers=2), "fork", 10**6)
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to all processes at once
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.strip().endswith("KeyboardInterrupt")
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a worker is left")


def test_what_is_held_in_memory_is_not_cropped_at_random_but_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("one", "other"):
            (tmp_path / split / name).mkdir(parents=True)
            waves(32, 32).save(tmp_path / split / name / "0.png")
    with pytest.raises(InputError, match=r"`augmentation: imagenet` crops .* use shift-flip, flip or none"):
        opened(tmp_path, "imagenet", in_memory=True)


@pytest.fixture
def little_shared_memory() -> Iterator[None]:
    """Allow no file above 4 KiB, such as shared memory for a batch; as in a container whose /dev/shm is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_shared_memory")
def test_workers_without_shared_memory_for_a_batch_read_the_same(root: Path) -> None:
    plan = Plan(12, 4, 0)
    batches = bytes_of(opened(root, workers=1).training_batches(plan, 0, 3, CPU))
    assert batches == bytes_of(opened(root).training_batches(plan, 0, 3, CPU))


def test_workers_that_may_not_open_files_are_named(root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    batches = opened(root, workers=2).training_batches(Plan(12, 4, 0), 0, 3, CPU)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 1, before[1]))
    try:
        with pytest.raises(InputError, match=r"may not open more files .* fewer `workers`, or .*`ulimit -n`"):
            list(batches)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
