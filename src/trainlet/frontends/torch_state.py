"""Trained weights back to the module they came from: layouts undone, folded BatchNorms unfolded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.stored import Norm, StoredLayer
from trainlet.ir.graph import Graph, Shape

TINY = 1e-8  # a BatchNorm factor below this is taken for 0: dividing by it would not give the weight back


@dataclass(frozen=True, eq=False)
class TorchOrigin:
    """How a graph's input, output and weights look in the module it came from.

    `imported`: the constants of the layers in `stored` as they were imported; `state`: the module's
    state_dict then, as numpy.
    """

    module: str
    input: str
    input_shape: Shape
    input_perm: tuple[int, ...]
    output_shape: Shape
    output_perm: tuple[int, ...]
    stored: tuple[StoredLayer, ...]
    imported: Mapping[str, np.ndarray]
    state: Mapping[str, np.ndarray]


def to_state_dict(graph: Graph, origin: TorchOrigin) -> dict[str, Any]:
    """A state_dict of PyTorch tensors with which the module computes what `graph` does.

    What was not trained comes back bit for bit. The trained weight w of a layer with a folded BatchNorm
    (factor f = gamma / sqrt(variance + eps) by output channel) comes back as w / f, its bias through the
    BatchNorm's beta (the running mean, if affine=False); gamma, mean and variance stay. A channel whose gamma
    is 0 gets gamma = sqrt(variance + eps) if its weight moved. A replaced head comes back in its new shape.
    Raises ModelError naming a trained constant that is no tensor of the module's.
    """
    import torch

    arrays = {k: np.array(v) for k, v in origin.state.items()}
    written: dict[str, np.ndarray] = {}
    for layer in origin.stored:
        if layer.weight in graph.constants:
            written_now = _given_back(graph, origin, layer)
            for name, data in written_now.items():
                if name in written and not np.array_equal(written[name], data):
                    raise ModelError(f"{name} is read by several layers, and was trained differently in each")
            written.update(written_now)
    return {k: torch.from_numpy(np.array(v, order="C")) for k, v in {**arrays, **written}.items()}


def _given_back(graph: Graph, origin: TorchOrigin, layer: StoredLayer) -> dict[str, np.ndarray]:
    """The module's tensors that a layer's training changed."""
    weight = graph.constants[layer.weight].data
    bias = graph.constants[layer.bias].data if layer.bias is not None else None
    moved_weight = not np.array_equal(weight, origin.imported[layer.weight])
    moved_bias = bias is not None and not np.array_equal(bias, origin.imported[str(layer.bias)])
    if not moved_weight and not moved_bias:
        return {}
    if layer.weight_of is None and moved_weight:
        raise ModelError(
            f"{layer.weight} was trained, but {origin.module} computes it from other tensors: freeze it"
        )
    out: dict[str, np.ndarray] = {}
    if not layer.norms:
        if moved_weight:
            out[str(layer.weight_of)] = original_layout(weight, layer)
            out.update(_new_bias(graph, layer))
        if moved_bias and bias is not None:
            out[_bias_name(origin, layer)] = bias.reshape(_bias_shape(origin, layer, bias))
        return out
    return _unfold(origin, layer, weight, bias, moved_weight)


def _new_bias(graph: Graph, layer: StoredLayer) -> dict[str, np.ndarray]:
    """The bias that a replaced head has and the module's head has not."""
    added = graph.constants.get(f"{layer.weight}.bias")
    if layer.bias is not None or added is None:
        return {}
    return {f"{str(layer.weight_of).removesuffix('.weight')}.bias": added.data}


def _bias_name(origin: TorchOrigin, layer: StoredLayer) -> str:
    if layer.bias_of is None:
        raise ModelError(
            f"{layer.bias} was trained, but {origin.module} computes it from other tensors: freeze it"
        )
    return layer.bias_of


def _bias_shape(origin: TorchOrigin, layer: StoredLayer, bias: np.ndarray) -> Shape:
    old = origin.state[str(layer.bias_of)]
    return old.shape if old.size == bias.size else bias.shape


def original_layout(weight: np.ndarray, layer: StoredLayer) -> np.ndarray:
    """A stored weight as the module has it."""
    if layer.columns is not None:
        plain = np.empty_like(weight)
        plain[:, layer.columns] = weight
        weight = plain
    return np.ascontiguousarray(weight.transpose(np.argsort(layer.perm)))


def _unfold(
    origin: TorchOrigin, layer: StoredLayer, weight: np.ndarray, bias: np.ndarray | None, moved_weight: bool
) -> dict[str, np.ndarray]:
    """y = conv(x, w f) + b' = batch_norm(conv(x, w)): w from w f, beta from b'."""
    assert bias is not None  # folding a BatchNorm always makes one
    state, out = dict(origin.state), {}
    factor, _ = folded(state, layer.norms)
    if moved_weight:
        wanted = original_layout(weight, layer).astype(np.float64)
        dead = np.abs(factor) < TINY
        for norm in layer.norms if dead.any() else ():
            state[norm.gamma] = out[norm.gamma] = _revived(state, norm, dead)
        factor, _ = folded(state, layer.norms)
        scale = factor.reshape(-1, *(1,) * (wanted.ndim - 1))
        out[str(layer.weight_of)] = state[str(layer.weight_of)] = (wanted / scale).astype(np.float32)
    _, offset = folded(state, layer.norms)
    if layer.bias_of is not None:
        offset = offset + factor * state[layer.bias_of].astype(np.float64).reshape(-1)
    missing, last = bias.astype(np.float64) - offset, layer.norms[-1]
    if last.beta in state:
        out[last.beta] = (state[last.beta] + missing).astype(np.float32)
    else:
        own, _ = folded(state, (last,))
        out[last.mean] = (state[last.mean] - missing / own).astype(np.float32)
    return out


def folded(state: Mapping[str, np.ndarray], norms: Sequence[Norm]) -> tuple[np.ndarray, np.ndarray]:
    """(factor, offset) float64 (C) of what the BatchNorms do one after another: y = x factor + offset."""
    factor, offset = np.ones(1), np.zeros(1)
    for norm in norms:
        sigma = np.sqrt(state[norm.variance].astype(np.float64) + norm.eps)
        f = state[norm.gamma] / sigma if norm.gamma in state else 1 / sigma
        beta = state[norm.beta].astype(np.float64) if norm.beta in state else 0.0
        factor, offset = factor * f, offset * f + beta - state[norm.mean] * f
    return factor, offset


def _revived(state: Mapping[str, np.ndarray], norm: Norm, dead: np.ndarray) -> np.ndarray:
    """gamma with sqrt(variance + eps) where it is what makes a channel 0."""
    sigma = np.sqrt(state[norm.variance].astype(np.float64) + norm.eps)
    gamma = state[norm.gamma].astype(np.float64) if norm.gamma in state else np.ones_like(sigma)
    return np.where(dead & (np.abs(gamma / sigma) < TINY), sigma, gamma).astype(np.float32)
