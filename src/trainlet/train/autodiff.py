"""Graph + selection -> the functions of a training program, derived before anything runs.

predict: samples -> logits, with the trained tensors as state.
step: samples, labels, learning rate -> loss, logits; and every trained tensor after one update.
accumulate / apply: the same in two halves, so that k samples make one update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainlet.errors import SchemeError
from trainlet.ir import Graph, GraphBuilder, Node, Value
from trainlet.ir.graph import Attr
from trainlet.ir.ops.optimizers import OPERANDS
from trainlet.scheme.head import without_softmax
from trainlet.scheme.scheme import Selection
from trainlet.train import adjoints as _adjoints  # noqa: F401  (fills the table)
from trainlet.train.adjoint import Adjoint
from trainlet.train.parameters import Optimizer, Parameter, channels_name, channels_value, install, parameters

LOSSES = {
    "softmax-cross-entropy": "SoftmaxCrossEntropy",
    "sigmoid-cross-entropy": "SigmoidCrossEntropy",
    "mean-squared-error": "MeanSquaredError",
}
# Ops that can say, one bit an element, where their clamp let the value through.
MASKED = ("Clip", "Requantize", "QLinearAdd", "QLinearMul", "QuantizeLinear")


@dataclass(frozen=True)
class TrainingModule:
    """The functions of a training program and the tensors they train. Functions share state by name."""

    functions: Mapping[str, Graph]
    parameters: tuple[Parameter, ...]
    optimizer: Optimizer
    loss: str
    selection: Selection

    def map(self, change: object) -> TrainingModule:
        """The same module with every function replaced by change(graph)."""
        return replace(self, functions={k: change(g) for k, g in self.functions.items()})  # type: ignore[operator]


def derive(
    graph: Graph,
    selection: Selection,
    optimizer: Optimizer | None = None,
    loss: str = "softmax-cross-entropy",
    accumulate: bool = False,
) -> TrainingModule:
    """The training program of an inference graph: forward, backward and update in one graph.

    Reverse mode over the nodes between a trained parameter and the loss, nothing else. With
    `accumulate` the update is split off, so that gradients of several samples are summed first.
    Raises SchemeError (nothing trainable, unknown loss) or UnsupportedGradient naming the layer.
    """
    if loss not in LOSSES:
        raise SchemeError(f"loss {loss!r} is none of {', '.join(LOSSES)}")
    if loss == "softmax-cross-entropy":
        graph = without_softmax(graph)
    optimizer = optimizer or Optimizer()
    trained = parameters(graph, selection, optimizer)
    functions = {"predict": _predict(graph, trained)}
    if accumulate:
        functions["accumulate"] = _step(graph, trained, optimizer, loss, True)
        functions["apply"] = _apply(graph, trained, optimizer)
    else:
        functions["step"] = _step(graph, trained, optimizer, loss, False)
    return TrainingModule(functions, tuple(trained), optimizer, loss, selection)


class _Forward:
    """Replays the inference graph with trained tensors as state, and notes what the backward needs."""

    def __init__(self, graph: Graph, name: str, trained: Sequence[Parameter]) -> None:
        self.graph, self.b = graph, GraphBuilder(f"{graph.name}.{name}")
        self.env: dict[str, Value] = {}
        self.read: dict[str, Parameter] = {}  # value a layer reads -> the parameter behind it
        self.states: dict[str, dict[str, Value]] = {}
        self.saved: dict[str, Value] = {}
        self.wanted: set[str] = set()
        self.by_constant = {p.name: p for p in trained}
        for value in graph.inputs:
            self.env[value.name] = self.b.input(value.name, value.dtype, value.shape, value.quant)
        for name_, t in graph.constants.items():
            self.b.constants[name_] = t
            self.b.fresh(name_)
            self.env[name_] = t.value

    def run(self, masks: bool) -> list[Value]:
        """Replay; `masks`: also emit clamp masks and saved channels where a gradient will pass."""
        for p in self.by_constant.values():
            self._install(p)
        for node in self.graph.nodes:
            self._replay(node, masks)
        return [self.env[v.name] for v in self.graph.outputs]

    def _install(self, p: Parameter) -> None:
        self.states[p.name] = install(self.b, p, ("w", "base", "channels"))
        value, base = self.states[p.name]["w"], self.graph.constants[p.name].value
        if p.integer and p.master == "fp32" and p.name == p.layer.weight.name:
            value = self.b.add("RoundMaster", [value], name=f"{p.name}.rounded")
        if p.channels is not None:
            index = self.states[p.name].get("channels")
            if index is None:
                index = self.b.constant(channels_name(p), np.array(p.channels, np.uint16))
            base = self.states[p.name].get("base", base)
            groups = {"groups": p.layer.node.attrs.get("groups", 1)}
            value = self.b.add("OverlayChannels", [base, value, index], groups, name=f"{p.name}.overlaid")
        self.env[p.name] = value
        if p.statistic:
            return
        self.read[value.name] = p
        self.wanted.add(value.name)

    def _replay(self, node: Node, masks: bool) -> None:
        inputs = [None if v is None else self.env[v.name] for v in node.inputs]
        wanted = any(v is not None and v.name in self.wanted for v in inputs)
        if masks and wanted and node.op == "BatchNormalization":
            self._normalize_batch(node, inputs)
            return
        self._save_channels(node, inputs, masks)
        outputs = 2 if masks and wanted and node.op in MASKED else 1
        names = [node.output.name, f"{node.output.name}.mask"][:outputs]
        new = self.b.add_node(
            node.op,
            inputs,
            node.attrs,
            names=names,
            source=node.source,
            outputs=outputs,
            quant=node.output.quant,
        )
        self.env[node.output.name] = new.output
        if wanted and new.output.dtype in ("f32", "s8", "s32"):
            self.wanted.add(new.output.name)

    def _normalize_batch(self, node: Node, inputs: Sequence[Value | None]) -> None:
        """Batch statistics instead of the running ones, which move towards them."""
        y = node.output.name
        names = [y, *(f"{y}.{what}" for what in ("running_mean", "running_var", "mean", "rstd"))]
        new = self.b.add_node(
            "BatchNormTrain", inputs, node.attrs, names=names, source=node.source, outputs=len(names)
        )
        for state, value in zip(inputs[3:5], new.outputs[1:3], strict=True):
            assert state is not None
            if state.name in self.b.updates:
                raise SchemeError(
                    f"{node.source or y} uses another layer's BatchNormalization: give it its own, or fold "
                    "both (norm=folded)"
                )
            self.b.updates[state.name] = value
        self.env[y] = new.output
        self.wanted.add(new.output.name)

    def _save_channels(self, node: Node, inputs: Sequence[Value | None], masks: bool) -> None:
        w = inputs[1] if len(inputs) > 1 else None
        p = self.read.get(w.name) if w is not None else None
        if not masks or p is None or p.channels is None or w is None or node.input(2) is w:
            return
        x, index = inputs[0], channels_value(self.b, p)
        assert x is not None
        taken = self.b.add(
            "TakeChannels", [x, index], name=f"{x.name}.taken", source=node.source, quant=x.quant
        )
        self.saved[node.output.name] = taken


def _predict(graph: Graph, trained: Sequence[Parameter]) -> Graph:
    forward = _Forward(graph, "predict", trained)
    return forward.b.build(forward.run(False))


def _step(graph: Graph, trained: Sequence[Parameter], opt: Optimizer, loss: str, accumulate: bool) -> Graph:
    forward = _Forward(graph, "accumulate" if accumulate else "step", trained)
    logits, b = forward.run(True)[0], forward.b
    target = _target(b, logits, loss)
    lr = None if accumulate else b.input("lr", "f32", (1,))
    value = b.add(LOSSES[loss], [logits, target], name="loss", source="loss")
    forward.wanted.add(value.name)
    if logits.name not in forward.wanted:
        raise SchemeError(
            f"scheme {trained[0].name}…: no trained parameter reaches the output of {graph.name}"
        )
    g = Adjoint(b, forward.wanted, forward.read, forward.saved)
    g.cotangents[value.name] = value  # the seed is 1 and folded into the loss's gradient op
    g.run(tuple(b.nodes))
    rng = None if accumulate else _rng(b, trained, opt)
    for name, p in {v: forward.read[v] for v in forward.read}.items():
        if name not in g.cotangents:
            raise SchemeError(f"{p.name} does not reach the loss: freeze it")
        states = {**forward.states[p.name], **install(b, p, ("fraction", "m", "v"))}
        if accumulate:
            _accumulate(b, p, g.cotangents[name])
        else:
            update(b, p, opt, g.cotangents[name], states, lr, rng, None)
    return b.build([value, logits])


def _target(b: GraphBuilder, logits: Value, loss: str) -> Value:
    if loss == "softmax-cross-entropy":
        return b.input("label", "s32", logits.shape[:1])
    return b.input("label", "f32", logits.shape)


def _rng(b: GraphBuilder, trained: Sequence[Parameter], opt: Optimizer) -> Value | None:
    """(seed, step), where something reads it: stochastic rounding, or AdamW's bias correction."""
    if opt.rule != "adamw" and not any(p.master in ("stochastic", "residual") for p in trained):
        return None
    rng = b.parameter("rng", np.array([opt.seed, 0], np.uint32))
    b.updates["rng"] = b.add("NextStep", [rng], name="rng.next")
    return rng


