"""Inference Graph -> ONNX file, for other runtimes and to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends import onnx_export_float, onnx_export_int8, onnx_export_norm  # noqa: F401  (exporters)
from trainlet.frontends.layout import channels_last
from trainlet.frontends.onnx import OnnxOrigin
from trainlet.frontends.onnx_writer import EXPORTERS, Writer, channels_first
from trainlet.ir.graph import DTYPES, Graph, Value

OPSET = 17
IR_VERSION = 8
_WINDOWS = {"AveragePool", "MaxPool"}
_INDIFFERENT = {
    "Add", "Sub", "Mul", "Scale", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid",
    "Pad", "Slice", "Concat",
    "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearLookup",
}  # fmt: skip


def export_onnx(
    graph: Graph,
    path: str | Path,
    state: Mapping[str, np.ndarray] | None = None,
    *,
    origin: OnnxOrigin | None = None,
) -> None:
    """Write an inference graph, float or int8, as an ONNX file (opset 17) that onnxruntime runs.

    Float results agree to about 1e-6, int8 ones exactly. Constants and states keep their names; `state`
    gives trained values for any of them. The input of a convolutional network is channels first, as is an
    output that still has spatial dimensions; with `origin`, both are as in the model it came from.
    Raises ModelError where a node has no ONNX form, naming all such nodes, or onnx is missing.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError("writing .onnx files needs the onnx package: pip install 'trainlet[onnx]'") from None
    _check_ops(graph)
    _check_masks(graph)
    _check_arithmetic(graph)
    writer = Writer(graph, state or {})
    inputs = [_input(writer, v, origin) for v in graph.inputs]
    for node in graph.nodes:
        if not writer.evaluate(node):
            writer.forget(node)
            EXPORTERS[node.op](writer, node)
    outputs = [_output(writer, v, origin) for v in graph.outputs]
    model = _model(writer, inputs, outputs)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _check_ops(graph: Graph) -> None:
    missing = [n for n in graph.nodes if n.op not in EXPORTERS and n.op != "OverlayChannels"]
    if missing:
        names = ", ".join(f"{n.op} at {n.source or n.output.name}" for n in missing)
        raise ModelError(f"{graph.name}: no ONNX form for {names}; export the inference graph")


def _check_arithmetic(graph: Graph) -> None:
    """Networks from TFLite compute in fixed point, for which ONNX has no operators."""
    for node in graph.nodes:
        scale = {"Requantize": 2, "QLinearConv": 3}.get(node.op)
        operand = node.input(scale) if scale is not None else None
        rounded = node.op == "AveragePool" and node.attrs["rounding"] != "even"
        asymmetric = node.attrs.get("fixed") or node.attrs.get("w_zero")
        if asymmetric or rounded or (operand is not None and operand.dtype == "s32"):
            raise ModelError(
                f"{graph.name}: {node.op} at {node.source or node.output.name} computes in TFLite's fixed "
                "point, which has no ONNX form; export its parameters (--to safetensors)"
            )


def _check_masks(graph: Graph) -> None:
    """Clamp masks exist for gradients only."""
    read = {v.name for n in graph.nodes for v in n.operands()} | {v.name for v in graph.outputs}
    for node in graph.nodes:
        if any(v.name in read for v in node.outputs[1:]):
            mask = f"the clamp mask of {node.output.name}"
            raise ModelError(f"{graph.name}: {mask} is read; export the inference graph")


def _input(writer: Writer, value: Value, origin: OnnxOrigin | None) -> Any:
    rank = len(value.shape)
    if origin is not None and len(writer.graph.inputs) == 1:
        first, name = origin.input_perm == channels_last(rank) and rank > 2, origin.input
    else:
        first, name = _feeds_window(writer.graph, value), value.name
    writer.define(value, name, first)
    return _info(value, name, first)


def _feeds_window(graph: Graph, value: Value) -> bool:
    """Whether the value reaches a convolution or pool before anything that depends on its layout."""
    front = {value.name}
    for node in graph.nodes if len(value.shape) in (3, 4) else ():
        if front & {v.name for v in node.operands()}:
            kernel = node.input(1)
            if node.op in _WINDOWS:
                return True
            if node.op in ("Conv", "ConvInteger", "QLinearConv"):
                return kernel is not None and len(kernel.shape) > 2
            if node.op in _INDIFFERENT:
                front |= {v.name for v in node.outputs}
    return False


def _output(writer: Writer, value: Value, origin: OnnxOrigin | None) -> Any:
    rank, name = len(value.shape), value.name
    first = writer.is_first(value)
    if origin is not None and len(writer.graph.outputs) == 1:
        first, name = origin.output_perm == channels_last(rank) and rank > 2, origin.output
    made = writer.first(value) if first else writer.plain(value)
    if any(made in node.output for node in writer.nodes):
        writer.rename(made, name)
    else:
        name = writer.add("Identity", [made], f"{name}/output")
    return _info(value, name, first)


def _info(value: Value, name: str, first: bool) -> Any:
    from onnx import helper

    shape = [value.shape[p] for p in channels_first(len(value.shape))] if first else value.shape
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[value.dtype][0]))
    return helper.make_tensor_value_info(name, kind, shape)


def _model(writer: Writer, inputs: list[Any], outputs: list[Any]) -> Any:
    from onnx import helper, numpy_helper

    read = {name for node in writer.nodes for name in node.input}
    arrays = [numpy_helper.from_array(a, n) for n, a in writer.initializers.items() if n in read]
    graph = helper.make_graph(writer.nodes, writer.graph.name, inputs, outputs, arrays)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="trainlet")
