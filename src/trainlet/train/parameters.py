"""What a trained tensor keeps in RAM: its value, the rest of a step too small to store, optimizer slots."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trainlet.errors import SchemeError
from trainlet.ir import Graph, GraphBuilder, Tensor, Value
from trainlet.scheme.layers import Layer, alive, layers, norms, statistics
from trainlet.scheme.scheme import Selection
from trainlet.train.redraw import drawn

SLOTS = {"sgd": (), "momentum": ("m",), "adamw": ("m", "v")}
INTEGER_MASTERS = ("residual", "stochastic", "nearest")


@dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes a step. `master` says how integer tensors are stored (int8.md)."""

    rule: str = "sgd"
    master: str = "fp32"
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Parameter:
    """One trained tensor. `name` is the constant it replaces; `tensors` its states by role.

    roles: "w" the trained values (float, or the integers of the network), "fraction" their low
    8 bits, "m" and "v" optimizer slots; where channels are redrawn every epoch, "base" the whole weight and
    "channels" which of it are trained now. `channels`: the trained input channels (of the first epoch, if
    redrawn), None when whole.
    `row_scale`: quantization-aware scaling per row, 0 in a dead channel (None: 1).
    """

    name: str
    layer: Layer
    tensors: dict[str, Tensor]
    channels: tuple[int, ...] | None
    row_scale: np.ndarray | None
    master: str
    stream: int
    factory: np.ndarray  # the whole constant as the network came, before channels are chosen
    redrawn: bool = False
    statistic: bool = False  # a running mean or variance: the forward pass moves it, no gradient does

    @property
    def integer(self) -> bool:
        """Whether the network reads this tensor as integers."""
        return self.row_scale is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensors["w"].value.shape


def parameters(graph: Graph, selection: Selection, optimizer: Optimizer) -> list[Parameter]:
    """The trained tensors of `selection`, in layer order, weight before bias; a shared one once.

    Then the scales and offsets of normalizations, and the running statistics that move with what is trained.
    """
    found: dict[str, Parameter] = {}
    for layer in (*layers(graph), *norms(graph)):
        weight, bias = layer.weight.name, layer.bias
        if weight in selection.weights and weight not in found:
            found[weight] = _weight(graph, layer, selection, optimizer, len(found))
        if bias is not None and bias.name in selection.biases and bias.name not in found:
            found[bias.name] = _bias(graph, layer, optimizer, len(found))
    for layer in statistics(graph, tuple(found)):
        for value in (layer.weight, layer.bias):
            if value is not None and value.name not in found:
                found[value.name] = _statistic(graph, layer, value, len(found))
    return list(found.values())


def _statistic(graph: Graph, layer: Layer, value: Value, stream: int) -> Parameter:
    data = graph.constants[value.name].data
    kept = _parameter(value.name, layer, data, None, None, Optimizer(), stream, data)
    return replace(kept, statistic=True)


def _weight(graph: Graph, layer: Layer, selection: Selection, opt: Optimizer, stream: int) -> Parameter:
    data, scale = graph.constants[layer.weight.name].data, None
    chosen, redrawn = selection.weights[layer.weight.name], layer.weight.name in selection.redrawn
    if redrawn:
        chosen = _first_drawn(layer, chosen, opt, stream)
    if layer.weight.quant is not None:
        scales = np.broadcast_to(graph.scales(layer.weight), (layer.weight.shape[0],)).astype(np.float64)
        scale = _row_scale(scales, alive(graph, layer))
    if chosen is not None:
        data = data[list(chosen)] if layer.depthwise else data[..., list(chosen)]
        scale = scale[list(chosen)] if scale is not None and layer.depthwise else scale
    whole = graph.constants[layer.weight.name]
    found = _parameter(layer.weight.name, layer, data, chosen, scale, opt, stream, whole.data)
    return _redrawn(found, whole) if redrawn else found


