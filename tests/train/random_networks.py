"""Hypothesis strategies: small random networks, float or int8, and training modules of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.train.networks import Arrays, Net, feeds, seeds
from trainlet.errors import ModelError
from trainlet.ir import Graph, Value
from trainlet.ir.text import print_program
from trainlet.quantize import quantize
from trainlet.scheme import Channels, UpdateScheme, layers, select
from trainlet.train import Optimizer, TrainingModule, derive


@dataclass(frozen=True, repr=False)
class Training:
    """A module and a batch for it; `feeds` fits every function's inputs. Prints as its functions' text."""

    graph: Graph
    module: TrainingModule
    feeds: Arrays

    def __repr__(self) -> str:
        return "\n" + print_program(self.module.functions.values())

    def inputs(self, graph: Graph) -> Arrays:
        return {v.name: self.feeds[v.name] for v in graph.inputs}


class _Grower:
    """Adds random blocks to a float network."""

    def __init__(self, draw: st.DrawFn, batch: int) -> None:
        self.draw, self.net = draw, Net((batch, 6, 5, 3), draw(seeds))

    def conv(self, x: Value, outputs: int, groups: int = 1, stride: int = 1) -> Value:
        kernel = self.draw(st.sampled_from([1, 3]))
        name = f"conv{len(self.net.nodes)}"
        w = self.net.normal(f"{name}/weight", (outputs, kernel, kernel, x.shape[-1] // groups))
        b = self.net.normal(f"{name}/bias", (outputs,)) if self.draw(st.booleans()) else None
        attrs = {"strides": (stride,) * 2, "pads": (kernel // 2,) * 4, "groups": groups}
        return self.net.add("Conv", [x, w, b], attrs, name=name, source=f"net.onnx:/{name}")

    def active(self, x: Value) -> Value:
        kind = self.draw(st.sampled_from(["none", "relu", "relu6", "HardSwish", "Sigmoid"]))
        if kind in ("relu", "relu6"):
            return self.net.add("Clip", [x], {"lo": 0.0, "hi": 6.0 if kind == "relu6" else np.inf})
        return x if kind == "none" else self.net.add(kind, [x])

    def block(self, x: Value) -> Value:
        channels, kinds = x.shape[-1], ["conv", "depthwise", "residual", "max", "concat", "gate", "flatten"]
        match self.draw(st.sampled_from(kinds)):
            case "conv":
                return self.active(
                    self.conv(x, self.draw(st.integers(2, 5)), 1, self.draw(st.integers(1, 2)))
                )
            case "depthwise":
                return self.active(self.conv(x, channels, channels))
            case "residual":
                return self.active(
                    self.net.add("Add", [x, self.conv(self.active(self.conv(x, 4)), channels)])
                )
            case "max":
                return self.net.add("MaxPool", [x], {"kernel": (2, 2), "pads": (0, 0, 1, 1)})
            case "concat":
                return self.net.add("Concat", [x, self.active(self.conv(x, 2))], {"axis": 3})
            case "gate":
                pooled = self.net.add("AveragePool", [x], {"kernel": ()})
                return self.net.add("Mul", [x, self.net.add("Sigmoid", [self.conv(pooled, channels)])])
            case _:
                n, h, w, c = x.shape
                flat = self.net.add("Reshape", [x], {"shape": (n, 1, h * w, c)})
                return self.net.add("Reshape", [self.active(flat)], {"shape": x.shape})

    def head(self, x: Value) -> Graph:
        pooled = self.net.add("AveragePool", [x], {"kernel": ()})
        flat = self.net.add("Reshape", [pooled], {"shape": (x.shape[0], x.shape[-1])})
        return self.net.build([self.net.operand("head", 3, flat)])


@st.composite
def networks(draw: st.DrawFn, batches: tuple[int, ...] = (1, 2)) -> Graph:
    """Convolutions, depthwise, shortcuts, pools, gates and clamps, then a pool and a Gemm."""
    grower = _Grower(draw, draw(st.sampled_from(batches)))
    x = grower.active(grower.conv(grower.net.x, 4))
    for _ in range(draw(st.integers(1, 3))):
        x = grower.block(x)
    return grower.head(x)


@st.composite
def schemes(draw: st.DrawFn, graph: Graph) -> UpdateScheme:
    """Random channels of random layers; at least one bias or weight."""
    weights, biases = {}, []
    for layer in layers(graph):
        counts = [0, layer.channels, max(1, layer.channels // 2)]
        grouped = layer.node.attrs.get("groups", 1) > 1 and not layer.depthwise
        if count := draw(st.sampled_from(counts[: 2 if grouped else 3])):
            weights[layer.weight.name] = Channels(count=count)
        if layer.bias is not None and draw(st.booleans()):
            biases.append(layer.bias.name)
    if not weights and not biases:
        weights["head/weight"] = Channels(share=1.0)
    return UpdateScheme("random", weights, tuple(biases))


@st.composite
def trainings(draw: st.DrawFn, integer: bool | None = None) -> Training:
    """A module of a random network, int8 or float, under a random scheme and optimizer."""
    integer = draw(st.booleans()) if integer is None else integer
    graph = draw(networks((1,) if integer else (1, 2)))
    rng = np.random.default_rng(draw(seeds))
    if integer:
        try:
            graph = quantize(graph, rng.normal(0, 1, (4, *graph.inputs[0].shape[1:])).astype(np.float32))
        except ModelError:  # a unit that never varies on these samples
            assume(False)
    master = draw(st.sampled_from(["residual", "stochastic", "nearest", "fp32"])) if integer else "fp32"
    rules = ["sgd", "momentum", "adamw"][: 3 if master == "fp32" else 2]
    optimizer = Optimizer(draw(st.sampled_from(rules)), master)
    selection = select(draw(schemes(graph)), graph)
    module = derive(graph, selection, optimizer, accumulate=draw(st.booleans()))
    given = feeds(graph, rng, "softmax-cross-entropy")
    return Training(graph, module, {**given, "lr": np.full(1, 0.01), "factor": np.full(1, 0.5)})
