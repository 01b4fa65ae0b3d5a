"""Runs a graph in numpy: slow, exact in integers, the meaning of every op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.errors import GraphError
from trainlet.ir.graph import DTYPES, Graph, Value
from trainlet.ir.ops import OPS, Call


@dataclass(frozen=True)
class Execution:
    """Results of one execution: `outputs` in the graph's order, `state` after it, every `value` by name."""

    outputs: tuple[np.ndarray, ...]
    state: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]


def interpret(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray] | None = None,
    real: type[np.floating[Any]] = np.float32,
) -> Execution:
    """Execute once. `state` overrides the graph's initial one; `real` is the type floats are computed in.

    Raises GraphError where an input is missing or has another shape.
    """
    env: dict[str, np.ndarray] = {}
    for tensor in graph.constants.values():
        env[tensor.value.name] = _cast(tensor.data, tensor.value, real)
    for name, tensor in graph.state.items():
        env[name] = _cast((state or {}).get(name, tensor.data), tensor.value, real)
    for value in graph.inputs:
        if value.name not in inputs:
            raise GraphError(f"{graph.name}: input {value.name} is missing")
        array = np.asarray(inputs[value.name])
        if array.shape != value.shape:
            raise GraphError(f"{graph.name}: input {value.name} is {array.shape}, wants {value.shape}")
        env[value.name] = _cast(array, value, real)
    for node in graph.nodes:
        args = tuple(None if v is None else env[v.name] for v in node.inputs)
        results = OPS[node.op].run(Call(node, args, real, graph.scales))
        results = results if isinstance(results, tuple) else (results,)
        for value, array in zip(node.outputs, results, strict=False):
            env[value.name] = _cast(array, value, real)
    after = {name: env[graph.updates[name].name if name in graph.updates else name] for name in graph.state}
    return Execution(tuple(env[v.name] for v in graph.outputs), after, env)


def _cast(array: np.ndarray, value: Value, real: type[np.floating[Any]]) -> np.ndarray:
    dtype = real if value.dtype == "f32" else DTYPES[value.dtype][0]
    return np.asarray(array, dtype=dtype)
