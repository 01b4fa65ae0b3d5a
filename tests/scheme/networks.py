"""A small network with a convolution, a depthwise and a grouped one, and a head."""

from __future__ import annotations

from tests.train.networks import Net
from trainlet.ir import Graph


def small() -> Graph:
    net = Net((1, 4, 4, 8), 3)

    def conv(x, outputs: int, name: str, kernel: int, groups: int = 1, bias: bool = True):
        w = net.normal(f"{name}/weight", (outputs, kernel, kernel, x.shape[-1] // groups))
        b = net.normal(f"{name}/bias", (outputs,)) if bias else None
        attrs = {"pads": (kernel // 2,) * 4, "groups": groups}
        return net.add("Conv", [x, w, b], attrs, name=name, source=f"net.onnx:/{name}")

    y = conv(net.x, 8, "conv", 3)
    y = conv(y, 8, "depthwise", 3, 8)
    y = conv(y, 8, "grouped", 1, 2, bias=False)
    pooled = net.add("AveragePool", [y], {"kernel": ()})
    flat = net.add("Reshape", [pooled], {"shape": (1, 8)})
    return net.build([net.operand("head", 3, flat)])
