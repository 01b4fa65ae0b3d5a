"""Small float networks around one op, and the windows that convolutions and pools slide over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from trainlet.ir import Graph, GraphBuilder, Value, interpret
from trainlet.ir.graph import Attrs, Shape
from trainlet.scheme import Selection, layers
from trainlet.scheme.layers import norms
from trainlet.train import Optimizer, TrainingModule, derive

Arrays = Mapping[str, np.ndarray]
seeds = st.integers(0, 2**32 - 1)


class Net(GraphBuilder):
    """A builder whose constants are drawn, and whose first layers make an op's operands trainable."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__("net")
        self.rng = np.random.default_rng(seed)
        self.x = self.input("x", "f32", shape)

    def normal(self, name: str, shape: Shape) -> Value:
        return self.constant(name, self.rng.normal(0, 1, shape).astype(np.float32))

    def operand(self, name: str, outputs: int | None = None, x: Value | None = None) -> Value:
        """A trainable value of x's shape (or with `outputs` channels): a Gemm `name` of the input."""
        x = self.x if x is None else x
        outputs = x.shape[-1] if outputs is None else outputs
        w, b = self.normal(f"{name}/weight", (outputs, x.shape[-1])), self.normal(f"{name}/bias", (outputs,))
        return self.add("Gemm", [x, w, b], name=name, source=f"net.onnx:/{name}")

    def scored(self, y: Value) -> Graph:
        """The graph whose output is y, one row a sample."""
        batch = self.x.shape[0]
        return self.build([self.add("Reshape", [y], {"shape": (batch, y.size // batch)}, name="out")])


@dataclass(frozen=True)
class Sliding:
    """A window over x (N, *S, C): attributes of a convolution or pool, all written out."""

    x: Shape
    kernel: Shape
    strides: Shape
    pads: Shape
    dilations: Shape

    @property
    def attrs(self) -> Attrs:
        return {"strides": self.strides, "pads": self.pads}


@st.composite
def slidings(draw: st.DrawFn, ranks: tuple[int, ...], channels: int, dilate: bool, overhang: bool) -> Sliding:
    """Uneven pads and strides; with `overhang` a window may lie in the padding entirely."""

    def ints(count: int, low: int, high: int) -> Shape:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    rank = draw(st.sampled_from(ranks))
    kernel, strides = ints(rank, 1, 3), ints(rank, 1, 3)
    dilations = ints(rank, 1, 2 if dilate else 1)
    most = 2 if overhang else min(kernel, default=1) - 1
    pads = ints(2 * rank, 0, most)
    spatial = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - pads[i] - pads[rank + i]), 5))
        for i, (k, d) in enumerate(zip(kernel, dilations))
    )
    return Sliding((draw(st.integers(1, 2)), *spatial, channels), kernel, strides, pads, dilations)


@dataclass(frozen=True)
class Case:
    """A network, what is trained of it, a batch, and the loss."""

    graph: Graph
    selection: Selection
    feeds: Arrays
    loss: str = "mean-squared-error"

    def derive(self, optimizer: Optimizer | None = None, accumulate: bool = False) -> TrainingModule:
        return derive(self.graph, self.selection, optimizer, self.loss, accumulate)


def case(
    graph: Graph,
    seed: int = 0,
    channels: Mapping[str, Iterable[int]] | None = None,
    loss: str = "mean-squared-error",
) -> Case:
    """Everything is trained, only `channels` of the weights named; inputs and targets are drawn."""
    rng = np.random.default_rng(seed)
    chosen = {name: tuple(indices) for name, indices in (channels or {}).items()}
    found = [*layers(graph), *norms(graph)]
    weights = {layer.weight.name: chosen.get(layer.weight.name) for layer in found}
    biases = frozenset(layer.bias.name for layer in found if layer.bias is not None)
    return Case(graph, Selection("all", weights, biases), feeds(graph, rng, loss), loss)


def feeds(graph: Graph, rng: np.random.Generator, loss: str = "mean-squared-error") -> Arrays:
    """A sample and its target, with a learning rate of 1."""
    (x,), out = graph.inputs, graph.outputs[0].shape
    sample = rng.normal(0, 1, x.shape) if x.dtype == "f32" else rng.integers(-128, 128, x.shape)
    target = rng.uniform(0, 1, out) if loss != "softmax-cross-entropy" else rng.integers(0, out[1], out[0])
    return {x.name: sample, "label": target, "lr": np.ones(1)}


def gradients(given: Case, real: type[np.floating] = np.float64) -> dict[str, np.ndarray]:
    """Gradient by parameter name: how far plain SGD of rate 1 moves it."""
    module = given.derive()
    after = interpret(module.functions["step"], given.feeds, real=real).state
    before = {p.name: p.tensors["w"].data.astype(real) for p in module.parameters}
    return {p.name: before[p.name] - after[p.tensors["w"].value.name] for p in module.parameters}
