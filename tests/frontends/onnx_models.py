"""Builds small ONNX models, and compares what trainlet reads from them with onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from trainlet.frontends.onnx import OnnxOrigin, load_onnx_with_origin
from trainlet.frontends.onnx_export import export_onnx
from trainlet.ir import Graph, interpret

TOLERANCE = 1e-5  # of the largest result


class Net:
    """An ONNX model under construction: `net("Conv", x, w, strides=[2, 2])` adds a node."""

    def __init__(self, *shape: int | str, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        names = [f"{op.lower()}{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, name=f"/{names[0]}", **attrs)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def const(self, data: Any, name: str = "") -> str:
        """An initializer; Python integers become int64, floats float32."""
        array = np.asarray(data)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = name or f"c{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def weight(self, *shape: int, name: str = "") -> str:
        """A random initializer, scaled so that results stay near 1."""
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.const(self.rng.normal(size=shape).astype(np.float32) / np.float32(fan_in**0.5), name)

    def conv_bn(self, x: str, w_shape: Sequence[int], relu: str = "", **attrs: Any) -> str:
        """Conv without bias, batch normalization, then an activation or none."""
        y, o = self("Conv", x, self.weight(*w_shape), **attrs), w_shape[0]
        stats = [self.const(self.rng.uniform(0.5, 1.5, o)) for _ in range(4)]
        y = self("BatchNormalization", y, *stats)
        return {"": lambda: y, "relu": lambda: self("Relu", y), "relu6": lambda: self.relu6(y)}[relu]()

    def relu6(self, x: str) -> str:
        return self("Clip", x, self.const(0.0), self.const(6.0))

    def model(self, *outputs: str, functions: Sequence[Any] = ()) -> onnx.ModelProto:
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        for r in results:
            r.type.tensor_type.elem_type = TensorProto.FLOAT
        arrays = [numpy_helper.from_array(a, n) for n, a in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "net", self.inputs, results, arrays)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    onnx.save(model, str(path))
    return path


def runtime(path: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of the only input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_loaded(graph: Graph, origin: OnnxOrigin, x: np.ndarray) -> np.ndarray:
    """The interpreter's result, from and to the user's layout."""
    ours = interpret(graph, {graph.inputs[0].name: x.transpose(origin.input_perm)}).outputs[0]
    return ours.transpose(np.argsort(origin.output_perm))


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    scale = max(float(np.abs(want).max(initial=0)), 1e-3)
    worst = float(np.abs(got.astype(np.float64) - want).max(initial=0)) / scale
    assert worst <= TOLERANCE, f"differs by {worst:.2g} of the largest element"


def check(model: onnx.ModelProto, x_shape: Sequence[int], seed: int = 1) -> Graph:
    """Load, compare with onnxruntime; export, compare again; load the export, compare again."""
    x = np.random.default_rng(seed).normal(size=tuple(x_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return check_file(save(model, Path(folder)), x)


def check_file(path: Path, x: np.ndarray) -> Graph:
    """`check` for a file that exists."""
    graph, origin = load_onnx_with_origin(path, batch=len(x))
    want = runtime(path, x)
    assert_close(run_loaded(graph, origin, x), want)
    exported = path.with_name("exported.onnx")
    export_onnx(graph, exported, origin=origin)
    assert_close(runtime(exported, x), want)
    again, origin = load_onnx_with_origin(exported)
    assert_close(run_loaded(again, origin, x), want)
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]
