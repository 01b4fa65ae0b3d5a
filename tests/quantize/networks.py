"""Small float networks for the quantizer's tests."""

from __future__ import annotations

import numpy as np

from trainlet.ir import Graph, GraphBuilder, Value, interpret


class Net(GraphBuilder):
    """A builder that draws He-initialized weights."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__("net")
        self.random = np.random.default_rng(seed)
        self.x = self.input("x", "f32", shape)

    def conv(
        self,
        x: Value,
        outputs: int,
        name: str,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> Value:
        rank = len(x.shape) - 2
        shape = (outputs, *(kernel,) * rank, x.shape[-1] // groups)
        fan_in = int(np.prod(shape[1:]))
        w = self.constant(f"{name}/weight", self.random.normal(0, np.sqrt(2 / fan_in), shape))
        b = self.constant(f"{name}/bias", self.random.normal(0, 0.1, outputs)) if bias else None
        attrs = {"strides": (stride,) * rank, "pads": (kernel // 2,) * (2 * rank), "groups": groups}
        return self.add("Conv", [x, w, b], attrs, name=name, source=f"net.onnx:/{name}")

    def relu(self, x: Value, hi: float = np.inf) -> Value:
        name = f"{x.name}/relu"
        return self.add("Clip", [x], {"lo": 0.0, "hi": hi}, name=name, source=f"net.onnx:/{name}")

    def pool(self, x: Value) -> Value:
        return self.add("AveragePool", [x], {"kernel": ()}, name=f"{x.name}/pool")

    def classify(self, x: Value, classes: int = 5) -> Graph:
        x = self.pool(x) if len(x.shape) > 2 else x
        flat = self.add("Reshape", [x], {"shape": (x.shape[0], x.size // x.shape[0])}, name="flat")
        w = self.constant("head/weight", self.random.normal(0, 0.3, (classes, flat.shape[1])))
        b = self.constant("head/bias", self.random.normal(0, 0.1, classes))
        return self.build([self.add("Gemm", [flat, w, b], name="logits", source="net.onnx:/head")])


def plain(seed: int = 0) -> Graph:
    net = Net((1, 12, 12, 3), seed)
    y = net.relu(net.conv(net.x, 8, "stem", stride=2))
    y = net.relu(net.conv(y, 8, "dw", groups=8), 6.0)
    return net.classify(net.relu(net.conv(y, 16, "pw", kernel=1, bias=False)))


def residual(seed: int = 0) -> Graph:
    net = Net((1, 8, 8, 4), seed)
    a = net.relu(net.conv(net.x, 8, "first"))
    b = net.conv(net.relu(net.conv(a, 8, "left")), 8, "right")
    total = net.add("Add", [a, b], name="sum", source="net.onnx:/sum")
    return net.classify(net.relu(total))


def squeeze_excite(seed: int = 0) -> Graph:
    net = Net((1, 8, 8, 4), seed)
    y = net.add("HardSwish", [net.conv(net.x, 8, "first")], name="swish")
    s = net.relu(net.conv(net.pool(y), 4, "squeeze", kernel=1))
    gate = net.add("HardSigmoid", [net.conv(s, 8, "excite", kernel=1)], name="gate")
    return net.classify(net.add("Mul", [gate, y], name="gated", source="net.onnx:/gated"))


def branches(seed: int = 0) -> Graph:
    net = Net((1, 8, 8, 4), seed)
    y = net.relu(net.conv(net.x, 8, "first"))
    a, b = net.relu(net.conv(y, 4, "one", kernel=1)), net.conv(y, 6, "three")
    c = net.add("MaxPool", [y], {"kernel": (3, 3), "pads": (1, 1, 1, 1)}, name="max")
    joined = net.add("Concat", [a, b, c], {"axis": 3}, name="joined", source="net.onnx:/joined")
    return net.classify(net.relu(net.conv(joined, 8, "last", kernel=1)))


def sequence(seed: int = 0) -> Graph:
    net = Net((1, 32, 6), seed)
    y = net.relu(net.conv(net.x, 8, "first", kernel=5, stride=2))
    y = net.add("Tanh", [net.conv(y, 8, "second")], name="tanh")
    return net.classify(y)


def attention(seed: int = 0) -> Graph:
    """Ops that have no int8 form: MatMul and Softmax, between convolutions."""
    net = Net((1, 4, 4, 4), seed)
    y = net.relu(net.conv(net.x, 8, "first"))
    rows = net.add("Reshape", [y], {"shape": (1, 16, 8)}, name="rows")
    scores = net.add("MatMul", [rows, rows], {"trans_b": True}, name="scores")
    scaled = net.add("Scale", [scores], {"factor": 0.35}, name="scaled")
    weights = net.add("Softmax", [scaled], name="weights")
    mixed = net.add("MatMul", [weights, rows], name="mixed")
    back = net.add("Reshape", [mixed], {"shape": (1, 4, 4, 8)}, name="back")
    return net.classify(net.relu(net.conv(back, 8, "last", kernel=1)))


def affine(seed: int = 0) -> Graph:
    """A normalization that was not folded: Mul and Add by channel, Sub and Add of a number."""
    net = Net((1, 6, 6, 4), seed)
    scale = net.constant("bn/scale", net.random.uniform(0.5, 2, 4))
    shift = net.constant("bn/shift", net.random.normal(0, 1, (1, 1, 1, 4)))
    y = net.add("Mul", [net.x, scale], name="scaled")
    y = net.add("Add", [y, shift], name="shifted")
    y = net.add("Sub", [net.constant("one", np.ones(1)), net.relu(y)], name="flipped")
    y = net.add("Pad", [y], {"pads": (0, 1, 1, 0, 0, 0, 0, 0), "value": 0.5}, name="padded")
    return net.classify(net.relu(net.conv(y, 8, "last")))


NETWORKS = {f.__name__: f for f in (plain, residual, squeeze_excite, branches, sequence, attention, affine)}


def draw(graph: Graph, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, *graph.inputs[0].shape[1:])).astype(np.float32)


def run(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """Outputs (M, ...) of a graph for one sample at a time."""
    name = graph.inputs[0].name
    return np.concatenate([interpret(graph, {name: s[None]}).outputs[0] for s in samples])


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """Signal to noise in decibel."""
    return float(10 * np.log10((wanted**2).sum() / max(((got - wanted) ** 2).sum(), 1e-30)))
