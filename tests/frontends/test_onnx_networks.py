"""Networks people bring (MobileNetV2, squeeze-and-excite, ResNet, 1-D …), as plain ONNX and from PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.frontends.onnx_models import Net, assert_close, check, check_file, ops, run_loaded, runtime, save
from trainlet.frontends.onnx import load_onnx, load_onnx_with_origin


def inverted_residual(net: Net, x: str, c_in: int, c_out: int, stride: int, kernel: int = 3) -> str:
    """Expand, depthwise, project; a skip connection where shapes allow."""
    hidden = c_in * 3
    y = net.conv_bn(x, (hidden, c_in, 1, 1), "relu6")
    attrs = {"group": hidden, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
    y = net.conv_bn(y, (hidden, 1, kernel, kernel), "relu6", **attrs)
    y = net.conv_bn(y, (c_out, hidden, 1, 1))
    return net("Add", x, y) if stride == 1 and c_in == c_out else y


def mobilenet(net: Net) -> str:
    y = net.conv_bn("x", (8, 3, 3, 3), "relu6", strides=[2, 2], pads=[1] * 4)
    for c_in, c_out, stride, kernel in [(8, 12, 2, 3), (12, 12, 1, 5), (12, 16, 2, 7), (16, 16, 1, 3)]:
        y = inverted_residual(net, y, c_in, c_out, stride, kernel)
    y = net("Flatten", net("GlobalAveragePool", y))
    return net("Gemm", y, net.weight(10, 16, name="head.weight"), net.weight(10, name="head.bias"), transB=1)


def test_mobilenet_v2() -> None:
    net = Net("batch", 3, 32, 32)
    graph = check(net.model(mobilenet(net)), (2, 3, 32, 32))
    assert set(ops(graph)) == {"Conv", "Clip", "Add", "AveragePool", "Reshape", "Gemm"}
    assert ops(graph).count("Conv") == 13 and ops(graph).count("Add") == 2
    assert graph.inputs[0].shape == (2, 32, 32, 3) and graph.outputs[0].shape == (2, 10)
    assert {"head.weight", "head.bias"} <= set(graph.constants)


def test_an_open_batch_is_one() -> None:
    net = Net("batch", 3, 32, 32)
    assert check(net.model(mobilenet(net)), (1, 3, 32, 32)).inputs[0].shape == (1, 32, 32, 3)


def squeeze_excite(net: Net, x: str, c: int) -> str:
    y = net("GlobalAveragePool", x)
    y = net("Relu", net("Conv", y, net.weight(c // 2, c, 1, 1), net.weight(c // 2)))
    y = net("HardSigmoid", net("Conv", y, net.weight(c, c // 2, 1, 1), net.weight(c)), alpha=1 / 6, beta=0.5)
    return net("Mul", x, y)


def test_squeeze_and_excite() -> None:
    net = Net(2, 3, 16, 16)
    y = net("HardSwish", net.conv_bn("x", (8, 3, 3, 3), pads=[1] * 4))
    y = squeeze_excite(net, y, 8)
    silu = net("Mul", y, net("Sigmoid", y))
    y = net("Flatten", net("AveragePool", silu, kernel_shape=[4, 4], strides=[4, 4]))
    graph = check(net.model(net("Gemm", y, net.weight(128, 5))), (2, 3, 16, 16))
    assert "Transpose" not in ops(graph)
    assert ops(graph)[-5:-3] == ["Sigmoid", "Mul"]
    gate = next(n for n in graph.nodes if n.op == "Mul")
    assert sorted(v.shape for v in gate.operands()) == [(2, 1, 1, 8), (2, 16, 16, 8)]


def test_squeeze_and_excite_with_linear_layers() -> None:
    net = Net(2, 4, 6, 6)
    x = net("Conv", "x", net.weight(8, 4, 3, 3))
    y = net("ReduceMean", x, axes=[2, 3], keepdims=0)
    y = net("Sigmoid", net("Gemm", y, net.weight(8, 8)))
    y = net("Reshape", y, net.const([0, -1, 1, 1]))
    graph = check(net.model(net("Mul", x, y)), (2, 4, 6, 6))
    assert "Transpose" not in ops(graph)


def test_resnet() -> None:
    net = Net(1, 3, 32, 32)
    y = net.conv_bn("x", (8, 3, 7, 7), "relu", strides=[2, 2], pads=[3] * 4)
    y = net("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for c_in, c_out, stride in [(8, 8, 1), (8, 16, 2)]:
        z = net.conv_bn(y, (c_out, c_in, 3, 3), "relu", pads=[1] * 4, strides=[stride] * 2)
        z = net.conv_bn(z, (c_out, c_out, 3, 3), pads=[1] * 4)
        skip = y if stride == 1 else net.conv_bn(y, (c_out, c_in, 1, 1), strides=[stride] * 2)
        y = net("Relu", net("Add", z, skip))
    y = net("Flatten", net("GlobalAveragePool", y))
    graph = check(net.model(net("Gemm", y, net.weight(10, 16), transB=1)), (1, 3, 32, 32))
    assert set(ops(graph)) == {"Conv", "Clip", "MaxPool", "Add", "AveragePool", "Reshape", "Gemm"}


def test_shufflenet_channel_shuffle() -> None:
    net = Net(1, 8, 6, 6)
    y = net("Relu", net("Conv", "x", net.weight(8, 4, 1, 1), group=2))
    y = net("Reshape", y, net.const([1, 2, 4, 6, 6]))
    y = net("Reshape", net("Transpose", y, perm=[0, 2, 1, 3, 4]), net.const([1, 8, 6, 6]))
    y = net("Conv", y, net.weight(8, 1, 3, 3), group=8, pads=[1] * 4)
    graph = check(net.model(y), (1, 8, 6, 6))
    assert ops(graph).count("Transpose") == 1  # the shuffle itself


def test_one_dimensional_network() -> None:
    net = Net(2, 6, 64)
    y = net.conv_bn("x", (12, 6, 5), "relu", pads=[2, 2], strides=[2])
    z = net.conv_bn(y, (12, 1, 3), "relu", group=12, pads=[2, 2], dilations=[2])
    y = net("Add", y, net.conv_bn(z, (12, 12, 1)))
    y = net("MaxPool", y, kernel_shape=[2], strides=[2])
    y = net("Squeeze", net("GlobalAveragePool", y), net.const([2]))
    graph = check(net.model(net("Gemm", y, net.weight(7, 12), transB=1)), (2, 6, 64))
    assert graph.inputs[0].shape == (2, 64, 6)
    assert "Transpose" not in ops(graph)


def test_channels_last_model_needs_no_transpose() -> None:
    """What TensorFlow exports: an NHWC input, transposed before the first convolution."""
    net = Net(1, 8, 8, 3)
    y = net("Transpose", "x", perm=[0, 3, 1, 2])
    y = net("Relu", net("Conv", y, net.weight(4, 3, 3, 3)))
    y = net("Transpose", y, perm=[0, 2, 3, 1])
    graph = check(net.model(net("Softmax", y, axis=-1)), (1, 8, 8, 3))
    assert ops(graph) == ["Conv", "Clip", "Softmax"] and graph.inputs[0].shape == (1, 8, 8, 3)


def test_shape_arithmetic_of_exporters_is_folded() -> None:
    """What PyTorch emits for x.view(x.size(0), -1)."""
    net = Net("n", 4, 3, 3)
    y = net("Conv", "x", net.weight(5, 4, 2, 2))
    n = net("Unsqueeze", net("Gather", net("Shape", y), net.const(0), axis=0), net.const([0]))
    y = net("Reshape", y, net("Concat", n, net.const([-1]), axis=0))
    graph = check(net.model(net("Gemm", y, net.weight(20, 3))), (1, 4, 3, 3))
    assert ops(graph) == ["Conv", "Reshape", "Gemm"]


def test_constant_nodes_and_computed_weights_are_folded() -> None:
    net = Net(2, 3)
    w = net("Transpose", net.weight(4, 3, name="dense.weight"), perm=[1, 0])
    c = net("Constant", value_float=2.5)
    y = net("Div", net("MatMul", "x", w), c)
    graph = check(net.model(net("Mul", y, net("Sqrt", net.const([4.0])))), (2, 3))
    assert ops(graph) == ["Gemm", "Scale", "Scale"] and list(graph.constants) == ["dense.weight"]


def test_a_shared_weight_is_stored_once() -> None:
    net = Net(2, 4)
    w = net.weight(4, 4, name="tied")
    y = net("Gemm", net("Tanh", net("Gemm", "x", w, transB=1)), w, transB=1)
    assert list(check(net.model(y), (2, 4)).constants) == ["tied"]


def test_layers_the_output_does_not_need_are_ignored() -> None:
    net = Net(1, 2, 8, 8)
    y = net("Relu", "x")
    net("Resize", y, "", net.const([1.0, 1.0, 2.0, 2.0]))
    assert ops(check(net.model(y), (1, 2, 8, 8))) == ["Clip"]


def test_one_of_several_outputs_can_be_chosen(tmp_path: Path) -> None:
    net = Net(2, 3)
    a = net("Gemm", "x", net.weight(3, 4))
    b = net("Relu", a)
    path = save(net.model(a, b), tmp_path)
    x = np.ones((2, 3), np.float32)
    graph, origin = load_onnx_with_origin(path, output=b)
    assert_close(run_loaded(graph, origin, x), np.maximum(runtime(path, x), 0))


def test_sources_name_the_users_layers(tmp_path: Path) -> None:
    net = Net(1, 3, 4, 4)
    net("Conv", "x", net.weight(2, 3, 1, 1))
    net.nodes[0].name = "/features/3/conv"
    y = net("Relu", "conv0")
    net.nodes[1].name = ""
    graph = load_onnx(save(net.model(y), tmp_path, "my model.onnx"))
    assert [n.source for n in graph.nodes] == ["my model.onnx:/features/3/conv", "my model.onnx:Relu_1"]
    assert graph.name == "my_model"


@pytest.mark.parametrize("opset", [11, 13, 17, 21, onnx.defs.onnx_opset_version() - 4])
def test_opsets(opset: int) -> None:
    net = Net(1, 3, 8, 8, opset=opset)
    y = net.conv_bn("x", (4, 3, 3, 3), "relu6")
    y = net("Flatten", net("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]))
    axes = {"axes": [1]} if opset < 13 else {}
    y = net("Softmax", net("Gemm", y, net.weight(36, 5)))
    y = net("Unsqueeze", y, *([] if axes else [net.const([1])]), **axes)
    check(net.model(y), (1, 3, 8, 8))


def export_torch(module: object, shape: tuple[int, ...], path: Path, **options: object) -> Path:
    """The module in evaluation mode, through PyTorch's exporter that needs no further package."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(module.eval(), (torch.zeros(shape),), str(path), dynamo=False, **options)  # type: ignore[attr-defined]
        except (ImportError, TypeError) as error:  # later versions may drop it
            pytest.skip(f"this PyTorch does not export without more packages: {error}")
    return path