def _first_drawn(
    layer: Layer, chosen: tuple[int, ...] | None, opt: Optimizer, stream: int
) -> tuple[int, ...] | None:
    """As many channels as were chosen, those of the first epoch."""
    if chosen is None:
        return None
    if layer.depthwise:
        raise SchemeError(
            f"weight {layer.weight.name}: channels of a depthwise convolution cannot be redrawn, the scale "
            "of their steps is fixed: train it whole, or without redraw"
        )
    return drawn(layer.channels, len(chosen), opt.seed, stream, 0)


def _redrawn(p: Parameter, whole: Tensor) -> Parameter:
    """With the whole weight and the table of its trained channels as state beside what is trained."""
    base = Tensor(replace(whole.value, name=f"{p.name}.base"), whole.data)
    table = np.array(p.channels, np.uint16)
    channels = Tensor(Value(channels_name(p), "u16", table.shape), table)
    return replace(p, tensors={**p.tensors, "base": base, "channels": channels}, redrawn=True)


def _bias(graph: Graph, layer: Layer, opt: Optimizer, stream: int) -> Parameter:
    assert layer.bias is not None
    data, scale = graph.constants[layer.bias.name].data, None
    x = layer.node.inputs[0]
    if layer.weight.quant is not None and x is not None:
        scales = graph.scales(layer.weight).astype(np.float64) * graph.scales(x).astype(np.float64)
        scale = _row_scale(np.broadcast_to(scales, data.shape), alive(graph, layer))
    return _parameter(layer.bias.name, layer, data, None, scale, opt, stream, data)


def _row_scale(scales: np.ndarray, live: np.ndarray) -> np.ndarray:
    """1 / scale^2: plain SGD on the real-valued weights (arXiv:2206.15472, section 3.1); 0 where dead."""
    safe = np.where(live, scales, 1.0)
    return np.where(live, 1 / safe**2, 0).astype(np.float32)


def _parameter(
    name: str,
    layer: Layer,
    data: np.ndarray,
    channels: tuple[int, ...] | None,
    row_scale: np.ndarray | None,
    opt: Optimizer,
    stream: int,
    factory: np.ndarray,
) -> Parameter:
    integer = row_scale is not None
    master = opt.master if integer else "fp32"
    if opt.rule == "adamw" and master != "fp32":
        raise SchemeError("AdamW keeps float masters: choose --master fp32")
    stored = data.astype(np.float32) if master == "fp32" else data
    dtype = {"f": "f32", "i": "s8" if stored.dtype.itemsize == 1 else "s32"}[stored.dtype.kind]
    arrays = {"w": (stored, dtype)}
    if master == "residual":
        arrays["fraction"] = (np.zeros(data.shape, np.int8), "s8")
    for slot in SLOTS[opt.rule]:
        arrays[slot] = (np.zeros(data.shape, np.float32), "f32")
    suffix = {"w": "trained", "fraction": "fraction", "m": "m", "v": "v"}
    tensors = {
        role: Tensor(Value(f"{name}.{suffix[role]}", kind, array.shape), np.ascontiguousarray(array))
        for role, (array, kind) in arrays.items()
    }
    return Parameter(name, layer, tensors, channels, row_scale, master, stream, factory)


def install(b: GraphBuilder, p: Parameter, roles: tuple[str, ...] | None = None) -> dict[str, Value]:
    """Declare a parameter's states in a graph being built (all, or some roles)."""
    return {
        role: b.parameter(t.value.name, t.data, t.value.dtype, t.value.quant)
        for role, t in p.tensors.items()
        if roles is None or role in roles
    }


def channels_name(p: Parameter) -> str:
    """Name of the constant, or of the state if redrawn, that lists a parameter's trained channels."""
    return f"{p.name}.channels"


def channels_value(b: GraphBuilder, p: Parameter) -> Value:
    """The table of a parameter's trained channels in a graph being built."""
    return (b.state if p.redrawn else b.constants)[channels_name(p)].value
