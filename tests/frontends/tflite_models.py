"""Small .tflite models, written with the schema of the reference interpreter; and that interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from trainlet.frontends.tflite import load_tflite
from trainlet.ir import Graph, interpret

pytest.importorskip("ai_edge_litert", reason="needs the reference interpreter: pip install ai-edge-litert")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

TYPES = {"int8": "INT8", "uint8": "UINT8", "int32": "INT32", "float32": "FLOAT32", "int16": "INT16"}
VALID, SAME = 1, 0
RELU, RELU6 = 1, 3


class Model:
    """A model of one subgraph; tensors are known by their index."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | np.ndarray = 0.0,
        zero: int = 0,
        data: np.ndarray | None = None,
        axis: int = 0,
    ) -> int:
        """A tensor; with `data` a constant, with an array of scales quantized along `axis`."""
        t = schema.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(shape), getattr(schema.TensorType, TYPES[dtype]), 0
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        if scales.any():
            t.quantization = schema.QuantizationParametersT()
            t.quantization.scale, t.quantization.zeroPoint = scales.tolist(), [zero] * len(scales)
            t.quantization.quantizedDimension = axis
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            t.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(t)
        return len(self.graph.tensors) - 1

    def input(self, shape: Sequence[int], dtype: str = "int8", scale: float = 0.05, zero: int = 3) -> int:
        self.graph.inputs.append(self.tensor("x", shape, dtype, scale, zero))
        return self.graph.inputs[0]

    def add(self, op: str, inputs: Sequence[int], output: int, options: str = "", **fields: object) -> int:
        """An operator with the options table `options` ("Conv2D")."""
        o, code = schema.OperatorT(), schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        o.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        o.inputs, o.outputs = list(inputs), [output]
        if options:
            o.builtinOptions = getattr(schema, f"{options}OptionsT")()
            o.builtinOptionsType = getattr(schema.BuiltinOptions, f"{options}Options")
            for name, value in fields.items():
                assert hasattr(o.builtinOptions, name), name
                setattr(o.builtinOptions, name, value)
        self.graph.operators.append(o)
        return output

    def save(self, folder: Path, output: int, name: str = "model") -> Path:
        import flatbuffers

        self.graph.outputs = [output]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path = folder / f"{name}.tflite"
        path.write_bytes(bytes(builder.Output()))
        return path


def reference(path: Path, samples: np.ndarray) -> np.ndarray:
    """Outputs of TFLite's reference kernels, (M, *output shape)."""
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    x, y = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    results = []
    for sample in samples:
        interpreter.set_tensor(x, sample[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(y)[0].copy())
    return np.array(results)


def as_int8(samples: np.ndarray) -> np.ndarray:
    """uint8 samples as a loaded network takes them."""
    return samples if samples.dtype != np.uint8 else (samples.astype(np.int16) - 128).astype(np.int8)


def ours(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """Integer outputs of a loaded network in the user's type; float ones where its output is float."""
    last = graph.nodes[-1]
    y = last.inputs[0] if last.op == "DequantizeLinear" else last.output
    assert y is not None
    x = graph.inputs[0].name
    results = np.array([interpret(graph, {x: s[None]}).values[y.name][0] for s in as_int8(samples)])
    return results.astype(np.int16) + 128 if samples.dtype == np.uint8 else results


def random_samples(graph: Graph, count: int, dtype: str = "int8", seed: int = 0) -> np.ndarray:
    """Inputs (count, *sample shape) over the whole range of an integer type."""
    low = 0 if dtype == "uint8" else -128
    shape = (count, *graph.inputs[0].shape[1:])
    return np.random.default_rng(seed).integers(low, low + 256, shape).astype(dtype)


def check(path: Path, count: int = 4, dtype: str = "int8", within: int = 0) -> Graph:
    """Loads a model and compares it with the reference interpreter on random inputs."""
    graph = load_tflite(path)
    samples = random_samples(graph, count, dtype)
    difference = np.abs(ours(graph, samples).astype(int) - reference(path, samples).astype(int))
    assert difference.max() <= within, (difference.max(), (difference > within).mean())
    return graph