def update(
    b: GraphBuilder,
    p: Parameter,
    opt: Optimizer,
    gradient: Value,
    states: Mapping[str, Value],
    lr: Value | None,
    rng: Value | None,
    factor: Value | None,
) -> None:
    """Append the optimizer's step for one parameter and register its states' new values."""
    scale = None if p.row_scale is None else b.constant(f"{p.name}.qas", p.row_scale)
    reads_rng = opt.rule == "adamw" or p.master in ("stochastic", "residual")
    operands = {**states, "lr": lr, "scale": scale, "rng": rng if reads_rng else None, "factor": factor}
    attrs = _update_attrs(p, opt)
    roles = [r for r in ("w", "fraction", "m", "v") if r in states]
    node = b.add_node(
        "Update",
        [gradient, *(operands.get(o) for o in OPERANDS)],
        attrs,
        names=[f"{states[r].name}.next" for r in roles],
        outputs=len(roles),
        source=p.layer.node.source,
    )
    for role, new in zip(roles, node.outputs, strict=True):
        b.updates[states[role].name] = new


def _update_attrs(p: Parameter, opt: Optimizer) -> dict[str, Attr]:
    attrs: dict[str, Attr] = {"rule": opt.rule, "master": p.master, "stream": p.stream}
    for name in ("momentum", "beta1", "beta2", "eps", "weight_decay"):
        attrs[name] = float(getattr(opt, name))
    return attrs


def _accumulate(b: GraphBuilder, p: Parameter, gradient: Value) -> None:
    total = b.parameter(f"{p.name}.grad_sum", np.zeros(p.shape, np.float32))
    attrs = {"rule": "accumulate", "stream": p.stream}
    new = b.add("Update", [gradient, total], attrs, name=f"{total.name}.next", source=p.layer.node.source)
    b.updates[total.name] = new


def _apply(graph: Graph, trained: Sequence[Parameter], opt: Optimizer) -> Graph:
    b = GraphBuilder(f"{graph.name}.apply")
    lr, factor = b.input("lr", "f32", (1,)), b.input("factor", "f32", (1,))
    rng = _rng(b, trained, opt)
    for p in (p for p in trained if not p.statistic):
        total = b.parameter(f"{p.name}.grad_sum", np.zeros(p.shape, np.float32))
        update(b, p, opt, total, install(b, p), lr, rng, factor)
        b.updates[total.name] = b.add("Fill", [total], name=f"{total.name}.cleared")
    return b.build([])
