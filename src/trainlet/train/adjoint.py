"""The table of adjoints, and the object through which an adjoint speaks to the graph being built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from trainlet.errors import UnsupportedGradient
from trainlet.ir import GraphBuilder, Node, Value
from trainlet.ir.graph import Attrs
from trainlet.train.parameters import Parameter, channels_value


class AdjointRule(Protocol):
    def __call__(self, g: Adjoint, node: Node, dy: Value) -> None: ...


ADJOINTS: dict[str, AdjointRule] = {}


def adjoint(*ops: str) -> Callable[[AdjointRule], AdjointRule]:
    """Register the decorated function as the adjoint of `ops`."""

    def register(rule: AdjointRule) -> AdjointRule:
        ADJOINTS.update(dict.fromkeys(ops, rule))
        return rule

    return register


class Adjoint:
    """Collects cotangents while the graph is walked backwards.

    `wanted`: names of the values that depend on a trained parameter. `parameters`: the value a
    layer reads as its weight or bias -> the parameter behind it.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        wanted: set[str],
        parameters: Mapping[str, Parameter],
        saved: Mapping[str, Value],
    ) -> None:
        self.builder, self.wanted, self.parameters, self.saved = builder, wanted, parameters, saved
        self.cotangents: dict[str, Value] = {}

    def wants(self, value: Value | None) -> bool:
        """Whether anything needs the gradient of `value`."""
        return value is not None and value.name in self.wanted

    def parameter(self, value: Value | None) -> Parameter | None:
        """The trained parameter that a layer reads as `value`, None where it is frozen."""
        return self.parameters.get(value.name) if value is not None else None

    def give(self, value: Value | None, cotangent: Value) -> None:
        """Add `cotangent` to the gradient of `value`: a tensor with two consumers gets both parts."""
        assert value is not None
        name = value.name
        if name in self.cotangents:
            cotangent = self.emit("Add", [self.cotangents[name], cotangent], name=f"d_{name}")
        self.cotangents[name] = cotangent

    def channels(self, p: Parameter) -> Value:
        """The trained channels of a parameter, as the forward pass already holds them."""
        return channels_value(self.builder, p)

    def take(self, node: Node, x: Value) -> Value:
        """The part of x that the weight gradient of `node` needs: saved during the forward pass."""
        return self.saved.get(node.output.name, x)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Attrs | None = None,
        *,
        name: str,
        source: str = "",
    ) -> Value:
        """Append a node to the training graph."""
        return self.builder.add(op, inputs, attrs, name=name, source=source)

    def run(self, nodes: Sequence[Node]) -> None:
        """Walk `nodes` backwards. Raises UnsupportedGradient naming the user's layer."""
        for node in reversed(nodes):
            for out in node.outputs:
                dy = self.cotangents.get(out.name)
                if dy is None or out.name not in self.wanted or out.name in self.parameters:
                    continue
                if node.op not in ADJOINTS:
                    raise UnsupportedGradient(
                        f"{node.op} at {node.source or out.name} has no gradient: freeze what comes before it"
                    )
                ADJOINTS[node.op](self, node, dy)


def constant_scale(g: Adjoint, value: Value) -> float:
    """Scale of a per-tensor quantized value."""
    assert value.quant is not None and not isinstance(value.quant.scale, str), value.name
    return float(value.quant.scale)
