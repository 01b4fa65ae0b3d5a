"""Random chains of int8 layers, streamed in C: the interpreter's integers, in fp32 and in fixed point."""

import numpy as np
import pytest

from trainlet.api import Settings, plan
from trainlet.backends.c99 import write_sources
from trainlet.ir import Graph, GraphBuilder, Quant, Value, interpret
from trainlet.ir.fixed_point import multiplier_and_shift
from trainlet.ir.ops.stream import stages
from trainlet.runtime.host import HostProgram
from trainlet.runtime.measure import peak_arena_bytes


class Chains:
    """Residual blocks of several kinds on an image, then a float head."""

    def __init__(self, seed: int, fixed: bool) -> None:
        self.rng, self.fixed = np.random.default_rng(seed), fixed
        self.b = GraphBuilder("chains")
        size = self.rng.integers(21, 29, 2)
        self.x = self.b.input("x", "s8", (1, *size, 3), Quant(0.05, int(self.rng.integers(-20, 20))))

    def quant(self) -> Quant:
        return Quant(float(self.rng.uniform(0.02, 0.1)), int(self.rng.integers(-20, 20)))

    def conv(
        self, x: Value, o: int, k: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1
    ) -> Value:
        rng, name = self.rng, f"l{len(self.b.nodes)}"
        w = self.b.constant(f"{name}/w", rng.integers(-90, 90, (o, k, k, x.shape[-1] // groups)), "s8")
        bias = self.b.constant(f"{name}/b", rng.integers(-400, 400, o), "s32")
        factors = rng.uniform(0.5, 1.3, o) / (50 * np.sqrt(k * k * x.shape[-1] / groups))
        attrs = {"strides": (stride,) * 2, "pads": (dilation * (k // 2),) * 4, "groups": groups}
        attrs |= {"dilations": (dilation,) * 2}
        rescale: dict[str, object] = {}
        scale = factors.astype(np.float32)
        if self.fixed:
            scale = np.array([multiplier_and_shift(float(f)) for f in factors], np.int32).T
            rescale = {"lo": -100, "hi": 120, "once": bool(rng.integers(2))}
            attrs["w_zero"] = int(rng.integers(-9, 9))
        acc = self.b.add("ConvInteger", [x, w], attrs, name=f"{name}/acc", source=name)
        operands = [acc, bias, self.b.constant(f"{name}/s", scale)]
        return self.b.add("Requantize", operands, rescale, name=name, source=name, quant=self.quant())

    def sum(self, a: Value, c: Value) -> Value:
        attrs = {"fixed": True, "subtract": bool(self.rng.integers(2)), "lo": -90} if self.fixed else {}
        return self.b.add("QLinearAdd", [a, c], attrs, name=f"l{len(self.b.nodes)}", quant=self.quant())

    def block(self, x: Value, kind: int) -> Value:
        """An inverted residual, a residual beside a projection, or a grouped and dilated convolution."""
        c, k = x.shape[-1], int(self.rng.choice([3, 5, 7]))
        match kind:
            case 0:
                y = self.conv(self.conv(self.conv(x, 3 * c), 3 * c, k, 1, 3 * c), c)
                return self.sum(y, x) if self.rng.integers(2) else self.sum(x, y)
            case 1:
                y = self.conv(self.conv(x, c, 3, 2), c, 3)
                return self.sum(y, self.conv(x, c, 1, 2))
            case 2:
                window = {"kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1)}
                wide = self.conv(x, 3 * c)
                return self.conv(self.b.add("MaxPool", [wide], window, name="max", quant=wide.quant), c, 3)
            case _:
                return self.conv(self.conv(x, 2 * c, 3, groups=2, dilation=2), 4, k)

    def network(self) -> Graph:
        x = self.conv(self.x, 4, 3, 1 + int(self.rng.integers(2)))
        for kind in self.rng.permutation(4):
            x = self.block(x, kind)
        real = self.b.add("DequantizeLinear", [x], name="real")
        flat = self.b.add("Reshape", [real], {"shape": (1, x.size)}, name="flat")
        self.features = flat
        w = self.b.constant("head/w", self.rng.normal(0, 0.1, (3, x.size)).astype(np.float32))
        bias = self.b.constant("head/b", np.zeros(3, np.float32))
        return self.b.build([self.b.add("Gemm", [flat, w, bias], name="logits", source="head")])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("seed", "place"), [(0, "arena"), (1, "rows"), (2, "rows")])
def test_streamed_chains_give_the_interpreter_s_integers(seed, place, fixed, tmp_path):
    chains = Chains(seed, fixed)
    graph = chains.network()
    program = plan(graph, Settings(input=place, batch=2))
    streamed = [n for n in program.main.graph.nodes if n.op == "StreamRows"]
    kinds = [p.op for n in streamed for p in stages(n.inputs, n.attrs)]
    assert len(kinds) > 3, kinds
    host = HostProgram(write_sources(program, tmp_path))
    x = np.random.default_rng(seed).integers(-128, 128, (2, *graph.inputs[0].shape[1:])).astype(np.int8)
    ours = host.prefix("predict", x[:1])
    layers = Graph(graph.name, graph.inputs, (chains.features,), graph.nodes, graph.constants)
    found = interpret(layers, {"x": x[:1]}).outputs[0]
    assert len(np.unique(found)) > 20
    assert np.array_equal(ours.view(np.float32), found.reshape(-1))
    assert np.array_equal(host.predict(x)[0], host.predict_resume(ours))
    assert peak_arena_bytes(host, x, np.array([0, 1], np.int32)) == program.bytes["arena"]
