"""Residual networks for small images."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, and a shortcut connection (He et al. 2016, section 3.1).

    Parameters
    ----------
    inputs, units
        The numbers of input and output channels.
    stride
        The stride of the first convolution. If the block changes the shape, the shortcut is a 1 x 1 convolution with
        batch normalisation; otherwise it is the identity.
    """

    def __init__(self, inputs: int, units: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != units:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, units, 1, stride, bias=False), nn.BatchNorm2d(units))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, units, h / stride, w / stride]."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return out


class SmallResNet(nn.Module):
    """A residual network for small images, with a 5 x 5 stem of stride 2, a pooling layer and three stages.

    The stages `stage1`, `stage2` and `stage3` have `width`, 2 x `width` and 4 x `width` units. Their maps have 1/4, 1/8
    and 1/8 of the side length of the image.

    Parameters
    ----------
    depth
        The number of layers with weights on the longest path: 6 n + 2, where n is the number of blocks per stage (He et
        al. 2016, section 4.2).
    width
        The number of units of the first stage.
    classes
        The number of outputs.

    Raises
    ------
    ValueError
        If `depth` is not of this form with n >= 1, or `width` or `classes` is not positive.

    Examples
    --------
    >>> import torch
    >>> SmallResNet(8, 16, classes=16)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 16])
    """

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        if blocks < 1 or depth != 6 * blocks + 2 or width < 1 or classes < 1:
            raise ValueError(
                f"depth must be 6 n + 2 with n >= 1, width and classes positive: {depth}, {width}, {classes}"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stage1 = _stage(width, width, blocks, stride=1)
        self.stage2 = _stage(width, 2 * width, blocks, stride=2)
        self.stage3 = _stage(2 * width, 4 * width, blocks, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 3, h, w] to logits [n, classes]."""
        maps = self.stage3(self.stage2(self.stage1(self.stem(x))))
        scores: Tensor = self.fc(self.pool(maps).flatten(1))
        return scores


def _stage(inputs: int, units: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, units, stride)
    return nn.Sequential(first, *(ResidualBlock(units, units) for _ in range(blocks - 1)))
