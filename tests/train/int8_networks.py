"""Int8 networks around one op, and the same in PyTorch with rounding passed straight through."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.train.networks import Case, case
from tests.train.pytorch import torch
from trainlet.ir import Graph, GraphBuilder, Quant, Value, interpret
from trainlet.ir.graph import Attrs, Shape

F = torch.nn.functional
Leaves = Mapping[str, torch.Tensor]


class Int8Net(GraphBuilder):
    """A builder of int8 layers whose scales make about a tenth of the results saturate."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__("net")
        self.rng = np.random.default_rng(seed)
        self.x = self.input("x", "s8", shape, Quant(0.5, -7))

    def quant(self) -> Quant:
        scale = np.float32(self.rng.uniform(0.3, 0.9))
        return Quant(float(scale), int(self.rng.integers(-40, 40)))

    def conv(
        self,
        x: Value,
        outputs: int,
        name: str,
        kernel: Shape = (1, 1),
        attrs: Attrs | None = None,
        dead: tuple[int, ...] = (),
    ) -> Value:
        """ConvInteger and Requantize; `dead` output channels have all-zero weights of a tiny scale."""
        attrs = attrs or {}
        shape = (outputs, *kernel, x.shape[-1] // int(attrs.get("groups", 1)))
        data = self.rng.integers(-127, 128, shape)
        scales = self.rng.uniform(0.01, 0.03, outputs).astype(np.float32)
        data[list(dead)], scales[list(dead)] = 0, 4e-9
        held = self.constant(f"{name}/scale", scales)
        w = self.constant(f"{name}/weight", data, "s8", Quant(held.name, 0, 0))
        b = self.constant(f"{name}/bias", self.rng.integers(-2000, 2000, outputs), "s32")
        # uniform int8 values deviate by about 75: their products' sum, rescaled, does so again
        eff = self.rng.uniform(0.8, 1.2, outputs) / (75 * np.sqrt(np.prod(shape[1:])))
        eff = self.constant(f"{name}/eff", eff.astype(np.float32))
        acc = self.add("ConvInteger", [x, w], attrs, name=f"{name}/acc", source=f"net.onnx:/{name}")
        return self.add(
            "Requantize", [acc, b, eff], name=name, quant=self.quant(), source=f"net.onnx:/{name}"
        )

    def scored(self, y: Value) -> Graph:
        """The graph whose output is y's real values, one row a sample."""
        real = y if y.dtype == "f32" else self.add("DequantizeLinear", [y])
        batch = self.x.shape[0]
        return self.build([self.add("Reshape", [real], {"shape": (batch, y.size // batch)}, name="out")])


def rounded(x: torch.Tensor) -> torch.Tensor:
    """x rounded half to even; its gradient passes as if it were not."""
    return x + (torch.round(x) - x).detach()


def saturated(v: torch.Tensor, quant: Quant) -> torch.Tensor:
    """Rounded, moved to the zero point, clamped: the gradient passes where the clamp changed nothing."""
    return torch.clamp(rounded(v) + quant.zero_point, -128, 127)


def centred(x: torch.Tensor, value: Value) -> torch.Tensor:
    assert value.quant is not None
    return x - value.quant.zero_point


def conv_in_pytorch(net: Int8Net, p: Leaves, x: torch.Tensor, at: Value, name: str) -> torch.Tensor:
    """Forward of `Int8Net.conv` in fp32, whose sums are exact below 2^24. x (N, H, W, C)."""
    nodes = {n.output.name: n for n in net.nodes}
    attrs, y = nodes[f"{name}/acc"].attrs, nodes[name].output
    top, left, bottom, right = attrs["pads"] or (0,) * 4
    x = F.pad(centred(x, at).movedim(-1, 1), (left, right, top, bottom))
    w = p[f"{name}/weight"].movedim(-1, 1)
    acc = F.conv2d(x, w, None, attrs["strides"] or 1, 0, attrs["dilations"] or 1, attrs["groups"])
    total = (acc.movedim(1, -1) + p[f"{name}/bias"]) * p[f"{name}/eff"]
    return saturated(total, y.quant)


def leaves(graph: Graph) -> dict[str, torch.Tensor]:
    tensors = {k: torch.tensor(t.data.astype(np.float32)) for k, t in graph.constants.items()}
    return {k: t.requires_grad_(k.endswith(("/weight", "/bias"))) for k, t in tensors.items()}


def assert_agrees(
    graph: Graph,
    y: Callable[[Leaves, torch.Tensor], torch.Tensor],
    seed: int = 0,
    channels: Attrs | None = None,
) -> Case:
    """Outputs are equal, gradients within 1e-4 of the largest; y(leaves, x) is the emulation's output."""
    given = case(graph, seed, channels)
    run = interpret(given.derive().functions["step"], given.feeds)
    p = leaves(graph)
    out = y(p, torch.tensor(given.feeds["x"].astype(np.float32)))
    np.testing.assert_allclose(run.outputs[1], out.detach().numpy().reshape(run.outputs[1].shape), rtol=1e-6)
    F.mse_loss(out.flatten(1), torch.tensor(given.feeds["label"], dtype=torch.float32)).backward()
    for parameter in given.derive().parameters:
        name = parameter.name
        d = run.values[f"d_{name}" if f"d_{name}" in run.values else f"d_{name}.trained"]
        expected = p[name].grad.numpy()
        if parameter.channels is not None:
            rows = list(parameter.channels)
            expected = expected[rows] if parameter.layer.depthwise else expected[..., rows]
        assert np.abs(d - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-6), name
    return given
