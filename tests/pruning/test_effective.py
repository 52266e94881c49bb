"""A pruned weight is zero in what the network computes with, or the network is refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.devices import import_torchvision
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.pruning import Mask, prune
from prunescope.pruning.effective import check_effective, check_own_forward
from tests.pruning.small import chain

Compute = Callable[["Conv"], Tensor]


class Conv(nn.Conv2d):
    """A convolution that computes its weight."""

    def __init__(self, compute: Compute, inputs: int) -> None:
        super().__init__(inputs, 8, 3, padding=1)
        self.compute = compute
        self.scale = nn.Parameter(torch.ones(8, 1, 1, 1))
        self.shift = nn.Parameter(torch.zeros_like(self.weight))
        self.left, self.right = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.randn(2, inputs * 9))
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(8, 8))[0])

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.compute(self), self.bias, self.stride, self.padding)


def standardised(conv: Conv) -> Tensor:
    centred = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + 1e-5)


def centred_in_place(conv: Conv) -> Tensor:
    conv.weight.data.sub_(conv.weight.mean())
    return conv.weight


def replaced(conv: Conv) -> Tensor:
    conv.weight.data = conv.weight - conv.weight.mean()
    return conv.weight


COMPUTED: dict[str, Compute] = {
    "standardised": standardised,
    "layer norm": lambda conv: F.layer_norm(conv.weight, conv.weight.shape[1:]),
    "batch norm": lambda conv: F.batch_norm(conv.weight.view(1, 8, -1), None, None, training=True).view_as(conv.weight),
    "centred in place": centred_in_place,
    "replaced": replaced,
    "cloned": lambda conv: conv.weight.clone().sub_(conv.weight.mean()),
    "mirrored": lambda conv: (conv.weight + conv.weight.flip(-1)) / 2,
    "shifted": lambda conv: conv.weight + conv.shift,
    "stacked": lambda conv: torch.stack([conv.weight, conv.shift]).mean(0),
    "low rank": lambda conv: conv.weight + (conv.left @ conv.right).view_as(conv.weight),
    "softmax": lambda conv: conv.weight.flatten(1).softmax(1).view_as(conv.weight),
    "sigmoid": lambda conv: conv.weight.sigmoid(),
    "sign": lambda conv: torch.where(conv.weight > 0, 1.0, -1.0),
    "rotated": lambda conv: (conv.rotation @ conv.weight.flatten(1)).view_as(conv.weight),
    "blurred": lambda conv: F.conv2d(conv.weight.flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3), padding=1).view_as(
        conv.weight
    ),
    "noisy in training": lambda conv: conv.weight + torch.randn_like(conv.weight) if conv.training else conv.weight,
    "shifted in evaluation": lambda conv: conv.weight if conv.training else conv.weight + 1,
}

KEPT: dict[str, Compute] = {
    "as it is": lambda conv: conv.weight,
    "scaled": lambda conv: conv.weight * conv.scale,
    "normalised": lambda conv: F.normalize(conv.weight.flatten(1)).view_as(conv.weight),
    "weight norm": lambda conv: conv.scale * conv.weight / conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1),
    "spectral norm": lambda conv: conv.weight / torch.linalg.matrix_norm(conv.weight.flatten(1), 2),
    "concatenated": lambda conv: torch.cat([conv.weight[4:], conv.weight[:4]]),
    "permuted": lambda conv: conv.weight.flip(0).transpose(2, 3).contiguous(),
    "picked": lambda conv: conv.weight[[1, 0, 2, 3, 4, 5, 7, 6]],
    "padded": lambda conv: F.pad(conv.weight, (1, 1, 1, 1))[:, :, 1:-1, 1:-1].clone(),
    "cast": lambda conv: conv.weight.bfloat16().float(),
    "clamped": lambda conv: conv.weight.clamp(-0.01, 0.01),
}


def network_of(compute: Compute) -> nn.Module:
    torch.manual_seed(0)
    convolutions = [Conv(compute, 3), nn.BatchNorm2d(8), nn.ReLU(), Conv(compute, 8)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_a_weight_that_is_computed_so_that_zeros_are_lost_is_refused_by_name(compute: Compute) -> None:
    network = network_of(compute)
    for options in ({}, {"image_size": 8}):
        with pytest.raises(
            InputError, match=r"pruned weight is not zero: 0\.weight \(Conv\), 3\.weight \(Conv\)\. Excl"
        ):
            prune(network, fraction=0.5, **options)  # type: ignore[arg-type]
        assert list(prune(network, exclude=["0", "3"], **options)) == ["6.weight"]  # type: ignore[arg-type]


@pytest.mark.parametrize("compute", KEPT.values(), ids=KEPT)
def test_a_weight_that_is_moved_cast_or_scaled_is_pruned(compute: Compute) -> None:
    network = network_of(compute)
    before, images, state = deepcopy(network.state_dict()), torch.rand(2, 3, 8, 8), torch.get_rng_state()
    assert list(prune(network, image_size=8)) == ["0.weight", "3.weight", "6.weight"]
    assert not any(check_effective(network, Mask.dense(network), images))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)


class Outside(nn.Module):
    """A network that computes with the weights of PyTorch's own modules."""

    def __init__(self, compute: Callable[[Outside, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.compute = compute
        self.conv, self.fc, self.spare = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.up = nn.ConvTranspose2d(6, 6, 2, groups=3)
        self.same = self.fc.weight
        self.query = nn.Parameter(torch.zeros(1, 1, 6))
        self.experts = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, images: Tensor) -> Tensor:
        return self.compute(self, images)


def tokens(network: Outside, images: Tensor) -> Tensor:
    return network.conv(images).flatten(2).transpose(1, 2)


def in_bfloat16(network: Outside, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network.fc(network.conv(images).mean((2, 3)))


def queried(network: Outside, images: Tensor) -> Tensor:
    """A learned query is projected, which no image takes part in, and meets keys of the image."""
    keys = tokens(network, images)
    query = network.fc(network.query.expand(len(images), -1, -1))
    return (query @ keys.transpose(1, 2)).softmax(-1) @ network.spare(keys)


def biased(network: Outside, images: Tensor) -> Tensor:
    """What a linear module says of constants is added to what comes from images."""
    return network.conv(images).mean((2, 3)) + 16 * network.spare(torch.ones(1, 6)).sigmoid()


def cosine(network: Outside, images: Tensor) -> Tensor:
    scores = network.conv(images).mean((2, 3)) @ network.fc.weight.t()
    return scores / network.fc.weight.norm(dim=1)


def routed(network: Outside, images: Tensor) -> Tensor:
    features = network.conv(images).mean((2, 3))
    return torch.stack([network.experts[int(row.sum() > 0)](row) for row in features])


@pytest.mark.parametrize(
    ("compute", "used"),
    [
        (lambda net, x: F.linear(net.conv(x).mean((2, 3)), net.fc.weight), {"conv", "fc"}),
        (lambda net, x: torch.einsum("nchw,oc->nohw", net.conv(x), net.fc.weight), {"conv", "fc"}),
        (lambda net, x: F.linear(net.fc(net.conv(x).mean((2, 3))), net.same), {"conv", "fc"}),
        (lambda net, x: net.up(net.conv(x)), {"conv", "up"}),
        (lambda net, x: net.attention(*3 * [tokens(net, x)])[0], {"conv", "attention", "attention.out_proj"}),
        (
            lambda net, x: net.layer(tokens(net, x)),
            {"conv", "layer.self_attn", "layer.self_attn.out_proj", "layer.linear1", "layer.linear2"},
        ),
        (in_bfloat16, {"conv", "fc"}),
        (queried, {"conv", "fc", "spare"}),
        (biased, {"conv", "spare"}),
        (cosine, {"conv", "fc"}),
        (routed, {"conv", "experts.0", "experts.1"}),
    ],
    ids=[
        *("functional", "einsum", "tied", "transposed", "attention", "encoder", "autocast", "query", "constants"),
        *("cosine", "routed"),
    ],
)
def test_weights_are_followed_to_wherever_they_are_used(
    compute: Callable[[Outside, Tensor], Tensor], used: set[str]
) -> None:
    network = Outside(compute)
    weights = Mask.dense(network)
    unused = check_effective(network, weights, torch.rand(2, 3, 8, 8)).unused
    found = {name.rpartition(".")[0] for name in weights if name not in unused}
    assert found == used or (compute is routed and found <= used)


@pytest.mark.parametrize(
    ("compute", "name"),
    [
        (lambda net, x: F.conv2d(x, net.conv.weight - net.conv.weight.mean()), "conv.weight"),
        (lambda net, x: net.conv(x).mean((2, 3)) @ (net.fc.weight + net.fc.weight.t()), "fc.weight"),
        (lambda net, x: (tokens(net, x)[..., None] * net.fc.weight.softmax(0)).sum(-2), "fc.weight"),
        (
            lambda net, x: F.linear(net.conv(x).mean((2, 3)), F.layer_norm(net.attention.in_proj_weight[:6], (6,))),
            "attention.in_proj_weight",
        ),
    ],
    ids=["centred", "symmetric", "by hand", "slice"],
)
def test_what_is_computed_outside_the_module_is_seen_when_the_network_runs(
    compute: Callable[[Outside, Tensor], Tensor], name: str
) -> None:
    network = Outside(compute)
    check_own_forward(network, Mask.dense(network))
    with pytest.raises(InputError, match=f"pruned weight is not zero: {name} "):
        prune(network, image_size=8)


def test_an_excluded_weight_may_be_computed_and_a_module_may_be_normalised_by_torch() -> None:
    network = nn.Sequential(
        nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
        nn.Conv2d(8, 8, 3, groups=4),
    )  # fmt: skip
    assert list(prune(network, exclude=["0", "1"], image_size=16)) == ["2.weight"]


def test_a_filter_without_weights_is_no_reason_to_refuse() -> None:
    def divided(conv: Conv) -> Tensor:
        return conv.weight / conv.weight.flatten(2).norm(dim=2)[..., None, None]

    network = nn.Sequential(*(Conv(divided, 3) for _ in range(1)))
    network[0].weight = nn.Parameter(torch.randn(8, 3, 1, 1))
    assert not any(check_effective(network, ["0.weight"], torch.rand(2, 3, 8, 8)))


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)


def small_swin() -> nn.Module:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    blocks = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=3, **blocks)


def small_convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)