def torch_networks() -> dict[str, tuple[object, tuple[int, ...]]]:
    from torch import nn

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class SqueezeExcite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8)
            self.down, self.up, self.head = nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8 * 8 * 8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.silu(self.bn(self.conv(x)))
            gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
            x = x * gate[:, :, None, None]
            return self.head(x.view(x.size(0), -1))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5, dim=-1)
            return (weights @ self.v(x)).mean(1)

    conv1d = nn.Sequential(
        nn.Conv1d(6, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, dilation=2, groups=4), nn.Hardswish(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    plain = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, (1, 7), padding=(0, 3)), nn.Hardsigmoid(), nn.AvgPool2d(2, padding=1), nn.Dropout(),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip
    plain(torch.zeros(1, 3, 16, 16))
    return {
        "squeeze excite": (SqueezeExcite(), (2, 3, 16, 16)),
        "attention": (Attention(), (2, 5, 8)),
        "1-D": (conv1d, (3, 6, 20)),
        "plain": (plain, (2, 3, 16, 16)),
    }


@pytest.mark.parametrize("name", ["squeeze excite", "attention", "1-D", "plain"])
@pytest.mark.parametrize("options", [{}, {"do_constant_folding": False, "opset_version": 13}])
def test_torch_export(name: str, options: dict[str, object], tmp_path: Path) -> None:
    module, shape = torch_networks()[name]
    path = export_torch(module, shape, tmp_path / "torch.onnx", **options)
    check_file(path, np.random.default_rng(0).normal(size=shape).astype(np.float32))


def test_torch_export_with_an_open_batch(tmp_path: Path) -> None:
    module, shape = torch_networks()["squeeze excite"]
    options = {"input_names": ["image"], "dynamic_axes": {"image": {0: "n"}}}
    path = export_torch(module, shape, tmp_path / "torch.onnx", **options)
    graph = check_file(path, np.random.default_rng(0).normal(size=(3, *shape[1:])).astype(np.float32))
    assert graph.inputs[0].name == "image" and graph.inputs[0].shape == (3, 16, 16, 3)
    assert {"head.weight", "head.bias", "up.weight"} <= set(graph.constants)
