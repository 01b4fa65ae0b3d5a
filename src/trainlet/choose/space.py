"""What can be chosen: the last k biases, and of each weight a number of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainlet.errors import SchemeError
from trainlet.ir import Graph
from trainlet.ir.ops.convolution import node_window
from trainlet.scheme import Channels, UpdateScheme
from trainlet.scheme.layers import Layer, layers

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Choice:
    """The head, the last `biases` biases, and `counts[i]` channels of body layer i's weight (0: frozen)."""

    biases: int
    counts: tuple[int, ...]

    def first(self) -> int:
        """Index of the first layer that is trained; the number of layers where only the head is."""
        weights = next((i for i, c in enumerate(self.counts) if c), len(self.counts))
        return min(weights, len(self.counts) - self.biases)


@dataclass(frozen=True)
class Space:
    """The layers of a network that a choice is about: `body` in order, `head` beside it."""

    graph: Graph
    body: tuple[Layer, ...]
    head: tuple[Layer, ...]

    @property
    def nothing(self) -> Choice:
        return Choice(0, (0,) * len(self.body))

    def count(self, layer: int, share: float) -> int:
        """Channels of a share, as a scheme counts them; 0 where the layer cannot be trained in part."""
        x = self.body[layer]
        count = int(x.channels * share)
        return count if share == 1.0 or not _grouped(x) else 0

    def options(self, layer: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
        """Counts of the shares, ascending, each once."""
        return tuple(sorted({c for s in shares if (c := self.count(layer, s))}))

    def scheme(
        self,
        choice: Choice,
        name: str,
        indices: Mapping[str, Sequence[int]] | None = None,
        redraw: bool = False,
    ) -> UpdateScheme:
        """The scheme of a choice. indices: by weight, its channels in the order in which they are taken.
        redraw: of dense weights that are trained in part, other channels every epoch.
        """
        n = len(self.body)
        weights = {}
        for layer, count in zip(self.body, choice.counts, strict=True):
            if count == layer.channels:
                weights[layer.weight.name] = Channels(share=1.0)
            elif count and redraw and not layer.depthwise:
                weights[layer.weight.name] = Channels(count=count, redraw=True)
            elif count and indices and layer.weight.name in indices:
                chosen = tuple(sorted(indices[layer.weight.name][:count]))
                weights[layer.weight.name] = Channels(indices=chosen)
            elif count:
                weights[layer.weight.name] = Channels(count=count)
        weights |= {x.weight.name: Channels(share=1.0) for x in self.head}
        trained = [*self.body[n - choice.biases :], *self.head]
        return UpdateScheme(name, weights, tuple(x.bias.name for x in trained if x.bias is not None))

    def choice(self, scheme: UpdateScheme) -> Choice:
        """The choice that has this scheme's counts; its biases: those of the last layers, as far as they
        reach.
        """
        from trainlet.scheme import select

        selection = select(scheme, self.graph)
        counts = []
        for x in self.body:
            chosen = selection.weights.get(x.weight.name, ())
            counts.append(x.channels if chosen is None else len(chosen))
        with_bias = [
            i for i, x in enumerate(self.body) if x.bias is not None and x.bias.name in selection.biases
        ]
        return Choice(len(self.body) - min(with_bias, default=len(self.body)), tuple(counts))

    def analytic_bits(self, choice: Choice) -> int:
        """The published price of a choice (scheme/memory.py), to the bit."""
        bits = sum(self.head_bits)
        n = len(self.body)
        for i, (layer, count) in enumerate(zip(self.body, choice.counts, strict=True)):
            bits += self.weight_bits(i, count) if count else 0
            bits += self.bias_bits(i) if i >= n - choice.biases and layer.bias is not None else 0
        return bits

    @property
    def head_bits(self) -> list[int]:
        return [8 * node_window(x.node).c for x in self.head]

    def bias_bits(self, layer: int) -> int:
        s = node_window(self.body[layer].node)
        return s.positions * s.o // s.n + 32 * s.o

    def weight_bits(self, layer: int, count: int) -> int:
        s, x = node_window(self.body[layer].node), self.body[layer]
        return 8 * count * s.h * s.w + 8 * count * x.channel_weights


def _grouped(layer: Layer) -> bool:
    return int(layer.node.attrs.get("groups", 1)) > 1 and not layer.depthwise  # type: ignore[arg-type]


def space(graph: Graph) -> Space:
    """The choice space of a network. Raises SchemeError where it has no head to train."""
    found = layers(graph)
    head = tuple(x for x in found if x.is_head)
    if not head:
        raise SchemeError(
            f"{graph.name} ends in no trainable layer: there is no head to train beside the rest"
        )
    return Space(graph, tuple(x for x in found if not x.is_head), head)
