"""A trained state back into the network it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from trainlet.ir import Graph, Tensor
from trainlet.train.parameters import Parameter


def adapted(graph: Graph, parameters: tuple[Parameter, ...], state: Mapping[str, np.ndarray]) -> Graph:
    """`graph` with its constants replaced by what was trained.

    Integer tensors become integers again: float masters are rounded half to even and saturate at
    the type's range; an int8 fraction is dropped (the integer is its nearest value already).
    """
    constants = dict(graph.constants)
    for p in parameters:
        old = constants[p.name]
        values = _as_stored(state[p.tensors["w"].value.name], old)
        channels = p.channels
        if channels is None:
            data = values
        else:
            data = old.data.copy()
            if p.redrawn:
                data = np.array(state[p.tensors["base"].value.name], data.dtype).reshape(data.shape)
                channels = tuple(map(int, state[p.tensors["channels"].value.name]))
            if p.layer.depthwise:
                data[list(channels)] = values
            else:
                data[..., list(channels)] = values
        constants[p.name] = Tensor(old.value, data)
    return replace(graph, constants=constants)


def _as_stored(values: np.ndarray, old: Tensor) -> np.ndarray:
    if old.data.dtype.kind == "f" or values.dtype.kind != "f":
        return values.astype(old.data.dtype)
    limits = np.iinfo(old.data.dtype)
    low, high = (-128, 127) if old.value.dtype == "s8" else (limits.min, limits.max)
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(old.data.dtype)
