"""A small float network of inverted residual blocks, made-up gains for it, and a model of its memory."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.quantize.networks import Net
from trainlet import api
from trainlet.choose.gains import Gains
from trainlet.choose.memory import MemoryModel
from trainlet.choose.space import Choice, Space, space
from trainlet.ir import Graph

SETTINGS = api.Settings("head")


def mobile(blocks: int = 3) -> Graph:
    """A stem, inverted residual blocks (the first changes the width), pooling and a head of 5 classes."""
    net = Net((1, 12, 12, 3))
    y = net.relu(net.conv(net.x, 8, "stem", stride=2))
    for i in range(blocks):
        wide = net.relu(net.conv(y, 32, f"{i}.pw1", kernel=1), 6.0)
        wide = net.relu(net.conv(wide, 32, f"{i}.dw", groups=32), 6.0)
        narrow = net.conv(wide, 16, f"{i}.pw2", kernel=1)
        same = narrow.shape == y.shape
        y = net.add("Add", [narrow, y], name=f"{i}.add", source=f"net.onnx:/{i}.add") if same else narrow
    return net.classify(y)


@cache
def mobile_space(blocks: int = 3) -> Space:
    return space(mobile(blocks))


@cache
def mobile_memory(blocks: int = 3) -> MemoryModel:
    return MemoryModel(mobile_space(blocks), SETTINGS, for_board=True)


def made_up_gains(places: Space, seed: int = 0) -> Gains:
    """Concave in the number of biases and of channels, random by layer; one weight does harm."""
    rng = np.random.default_rng(seed)
    worth = rng.gamma(1.0, 0.02, len(places.body))
    worth[2] = -0.01
    biases = 0.1 * (1 - np.exp(-np.arange(len(places.body) + 1) / 3))

    def weight(layer: int, count: int) -> float:
        share = count / places.body[layer].channels
        return float(worth[layer] * np.log1p(8 * share) / np.log(9))

    return Gains(biases, weight)


def random_choice(places: Space, rng: np.random.Generator) -> Choice:
    n = len(places.body)
    biases = int(rng.integers(0, n + 1))
    counts = [0] * n
    for i in range(int(rng.integers(0, n)), n):
        if rng.random() < 0.4:
            counts[i] = int(rng.choice(places.options(i)))
    return Choice(biases, tuple(counts))
