"""Programs for tests: small networks over many ops, float and int8, under several schemes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainlet.api import Settings, plan
from trainlet.backends.c99 import write_sources
from trainlet.ir import Graph, GraphBuilder, Value
from trainlet.quantize import quantize


class Net:
    """A terse builder of float networks with random weights."""

    def __init__(self, name: str, shape: tuple[int, ...], seed: int = 0) -> None:
        self.b, self.rng, self.n = GraphBuilder(name), np.random.default_rng(seed), 0
        self.x = self.b.input("x", "f32", (1, *shape))

    def conv(
        self,
        x: Value,
        o: int,
        k: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: str = "relu",
    ) -> Value:
        rank, c, self.n = len(x.shape) - 2, x.shape[-1], self.n + 1
        size = (o, *(k,) * rank, c // groups)
        w = self.b.constant(f"conv{self.n}/weight", self.rng.normal(0, (2 / np.prod(size[1:])) ** 0.5, size))
        bias = self.b.constant(f"conv{self.n}/bias", self.rng.normal(0, 0.1, o))
        attrs = {
            "strides": (stride,) * rank,
            "pads": (dilation * (k - 1) // 2,) * (2 * rank),
            "groups": groups,
            "dilations": (dilation,) * rank,
        }
        y = self.b.add("Conv", [x, w, bias], attrs, name=f"conv{self.n}", source=f"net:/conv{self.n}")
        return self.act(y, act)

    def act(self, x: Value, kind: str) -> Value:
        if kind == "relu":
            return self.b.add("Clip", [x], {"lo": 0.0}, name=f"{x.name}.relu")
        if kind == "relu6":
            return self.b.add("Clip", [x], {"lo": 0.0, "hi": 6.0}, name=f"{x.name}.relu6")
        return x if kind == "none" else self.b.add(kind, [x], name=f"{x.name}.{kind}")

    def head(self, x: Value, classes: int) -> Graph:
        pooled = self.b.add("AveragePool", [x], {"kernel": ()}, name="pooled")
        flat = self.b.add("Reshape", [pooled], {"shape": (1, x.shape[-1])}, name="flat")
        return self.gemm(flat, classes)

    def gemm(self, x: Value, o: int) -> Graph:
        w = self.b.constant("head/weight", self.rng.normal(0, 0.3, (o, x.shape[-1])))
        return self.b.build(
            [self.b.add("Gemm", [x, w, self.b.constant("head/bias", np.zeros(o))], name="logits")]
        )


def residual() -> Graph:
    """Inverted residuals as in MobileNetV2."""
    n = Net("residual", (9, 7, 3))
    x = n.conv(n.x, 8, 3, 2)
    y = n.conv(n.conv(n.conv(x, 20), 20, 3, groups=20, act="relu6"), 8, act="none")
    x = n.b.add("Add", [x, y], name="sum1")
    y = n.conv(n.conv(n.conv(x, 17), 17, 5, groups=17), 8, act="none")
    x = n.b.add("Add", [x, y], name="sum2")
    return n.head(n.conv(x, 24, act="relu"), 5)


def excited() -> Graph:
    """Squeeze and excite, hard activations, concat, max pool, grouped and dilated convolutions."""
    n = Net("excited", (12, 12, 4), 1)
    x = n.conv(n.x, 12, 3, act="HardSwish")
    x = n.b.add("MaxPool", [x], {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}, name="pool1")
    gate = n.b.add("AveragePool", [x], {"kernel": ()}, name="squeezed")
    gate = n.conv(n.conv(gate, 6), 12, act="HardSigmoid")
    x = n.b.add("Mul", [x, gate], name="gated")
    a, b = n.conv(x, 8, 3, groups=2, act="Sigmoid"), n.conv(x, 6, 3, dilation=2, act="Tanh")
    x = n.b.add("Concat", [a, b], {"axis": 3}, name="both")
    x = n.b.add("Pad", [x], {"pads": (0, 1, 0, 0, 0, 0, 1, 0)}, name="padded")
    x = n.b.add("AveragePool", [x], {"kernel": (2, 2), "strides": (2, 2)}, name="pool2")
    return n.head(n.conv(x, 16, 1), 4)


def wave() -> Graph:
    """A 1-D network on (length, channels)."""
    n = Net("wave", (40, 6), 2)
    x = n.conv(n.x, 16, 5, 2)
    y = n.conv(n.conv(x, 16, 3, groups=16), 16, act="none")
    x = n.b.add("Add", [x, y], name="sum")
    return n.head(n.conv(x, 20, 3, 2), 7)


def perceptron() -> Graph:
    """Gemm only, with softsign-like activations and a transpose on the way."""
    n = Net("perceptron", (6, 5), 3)
    x = n.b.add("Transpose", [n.x], {"perm": (0, 2, 1)}, name="turned")
    x = n.b.add("Reshape", [x], {"shape": (1, 30)}, name="flat")
    for i, width in enumerate((24, 18)):
        w = n.b.constant(f"fc{i}/weight", n.rng.normal(0, 0.2, (width, x.shape[-1])))
        x = n.b.add("Gemm", [x, w, n.b.constant(f"fc{i}/bias", np.zeros(width))], name=f"fc{i}")
        x = n.act(x, "Tanh" if i else "relu")
    return n.gemm(x, 3)


def attention() -> Graph:
    """A patch embedding, a class token, one transformer block with two heads, layer norms, Gelu, Silu."""
    n = Net("attention", (8, 8, 3), 4)

    def linear(x: Value, o: int, name: str) -> Value:
        w = n.b.constant(f"{name}/weight", n.rng.normal(0, 0.3, (o, x.shape[-1])))
        return n.b.add("Gemm", [x, w, n.b.constant(f"{name}/bias", n.rng.normal(0, 0.1, o))], name=name)

    def norm(x: Value, name: str) -> Value:
        scale = [n.b.constant(f"{name}/{k}", n.rng.normal(1, 0.2, x.shape[-1])) for k in ("gamma", "beta")]
        return n.b.add("LayerNormalization", [x, *scale], name=name)

    def heads(x: Value, name: str) -> Value:
        split = n.b.add("Reshape", [x], {"shape": (1, 5, 2, 6)}, name=f"{name}.split")
        return n.b.add("Transpose", [split], {"perm": (0, 2, 1, 3)}, name=f"{name}.heads")

    x = n.b.add("Reshape", [n.conv(n.x, 12, 4, 4, act="none")], {"shape": (1, 4, 12)}, name="tokens")
    token = n.b.constant("token", n.rng.normal(0, 1, (1, 1, 12)))
    x = n.b.add("Concat", [token, x], {"axis": 1}, name="all")
    y = norm(x, "norm1")
    q, k, v = (heads(linear(y, 12, name), name) for name in ("q", "k", "v"))
    scores = n.b.add("MatMul", [q, k], {"trans_b": True}, name="scores")
    weights = n.b.add("Softmax", [n.b.add("Scale", [scores], {"factor": 0.4})], name="weights")
    y = n.b.add("Transpose", [n.b.add("MatMul", [weights, v])], {"perm": (0, 2, 1, 3)}, name="joined")
    y = linear(n.b.add("Reshape", [y], {"shape": (1, 5, 12)}, name="flat"), 12, "out")
    x = n.b.add("Add", [x, y], name="sum1")
    y = n.act(linear(norm(x, "norm2"), 20, "mlp1"), "Gelu")
    x = n.b.add("Add", [x, n.act(linear(y, 12, "mlp2"), "Silu")], name="sum2")
    first = n.b.add("Slice", [x], {"starts": (0, 0, 0), "sizes": (1, 1, 12)}, name="first")
    return n.gemm(n.b.add("Reshape", [first], {"shape": (1, 12)}, name="features"), 3)


def normalized() -> Graph:
    """Convolutions whose batch normalizations are trained, GeluTanh."""
    n = Net("normalized", (6, 5, 3), 5)
    x = n.x
    for i in (1, 2):
        y, c = n.conv(x, 8, 3, act="none"), 8
        scale = [n.b.constant(f"norm{i}/{k}", n.rng.normal(1, 0.2, c)) for k in ("gamma", "beta", "mean")]
        var = n.b.constant(f"norm{i}/var", n.rng.uniform(0.5, 2, c))
        x = n.act(n.b.add("BatchNormalization", [y, *scale, var], name=f"norm{i}"), "GeluTanh")
    return n.head(x, 4)


def deep(stride: int = 1, kernel: int = 3, seed: int = 0) -> Graph:
    """An int8 stem, three inverted residuals on wide maps and a small tail: the front sets the peak."""
    n = Net("deep", (33, 29, 3), seed)
    x = n.conv(n.x, 8, 3, 2)
    for s in (1, stride, 1):
        y = n.conv(n.conv(n.conv(x, 24), 24, kernel, s, groups=24), 8, act="none")
        x = n.b.add("Add", [x, y], name=f"{y.name}.sum") if s == 1 else y
    x = n.conv(x, 12, 3, 2)
    calibration = np.random.default_rng(1).normal(0, 1, (16, 33, 29, 3)).astype(np.float32)
    return quantize(n.head(n.conv(x, 16), 4), calibration)


NETWORKS: dict[str, Callable[[], Graph]] = {f.__name__: f for f in (residual, excited, wave, perceptron)}
FLOAT_NETWORKS = {f.__name__: f for f in (attention, normalized)}  # have no int8 form


def samples(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    """Network inputs (count, *sample shape) of the graph's input type."""
    x = np.random.default_rng(seed).normal(0, 1, (count, *graph.inputs[0].shape[1:])).astype(np.float32)
    if graph.inputs[0].dtype == "f32":
        return x
    from trainlet.quantize import quantize_samples

    return quantize_samples(graph, x)


def network(name: str, int8: bool) -> Graph:
    graph = {**NETWORKS, **FLOAT_NETWORKS}[name]()
    if not int8:
        return graph
    calibration = np.random.default_rng(9).normal(0, 1, (32, *graph.inputs[0].shape[1:])).astype(np.float32)
    return quantize(graph, calibration)


def built(graph: Graph, folder, **settings):
    """(planned program, folder of its sources)."""
    program = plan(graph, Settings(**settings))
    return program, write_sources(program, folder)


def labels(program, count, seed=0):
    classes = program.functions["predict"].graph.outputs[0].shape[-1]
    return np.random.default_rng(seed).integers(0, classes, count).astype(np.int32)
