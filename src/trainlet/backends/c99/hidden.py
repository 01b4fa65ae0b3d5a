"""The call that takes a gradient through a hidden layer by groups of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from trainlet.backends.c99.convolution import grad_x, input_grad_weights
from trainlet.backends.c99.update import update_struct
from trainlet.backends.c99.writer import KERNELS, Writer, kernel, number
from trainlet.ir import Node
from trainlet.ir.ops.gradients import inplace_scratch_bytes, input_grad_window, weight_grad_window
from trainlet.ir.ops.hidden import ADDEND, Chain, parts


def _scratch(n: Node, lanes: int) -> int:
    chain = Chain(parts(n.inputs, n.attrs))
    most = max(KERNELS[p.op].scratch(p, lanes) for p in chain.nodes)
    if not chain.overwrites or chain.depthwise is None:
        return most
    return max(most, inplace_scratch_bytes(input_grad_window(chain.depthwise), lanes))


def _braces(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f".{k} = {v}" for k, v in fields.items()) + "}"


class _Fields:
    """Collects the declarations that the fields of a tl_hidden_chain point to."""

    def __init__(self, c: Writer) -> None:
        self.c, self.lines = c, []  # type: ignore[var-annotated]

    def convolution(self, name: str, grad: Node | None, update: Node | None) -> str:
        """Initializer of a tl_conv_grads."""
        fields: dict[str, str] = {}
        if grad is not None:
            fields["shape"] = self.c.shape(input_grad_window(grad))
            self.lines.append(input_grad_weights(self.c, grad, f"{name}_w"))
            fields["weights"] = f"&{name}_w"
        if update is not None:
            x = update.inputs[0]
            assert x is not None
            fields.setdefault("shape", self.c.shape(weight_grad_window(update)))
            self.lines += [grad_x(self.c, x, f"{name}_x"), update_struct(self.c, update, f"{name}_u")]
            fields |= {"x": f"&{name}_x", "update": f"&{name}_u"}
        return _braces(fields)

    def clamp(self, name: str, clamp: Node | None, bias: Node | None) -> str:
        """Initializer of a tl_clamp_grad."""
        fields: dict[str, str] = {}
        if clamp is not None and clamp.op == "RequantizeGrad":
            fields = {"mask": self.c.ptr(clamp.inputs[2]), "scale": self.c.ptr(clamp.inputs[1])}
        elif clamp is not None:
            factor = number(float(clamp.attrs["factor"]))  # type: ignore[arg-type]
            fields = {"mask": self.c.ptr(clamp.inputs[1]), "factor": factor}
        if bias is not None:
            self.lines.append(update_struct(self.c, bias, f"{name}_b"))
            fields["bias"] = f"&{name}_b"
        return _braces(fields)


@kernel("HiddenGrad", scratch=_scratch)
def hidden_grad(c: Writer, n: Node) -> Iterator[str]:
    chain, to = Chain(parts(n.inputs, n.attrs)), _Fields(c)
    fields = {
        "group": str(n.attrs["group"]),
        "reader": to.convolution("reader", chain.reader, None),
        "inner": to.clamp("inner", chain.clamp(False), chain.bias_update(False)),
    }
    if chain.depthwise is not None or chain.depthwise_update is not None:
        fields["depthwise"] = to.convolution("depthwise", chain.depthwise, chain.depthwise_update)
    if chain.depthwise is not None:
        fields["outer"] = to.clamp("outer", chain.clamp(True), chain.bias_update(True))
        fields["overwrite"] = str(int(chain.overwrites))
    if chain.maker is not None or chain.maker_update is not None:
        fields["maker"] = to.convolution("maker", chain.maker, chain.maker_update)
    yield from to.lines
    yield f"const tl_hidden_chain chain = {_braces({k: v for k, v in fields.items() if v != '{}'})};"
    yield from _call(c, n, chain)


def _call(c: Writer, n: Node, chain: Chain) -> Iterable[str]:
    dx, addend = (n.output if chain.maker is not None else None), n.inputs[ADDEND]
    if dx is not None and addend is not None and not c.same(addend, dx):
        yield f"memcpy({c.ptr(dx)}, {c.ptr(addend)}, {dx.bytes});"
    operands = ", ".join((c.ptr(n.inputs[0]), c.ptr(dx), str(int(addend is not None)), c.ptr(n.outputs[-1])))
    yield f"tl_hidden_grad(&chain, {operands}, scratch);"
