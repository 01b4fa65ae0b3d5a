"""What the ONNX frontend says when a model cannot be read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.frontends.onnx_models import Net, save
from trainlet.errors import ModelError
from trainlet.frontends.onnx import load_onnx


def error(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def small() -> onnx.ModelProto:
    net = Net(1, 3, 8, 8)
    y = net("Conv", "x", net.weight(4, 3, 3, 3, name="conv.weight"))
    return net.model(net("Gemm", net("Flatten", y), net.weight(144, 5, name="head.weight")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.onnx: no such file" in error(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no model at all", bytes(range(256)) * 8, b"PK\x03\x04zip"]
)
def test_what_is_not_a_model_is_named(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "model.onnx").write_bytes(content)
    assert error(path).startswith("model.onnx: ")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named(share: float, tmp_path: Path) -> None:
    data = small().SerializeToString()
    (path := tmp_path / "model.onnx").write_bytes(data[: int(len(data) * share)])
    assert error(path).startswith("model.onnx: ")


def test_flipped_bytes_never_escape_as_another_exception(tmp_path: Path) -> None:
    data, rng = small().SerializeToString(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data) // 4, 3):
            damaged[place] = rng.integers(256)
        (path := tmp_path / "model.onnx").write_bytes(damaged)
        with contextlib.suppress(ModelError):
            load_onnx(path)


def test_a_missing_weights_file_is_an_error(tmp_path: Path) -> None:
    onnx.save(
        small(), str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (tmp_path / "w.bin").unlink()
    assert "w.bin" in error(tmp_path / "m.onnx")


def test_all_unsupported_layers_are_listed_at_once(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    y = net("Resize", "x", "", net.const([1.0, 1.0, 2.0, 2.0]))
    y = net("Cosh", net("Relu", y))
    z = net("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    z = net(
        "LSTM",
        net("Reshape", z, net.const([4, 4, 3])),
        net.weight(1, 8, 3),
        net.weight(1, 8, 2),
        hidden_size=2,
    )
    text = error(save(net.model(net("Concat", y, z, axis=1)), tmp_path))
    assert "4 layers" in text
    for part in ("net.onnx:/resize0: Resize", "/cosh2: Cosh", "/maxpool3", "ceil_mode=0", ": LSTM"):
        assert part in text


def test_operators_of_other_domains_are_named(tmp_path: Path) -> None:
    net = Net(1, 3)
    y = net("FusedGemm", "x", net.weight(3, 3), domain="com.microsoft")
    assert "com.microsoft.FusedGemm" in error(save(net.model(y), tmp_path))


@pytest.mark.parametrize(
    "shape,dim", [((1, 3, "height", 8), "2 (height)"), ((1, "c", 8, 8), "1 (c)"), (("n", 3, 0, 8), "2 (?)")]
)
def test_open_dimensions_are_named(shape: tuple[int | str, ...], dim: str, tmp_path: Path) -> None:
    net = Net(*shape)
    text = error(save(net.model(net("Relu", "x")), tmp_path))
    assert f"dimension {dim} of input x" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    net = Net(1, 2)
    w = net.weight(2, 2, name="layer.weight")
    net.arrays[w][0, 1] = bad
    assert "layer.weight" in error(save(net.model(net("MatMul", "x", w)), tmp_path))


def test_a_folded_constant_that_is_not_finite_is_named(tmp_path: Path) -> None:
    net = Net(1, 2)
    text = error(save(net.model(net("Div", "x", net.const([1.0, 0.0], "divisor"))), tmp_path))
    assert "divisor" in text and "/div0" in text


def test_two_inputs_are_named(tmp_path: Path) -> None:
    net = Net(1, 2)
    net.inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 2]))
    assert "x, mask" in error(save(net.model(net("Mul", "x", "mask")), tmp_path))


def test_two_outputs_are_named(tmp_path: Path) -> None:
    net = Net(1, 2)
    a = net("Relu", "x")
    assert f"{a}, tanh1" in error(save(net.model(a, net("Tanh", a)), tmp_path))


def test_an_integer_input_is_named(tmp_path: Path) -> None:
    net = Net(1, 2)
    net.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "input x is uint8" in error(save(net.model(net("Relu", "x")), tmp_path))


def test_an_old_opset_says_how_to_convert(tmp_path: Path) -> None:
    net = Net(1, 2, opset=9)
    assert "version_converter" in error(save(net.model(net("Relu", "x")), tmp_path))


def test_shapes_that_do_not_fit_name_the_layer(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    y = net("Conv", "x", net.weight(4, 5, 3, 3))
    assert "net.onnx:/conv0" in error(save(net.model(y), tmp_path))


def test_a_reshape_that_does_not_fit_names_the_layer(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    assert "net.onnx:/reshape0" in error(save(net.model(net("Reshape", "x", net.const([5, 5]))), tmp_path))


def test_a_computed_weight_is_refused(tmp_path: Path) -> None:
    net = Net(2, 2, 3, 3)
    assert "its weight is computed" in error(save(net.model(net("Conv", "x", "x")), tmp_path))


def test_batch_statistics_are_refused(tmp_path: Path) -> None:
    net = Net(1, 3, 4, 4)
    stats = [net.const(np.ones(3)) for _ in range(4)]
    y, _, _ = net("BatchNormalization", "x", *stats, training_mode=1, outputs=3)
    assert "evaluation mode" in error(save(net.model(y), tmp_path))


def test_an_output_that_ignores_the_input_is_refused(tmp_path: Path) -> None:
    net = Net(1, 3)
    y = net("Relu", net.weight(2, 2))
    assert "does not depend on the input" in error(save(net.model(y), tmp_path))


def test_a_layer_that_reads_nothing_defined_is_named(tmp_path: Path) -> None:
    net = Net(1, 3)
    assert "reads missing" in error(save(net.model(net("Add", "x", "missing")), tmp_path))
