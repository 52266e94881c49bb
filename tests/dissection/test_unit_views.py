"""Figures of a dissection, and the images and maps of one unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import prunescope
from prunescope import Dissection, InputError, LayerDissection
from prunescope.concepts import from_arrays
from prunescope.dissection.outlines import outlined
from tests.cli.commands import GOLDEN

CONCEPTS = GOLDEN / "dissection" / "concepts"


def network(first: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(first, 6, 5, stride=4), nn.ReLU(), nn.Conv2d(6, 4, 3))


@pytest.fixture(scope="module")
def found() -> Dissection:
    return prunescope.dissect(network(), layers=["0", "2"], concepts=CONCEPTS, quantile=0.05, device="cpu")


def test_the_images_of_a_unit_show_its_mask_where_its_map_exceeds_its_threshold(found: Dissection) -> None:
    layer, data = found["2"], prunescope.open_concepts(CONCEPTS)
    assert layer.examples is not None
    shown = layer.unit_images(1)
    for place, drawn in enumerate(shown):
        image = data.image(int(layer.examples.images[1, place]))
        exact = torch.from_numpy(layer.examples.maps[1, place]).double()[None, None]
        upsampled = nn.functional.interpolate(exact, data.image_size, mode="bilinear", align_corners=False)
        mask = upsampled[0, 0].numpy() > layer.units["threshold"][1]
        np.testing.assert_array_equal(drawn, outlined(image[None], mask[None])[0])
    figure = layer.unit_figure(1)
    assert len(figure.axes) == 4
    assert figure._suptitle is not None
    assert figure._suptitle.get_text().startswith(f"2, unit 1: {layer.units['label'][1]}")


def test_masks_are_placed_at_receptive_fields_if_the_dissection_was_aligned_so() -> None:
    options = {"layers": ["0"], "concepts": CONCEPTS, "quantile": 0.05, "device": "cpu"}
    stretched = prunescope.dissect(network(), **options)["0"]  # type: ignore[arg-type]
    anchored = prunescope.dissect(network(), align="receptive-field", **options)["0"]  # type: ignore[arg-type]
    assert (stretched.unit_images(2) != anchored.unit_images(2)).any()


def test_units_keep_their_numbers_where_filters_were_removed(found: Dissection) -> None:
    layer = found["2"]
    numbered = layer.numbered(np.array([1, 5, 8, 9]))
    np.testing.assert_array_equal(numbered.unit_images(8), layer.unit_images(2))
    np.testing.assert_array_equal(
        numbered.unit_maps(8, [0, 3], model=network()), layer.unit_maps(2, [0, 3], model=network())
    )
    with pytest.raises(InputError, match=r"unit is 2, expected one of the layer's 4 units, .* from 1 to 9"):
        numbered.unit_images(2)


def test_maps_are_those_stored_or_computed_as_in_the_dissection(found: Dissection) -> None:
    layer, model = found["2"], network()
    assert layer.examples is not None
    images = layer.examples.images[3]
    stored = layer.unit_maps(3, images)
    np.testing.assert_array_equal(stored, layer.examples.maps[3])
    np.testing.assert_allclose(layer.unit_maps(3, images, model=model, device="cpu"), stored, rtol=1e-4, atol=1e-5)
    data = prunescope.open_concepts(CONCEPTS)
    pixels = np.stack([data.image(int(image)) for image in images])
    np.testing.assert_array_equal(
        layer.unit_maps(3, pixels, model=model, device="cpu"), layer.unit_maps(3, images, model=model, device="cpu")
    )
    other = next(image for image in range(len(data)) if image not in images)
    with pytest.raises(
        InputError, match=rf"unit 3 for image {other} is not stored, only .*give the network as `model`"
    ):
        layer.unit_maps(3, [other])
    assert layer.unit_maps(3, [other], model=model).shape == (1, *stored.shape[1:])


def test_networks_of_gray_images_and_of_half_precision_run_as_they_did() -> None:
    for model in (network(1), network().double()):
        layer = prunescope.dissect(model, layers=["0"], concepts=CONCEPTS, device="cpu")["0"]
        assert layer.examples is not None
        images = layer.examples.images[0]
        maps = layer.unit_maps(0, images, model=model, device="cpu")
        np.testing.assert_allclose(maps, layer.unit_maps(0, images), rtol=1e-4, atol=1e-5)


def test_a_loaded_dissection_shows_the_same(found: Dissection, tmp_path: Path) -> None:
    loaded = prunescope.load(found.save(tmp_path))
    assert isinstance(loaded, Dissection)
    np.testing.assert_array_equal(loaded["0"].unit_images(3), found["0"].unit_images(3))


def in_memory() -> LayerDissection:
    image, label = np.zeros((4, 4, 3), np.uint8), np.array([[0, 1], [0, 1]])
    maps = np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype(np.float32)
    data = from_arrays([(image, {"$a_": label})] * 3, names={1: "$x^"})
    return prunescope.dissect_activations(maps, concepts=data, quantile=0.3)


@pytest.mark.parametrize(
    ("own", "call", "message"),
    [
        (True, lambda one: one.unit_images(0), "dissected from 'arrays', which is not a folder here; give the data"),
        (True, lambda one: one.unit_images(0, CONCEPTS), r"has 48 images, but 3 were dissected"),
        (False, lambda one: one.unit_images(True), "unit is True, expected one of"),
        (False, lambda one: one.unit_maps(0, [1, 48], model=network()), "has 48 images, numbered from 0"),
        (False, lambda one: one.unit_maps(0, np.zeros((1, 8, 8, 3), np.uint8)), "give the network as `model`"),
        (False, lambda one: one.unit_maps(0, np.zeros((1, 8, 8, 3))), r"images is an array float64 \[1, 8, 8, 3\]"),
        (False, lambda one: one.unit_maps(0, []), "images is an array"),
        (False, lambda one: one.unit_maps(3, [0], model=nn.Sequential(nn.Conv2d(3, 2, 3))), "has 2 units, fewer"),
        (True, lambda one: one.unit_maps(0, np.zeros((1, 8, 8, 3), np.uint8), model=network()), "states no mean"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    own: bool, call: Callable[[LayerDissection], object], message: str, found: Dissection
) -> None:
    with pytest.raises(InputError, match=message):
        call(in_memory() if own else found["0"])


def test_the_images_of_an_imported_table_are_refused() -> None:
    table = prunescope.import_netdissect(GOLDEN / "tables" / "resnet152_imagenet.csv")
    with pytest.raises(InputError, match="is not stored in an imported table"):
        table.unit_images(0)
    assert len(table.figure().axes) == 2


def test_the_figure_counts_the_interpretable_units_of_each_category(found: Dissection) -> None:
    figure = found.figure()
    assert len(figure.axes) == 4
    for axes, layer in zip(np.reshape(np.array(figure.axes), (2, 2)), found.values(), strict=True):
        assert [bar.get_width() for bar in axes[0].patches] == list(layer.summary["units_by_category"].values())
        assert sum(bar.get_height() for bar in axes[1].patches) == len(layer.units)


def test_a_notebook_shows_figures_and_names_are_not_read_as_mathematics(tmp_path: Path) -> None:
    layer = in_memory()
    image, label = np.zeros((4, 4, 3), np.uint8), np.array([[0, 1], [0, 1]])
    data = from_arrays([(image, {"$a_": label})] * 3, names={1: "$x^"})
    for figure in (layer.figure(), layer.unit_figure(0, data)):
        (tmp_path / "figure.png").write_bytes(figure._repr_png_())  # type: ignore[attr-defined]
        assert min(Image.open(tmp_path / "figure.png").size) > 100
        figure.savefig(tmp_path / "figure.svg")
