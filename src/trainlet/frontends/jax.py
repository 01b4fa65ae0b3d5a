"""A JAX function of (params, x) -> inference Graph, through its jaxpr: a network in ONNX's vocabulary.

Parameters are named by their path in the pytree: params["conv1"]["w"] is "conv1.w".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.build_graph import build_graph
from trainlet.frontends.jax_primitives import Translation
from trainlet.frontends.network import Network, reachable
from trainlet.frontends.stored import StoredLayer
from trainlet.frontends.torch_state import original_layout
from trainlet.ir.graph import Graph
from trainlet.passes.rebatch import rebatch

SAMPLES = 7  # traced with several samples, so that no layout confuses the batch with what has size 1


@dataclass(frozen=True, eq=False)
class JaxOrigin:
    """The pytree a graph's weights came from: leaves by name, and how one was turned to be stored."""

    leaves: Mapping[str, np.ndarray]
    treedef: Any
    turned: Mapping[str, tuple[int, ...]]
    stored: tuple[StoredLayer, ...]
    imported: Mapping[str, np.ndarray]


def from_function(function: Callable[[Any, Any], Any], params: Any, example: Any) -> tuple[Graph, JaxOrigin]:
    """The float network y = function(params, x) for a batch of 1; of `example` (N, ...) the shape counts.

    Raises ModelError with all primitives at once that cannot be imported, and their lines of Python.
    """
    import jax

    shape = (SAMPLES, *np.shape(example)[1:])
    x = jax.ShapeDtypeStruct(shape, np.float32)
    closed = jax.make_jaxpr(function)(params, x)
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    leaves = {_name(path): np.asarray(leaf) for path, leaf in paths}
    name = getattr(function, "__name__", "function").replace("<lambda>", "function")
    if len(closed.jaxpr.outvars) != 1:
        raise ModelError(f"{name}: has {len(closed.jaxpr.outvars)} outputs; return the logits alone")
    t = Translation(name)
    *known, sample = closed.jaxpr.invars
    for var, (leaf, data) in zip(known, leaves.items(), strict=True):
        t.define_known(var, leaf, data)
    t.define(sample, "x")
    t.run(closed.jaxpr, closed.consts)
    output = t.name(closed.jaxpr.outvars[0])
    layers = reachable(t.finished(), output)
    built = build_graph(Network(name, 20, "x", shape, output, layers, t.initializers), name)
    graph = rebatch(built.graph, 1)
    constants = [n for s in built.stored for n in (s.weight, s.bias) if n is not None]
    imported = {n: graph.constants[n].data for n in constants}
    return graph, JaxOrigin(leaves, treedef, dict(t.turned), built.stored, imported)


def to_params(graph: Graph, origin: JaxOrigin) -> Any:
    """The pytree of parameters with what was trained in `graph`, in the shapes that the function reads."""
    import jax

    leaves = {k: np.array(v) for k, v in origin.leaves.items()}
    for layer in origin.stored:
        for constant, leaf in ((layer.weight, layer.weight_of), (layer.bias, layer.bias_of)):
            if constant is None or np.array_equal(graph.constants[constant].data, origin.imported[constant]):
                continue
            if leaf not in leaves:
                raise ModelError(f"{constant} was trained, but it is computed from other tensors: freeze it")
            data = graph.constants[constant].data
            if constant == layer.weight:
                data = original_layout(data, layer)
                data = data.transpose(np.argsort(origin.turned.get(leaf, tuple(range(data.ndim)))))
            leaves[leaf] = data.reshape(leaves[leaf].shape)
    return jax.tree_util.tree_unflatten(origin.treedef, list(leaves.values()))


def _name(path: tuple[Any, ...]) -> str:
    keys = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in path)
    return ".".join(str(k) for k in keys)
