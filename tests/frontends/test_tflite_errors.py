"""TFLite files that cannot be read say why, and where."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from tests.frontends.tflite_models import Model
from trainlet import load
from trainlet.errors import ModelError


def small() -> tuple[Model, int]:
    m = Model()
    x = m.input((1, 4, 4, 2))
    w = m.tensor("w", (3, 1, 1, 2), "int8", np.full(3, 0.01), 0, np.ones((3, 1, 1, 2)))
    y = m.tensor("layer/conv", (1, 4, 4, 3), "int8", 0.1, 0)
    m.add("CONV_2D", [x, w], y, "Conv2D", strideH=1, strideW=1)
    return m, y


def test_a_model_is_recognised_by_its_content(tmp_path):
    path = small()[0].save(tmp_path, 2)
    renamed = path.rename(tmp_path / "network.bin")
    assert load(renamed).nodes[0].source == "network.bin:layer/conv"


def test_truncated_files_are_errors_at_every_length(tmp_path):
    m, y = small()
    path = m.save(tmp_path, y)
    content = path.read_bytes()
    for length in range(8, len(content) - 64, 37):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"model\.tflite"):
            load(path)


def test_damaged_files_never_end_in_another_error(tmp_path):
    m, y = small()
    path = m.save(tmp_path, y)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(8, len(content), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):
            load(path)


def test_an_empty_or_foreign_file(tmp_path):
    path = tmp_path / "model.tflite"
    for content in (b"", b"hello world, this is no model"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.tflite is no"):
            load(path)


def test_a_float_model_is_sent_to_onnx(tmp_path):
    m = Model()
    x = m.input((1, 6), "float32", 0.0)
    w = m.tensor("w", (3, 6), "float32", data=np.ones((3, 6)))
    y = m.add("FULLY_CONNECTED", [x, w], m.tensor("dense/out", (1, 3), "float32"), "FullyConnected")
    with pytest.raises(ModelError, match=r"float TFLite model \(model\.tflite:dense/out.*ONNX"):
        load(m.save(tmp_path, y))


def test_int16_activations(tmp_path):
    m = Model()
    x = m.input((1, 6), "int16", 0.01, 0)
    y = m.add("RELU", [x], m.tensor("y", (1, 6), "int16", 0.01, 0))
    with pytest.raises(ModelError, match=r"INT16 tensor x"):
        load(m.save(tmp_path, y))


def test_all_unsupported_layers_at_once(tmp_path):
    m = Model()
    x = m.input((1, 4, 4, 2))
    a = m.add("CUMSUM", [x], m.tensor("a/cumsum", (1, 4, 4, 2), "int8", 0.1))
    b = m.add("RELU", [a], m.tensor("b/relu", (1, 4, 4, 2), "int8", 0.1))
    c = m.add("GATHER", [b], m.tensor("c/gather", (1, 4, 4, 2), "int8", 0.1))
    with pytest.raises(ModelError, match=r"2 layers.*a/cumsum: CUMSUM.*c/gather: GATHER") as caught:
        load(m.save(tmp_path, c))
    assert "b/relu" not in str(caught.value)


def test_several_outputs(tmp_path):
    m, y = small()
    path = m.save(tmp_path, y)
    m.graph.outputs = [y, m.graph.inputs[0]]
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(m.model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ModelError, match="one of the outputs, this model has layer/conv, x"):
        load(path)


def test_activations_spread_over_each_other(tmp_path):
    m = Model()
    x = m.input((1, 4, 4, 2))
    p = m.tensor("pooled", (1, 1, 1, 2), "int8", 0.05, 3)
    m.add("AVERAGE_POOL_2D", [x], p, "Pool2D", filterHeight=4, filterWidth=4, strideH=4, strideW=4)
    y = m.add("ADD", [x, p], m.tensor("sum", (1, 4, 4, 2), "int8", 0.1), "Add")
    with pytest.raises(ModelError, match=r"model\.tflite:sum: ADD spreads pooled"):
        load(m.save(tmp_path, y))


def test_onnx_export_says_what_it_cannot_do(tmp_path):
    from trainlet.frontends.onnx_export import export_onnx

    pytest.importorskip("onnx")
    m, y = small()
    with pytest.raises(ModelError, match="fixed point"):
        export_onnx(load(m.save(tmp_path, y)), tmp_path / "out.onnx")
