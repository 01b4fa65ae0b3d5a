"""Reads an ONNX file into plain Python: layers, arrays, one input, one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.network import Layer, Network, reachable
from trainlet.ir.graph import Shape

OLDEST_OPSET = 11


def read_model(path: str | Path, batch: int = 1, output: str | None = None) -> Network:
    """The network in the file at `path`; an unknown batch size becomes `batch`.

    Raises ModelError where the file is missing, damaged or not a network with one float input of fixed
    size, and where a weight is NaN or infinite. `output` chooses among several outputs.
    """
    path = Path(path)
    proto = _parse(path)
    try:
        return _network(proto, path.name, batch, output)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        # Flipped bytes can parse: names that are not text, weights whose size is not that of their shape.
        raise ModelError(f"{path.name}: is damaged or not valid ONNX ({_reason(error)})") from error


def _network(proto: Any, file: str, batch: int, output: str | None) -> Network:
    opset = _opset(proto, file)
    arrays = _initializers(proto.graph, file)
    chosen = _output(proto.graph, file, output)
    layers = reachable([_layer(n, i, file) for i, n in enumerate(proto.graph.node)], chosen)
    inputs = [v for v in proto.graph.input if v.name not in arrays]
    if len(inputs) > 1:  # one that nothing reads does not matter
        read = {name for layer in layers for name in layer.inputs}
        inputs = [v for v in inputs if v.name in read] or inputs
    if len(inputs) != 1:
        names = ", ".join(v.name for v in inputs) or "none"
        raise ModelError(f"{file}: has {len(inputs)} inputs ({names}); trainlet wants exactly one")
    shape = _input_shape(inputs[0], file, batch)
    return Network(file, opset, inputs[0].name, shape, chosen, layers, arrays)


def _reason(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parse(path: Path) -> Any:
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise ModelError("reading .onnx files needs the onnx package: pip install 'trainlet[onnx]'") from None
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        # No onnx.checker: it refuses models that run everywhere, for example without an output shape.
        proto = onnx.load(str(path))
        proto = inliner.inline_local_functions(proto) if proto.functions else proto
    except Exception as error:  # protobuf, external data and the inliner each raise their own kind
        raise ModelError(
            f"{path.name}: is damaged, cut short or not an ONNX model ({_reason(error)})"
        ) from None
    if not proto.graph.node:
        raise ModelError(f"{path.name}: holds no layers; it is empty, cut short or not an ONNX model")
    return proto


def _opset(proto: Any, file: str) -> int:
    opset = next((int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"{file}: uses opset {opset}, trainlet reads {OLDEST_OPSET} and newer; "
            f"convert it with onnx.version_converter.convert_version(model, 17)"
        )
    return opset


def _initializers(graph: Any, file: str) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelError(f"{file}: has sparse weights ({name}); store them dense")
    arrays = {t.name: _real(numpy_helper.to_array(t)) for t in graph.initializer}
    bad = [n for n, a in arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
    if bad:
        raise ModelError(f"{file}: weights with NaN or infinite elements: {', '.join(bad)}; export it again")
    return arrays


def _real(array: np.ndarray) -> np.ndarray:
    """Every floating-point type as float32; anything else unchanged."""
    return array.astype(np.float32) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def _output(graph: Any, file: str, wanted: str | None) -> str:
    names = [v.name for v in graph.output]
    if wanted is None and len(names) != 1:
        raise ModelError(f"{file}: has {len(names)} outputs ({', '.join(names)}); choose one with output=")
    if wanted is not None and wanted not in names:
        raise ModelError(f"{file}: has no output {wanted}; its outputs are {', '.join(names)}")
    return wanted or names[0]


def _layer(proto: Any, index: int, file: str) -> Layer:
    from onnx import helper

    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    attrs = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
    source = f"{file}:{proto.name or f'{proto.op_type}_{index}'}"
    return Layer(domain + proto.op_type, tuple(proto.input), tuple(proto.output), attrs, source, proto)


def _input_shape(value: Any, file: str, batch: int) -> Shape:
    from onnx import TensorProto as T

    tensor = value.type.tensor_type
    if tensor.elem_type not in (T.FLOAT, T.FLOAT16, T.DOUBLE, T.BFLOAT16):
        kind = T.DataType.Name(tensor.elem_type).lower()
        raise ModelError(f"{file}: input {value.name} is {kind}; trainlet reads networks with a float input")
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise ModelError(f"{file}: input {value.name} has no shape; export the model with a fixed input size")
    dims = [int(d.dim_value) for d in tensor.shape.dim]
    names = [d.dim_param or "?" for d in tensor.shape.dim]
    if unknown := [f"{i} ({names[i]})" for i, d in enumerate(dims) if i and d <= 0]:
        raise ModelError(
            f"{file}: dimension {', '.join(unknown)} of input {value.name} is not fixed; "
            "export the model with a fixed input size (only the batch may be open)"
        )
    return (dims[0] if dims[0] > 0 else batch, *dims[1:])
