"""The rule of PockEngine (arXiv:2310.17752): train everything, then freeze piece by piece, least useful
first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainlet.choose.gains import Gains, Objective
from trainlet.choose.limits import Limit, allowed
from trainlet.choose.space import Choice, Space

ROUND = 1e-12


@dataclass(frozen=True)
class Frozen:
    """Where the rule stopped. `steps`: (what was frozen, value after it), the first entry is everything
    trained.
    """

    choice: Choice
    value: float
    steps: tuple[tuple[str, float], ...]


def freeze(
    space: Space, gains: Gains, limits: list[Limit], accuracy: Objective, threshold: float
) -> Frozen | None:
    """Freeze one weight, or the first bias that is still trained, until the next step would fall below
    `threshold`.

    Useful is what gains most. accuracy(choice): measured by a short training, or predicted; it is asked
    once a step. While a choice is beyond the limits freezing goes on whatever the accuracy; None where not
    even the head fits.
    """
    choice = Choice(
        len(space.body), tuple(x.channels if space.options(i) else 0 for i, x in enumerate(space.body))
    )
    value = accuracy(choice)
    steps = [("nothing", value)]
    while (following := _next(space, gains, choice)) is not None:
        name, smaller = following
        after = accuracy(smaller)
        if after < threshold - ROUND and allowed(limits, choice):
            break
        choice, value = smaller, after
        steps.append((name, after))
    return Frozen(choice, value, tuple(steps)) if allowed(limits, choice) else None


def _next(space: Space, gains: Gains, choice: Choice) -> tuple[str, Choice] | None:
    """The piece whose loss costs least, and the choice without it."""
    n = len(space.body)
    pieces: list[tuple[float, int, str, Choice]] = []
    for i, count in enumerate(choice.counts):
        if count:
            counts = tuple(0 if j == i else c for j, c in enumerate(choice.counts))
            pieces.append(
                (gains.weight(i, count), i, space.body[i].weight.name, replace(choice, counts=counts))
            )
    first = n - choice.biases
    if choice.biases:
        lost = float(gains.biases[choice.biases] - gains.biases[choice.biases - 1])
        bias = space.body[first].bias
        name = bias.name if bias is not None else f"layer {first}"
        pieces.append((lost, first, name, replace(choice, biases=choice.biases - 1)))
    if not pieces:
        return None
    _, _, name, smaller = min(pieces, key=lambda p: p[:2])
    return name, smaller
