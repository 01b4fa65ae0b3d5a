"""The networks that are timed against PyTorch, as PyPI `transformers` defines them, and their schemes.

W1: MobileNetV2 0.35 at 128x128, 10 classes. W2: ResNet-18 at 224x224. ResNet-50 at 224x224. Weights are
random (from `seed`): the time of a step does not depend on them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainlet.ir import Graph
from trainlet.scheme import Channels, UpdateScheme
from trainlet.scheme.layers import Layer, layers

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
WHOLE = Channels(share=1.0)


@dataclass(frozen=True)
class Workload:
    """A network (`module(seed)` is in evaluation mode), its input (C, H, W), its sparse scheme.

    lr: at larger ones the losses of ResNets go apart (or up) by rounding alone and could not be compared.
    """

    name: str
    module: Callable[[int], Any]
    input_shape: tuple[int, int, int]
    classes: int
    sparse: Callable[[Graph], UpdateScheme]
    lr: float = 0.01

    def example(self, batch: int = 1) -> Any:
        """A tensor of zeros (batch, C, H, W)."""
        import torch

        return torch.zeros(batch, *self.input_shape)


def mobilenet_v2(seed: int, width: float = 0.35, size: int = 128, classes: int = 10) -> Any:
    """transformers' MobileNetV2, with TensorFlow's asymmetric padding as its checkpoints have it."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    torch.manual_seed(seed)
    config = MobileNetV2Config(depth_multiplier=width, image_size=size, num_labels=classes)
    return MobileNetV2ForImageClassification(config).eval()


def resnet(seed: int, depth: int = 18, classes: int = 1000) -> Any:
    """transformers' ResNet of 18 or 50 layers."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    shapes = {
        18: ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        50: ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    }
    kind, depths, sizes = shapes[depth]
    config = ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=sizes, num_labels=classes)
    return ResNetForImageClassification(config).eval()


def efficientnet_lite0(seed: int) -> Any:
    """examples/efficientnet_lite0.py, with random weights."""
    import torch

    from examples.efficientnet_lite0 import EfficientNetLite0

    torch.manual_seed(seed)
    return EfficientNetLite0().eval()


def last_blocks(graph: Graph, biases: int = 20, blocks: int = 6) -> UpdateScheme:
    """W1's: biases of the last convolutions, first 1x1 weight of the last inverted residuals, head."""
    body, head = _split(graph)
    expand = [x for x in body if re.search("expand_1x1|_expand_conv", x.weight.name)]
    return _scheme("sparse", [*expand[-blocks:], *head], [*body[-biases:], *head])


def last_stages(graph: Graph, stages: tuple[str, ...] = ("stages.2.", "stages.3.")) -> UpdateScheme:
    """W2's: in the last two stages all biases and the first convolution of each block; the head."""
    body, head = _split(graph)
    last = [x for x in body if any(s in x.weight.name for s in stages)]
    first = [x for x in last if ".layer.0." in x.weight.name]
    return _scheme("sparse", [*first, *head], [*last, *head])


def _split(graph: Graph) -> tuple[list[Layer], list[Layer]]:
    found = layers(graph)
    return [x for x in found if not x.is_head], [x for x in found if x.is_head]


def _scheme(name: str, weights: list[Layer], biases: list[Layer]) -> UpdateScheme:
    with_bias = tuple(x.bias.name for x in biases if x.bias is not None)
    return UpdateScheme(name, {x.weight.name: WHOLE for x in weights}, with_bias)


WORKLOADS = {
    w.name: w
    for w in (
        Workload("w1", mobilenet_v2, (3, 128, 128), 10, last_blocks),
        Workload("w2", resnet, (3, 224, 224), 1000, last_stages, 1e-3),
        Workload("efficientnet-lite0", efficientnet_lite0, (3, 224, 224), 1000, last_blocks),
        Workload("resnet50", lambda seed: resnet(seed, 50), (3, 224, 224), 1000, last_stages, 1e-5),
    )
}
