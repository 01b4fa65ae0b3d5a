"""The analytic price of a scheme, as published (int8.md, "Published schemes"): no planning, no emission.

It leaves out the forward working set and every gradient tensor; `trainlet.plan` does not.
"""

from __future__ import annotations

from trainlet.ir import Graph
from trainlet.ir.ops.convolution import node_window
from trainlet.scheme.layers import layers
from trainlet.scheme.scheme import Selection


def analytic_bits(graph: Graph, selection: Selection) -> int:
    """Bits for masks, biases, saved inputs and updated weights of one training step.

    Per trained bias 1 an output element + 32 a channel; per trained weight 8 (k H W) of saved input
    + 8 an updated weight; the head's input 8 a feature. The head's own weights are not counted.
    """
    bits = 0
    for layer in layers(graph):
        s = node_window(layer.node)
        if layer.is_head:
            bits += 8 * s.c
            continue
        if layer.bias is not None and layer.bias.name in selection.biases:
            bits += s.positions * s.o // s.n + 32 * s.o
        if layer.weight.name in selection.weights:
            chosen = selection.weights[layer.weight.name]
            k = layer.channels if chosen is None else len(chosen)
            bits += 8 * k * s.h * s.w + 8 * k * layer.channel_weights
    return bits