def small_densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2), 8, num_classes=3, memory_efficient=True)


@pytest.mark.parametrize("build", [small_vit, small_swin, small_convnext, small_densenet])
def test_published_architectures_compute_with_their_weights(build: Callable[[], nn.Module]) -> None:
    import_torchvision()
    network = build()
    assert not any(check_effective(network, Mask.dense(network), torch.rand(2, 3, 64, 64)))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_so_do_published_networks(name: str) -> None:
    network = build_network(f"torchvision:{name}", classes=3, seed=0)
    assert not any(check_effective(network, Mask.dense(network), torch.rand(2, 3, 64, 64)))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_so_do_those_of_timm(name: str) -> None:
    network = build_network(f"timm:{name}", classes=3, seed=0)
    size = 160 if name == "test_vit" else 64
    assert not any(check_effective(network, Mask.dense(network), torch.rand(2, 3, size, size)))


def test_timms_standardised_convolutions_are_refused() -> None:
    from timm.layers import ScaledStdConv2d, StdConv2d

    for kind in (StdConv2d, ScaledStdConv2d):
        network = nn.Sequential(nn.Conv2d(3, 8, 3), kind(8, 8, 3))
        with pytest.raises(InputError, match=rf"1\.weight \({kind.__name__}\)"):
            prune(network)
        assert list(prune(network, exclude=["1"])) == ["0.weight"]


def test_masks_are_as_they_were_for_plain_networks() -> None:
    network = chain()
    assert all(torch.equal(prune(network)[name], mask) for name, mask in prune(network, image_size=16).items())


class Merged(nn.Conv2d):
    """A convolution that merges a low-rank update into its weight for evaluation, and takes it out for training."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.update = nn.Parameter(torch.randn(8, 3, 1, 1))

    def train(self, mode: bool = True) -> Merged:
        if mode != self.training:
            self.weight.data += self.update.detach() * (-1 if mode else 1)
        return super().train(mode)


def test_an_update_that_is_merged_for_evaluation_is_seen() -> None:
    network = nn.Sequential(Merged())
    before = deepcopy(network.state_dict())
    with pytest.raises(InputError, match=r"pruned weight is not zero: 0\.weight"):
        check_effective(network, ["0.weight"], torch.rand(2, 3, 8, 8))
    assert network.training
    assert network[0].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Averaged(nn.Conv2d):
    """A convolution that is evaluated with a moving average of its weight."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.register_buffer("average", self.weight.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight if self.training else self.average)


def test_a_weight_that_only_training_uses_is_named() -> None:
    network = nn.Sequential(Averaged(), nn.Conv2d(8, 8, 3))
    assert check_effective(network, Mask.dense(network), torch.rand(2, 3, 8, 8)).training_only == ("0.weight",)


class Listed(nn.Module):
    """A network with modules in a Python list, where PyTorch does not find them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.others = [nn.Conv2d(8, 8, 3, bias=False), nn.Linear(4, 4, bias=False), self.first]

    def forward(self, images: Tensor) -> Tensor:
        return self.others[1](self.others[0](self.others[2](images)))


def test_parameters_that_the_network_does_not_have_are_reported() -> None:
    use = check_effective(Listed(), ["first.weight"], torch.rand(2, 3, 8, 8))
    assert use.unregistered == ((8, 8, 3, 3), (4, 4))
