"""One share for every weight of a kind: less to be wrong about than a share for each."""

from __future__ import annotations

from trainlet.choose.contribution import Contributions
from trainlet.choose.search import FINE, Searcher
from trainlet.choose.space import Choice


def uniform(finder: Searcher, found: Contributions, budget_bytes: int, cost: str) -> dict[str, Choice]:
    """All weights of one part of the blocks (pw1, dw, pw2, conv) that gain by themselves, at the largest
    share, in steps of 1/16, that the plan has room for; of the parts that of most predicted gain. Empty
    where none fits.
    """
    choices = {}
    for part in dict.fromkeys(x.part for x in found.layers if x.conv_index is not None):
        chosen = {x.weight for x in found.layers if x.part == part and found.gain(x.weight, 1.0) > 0}
        for sixteenth in range(FINE, 0, -1):
            choice = _at(finder, chosen, sixteenth / FINE)
            fits = all(limit.allows(choice) for limit in finder.others)
            if any(choice.counts) and fits and finder.cost(choice, cost) <= budget_bytes:
                choices[f"uniform {part}"] = choice
                break
    best = max(choices, key=lambda name: finder.predicted(choices[name]), default=None)
    return {} if best is None else {best: choices[best]}


def _at(finder: Searcher, chosen: set[str], share: float) -> Choice:
    body = finder.space.body
    counts = (finder.space.count(i, share) if x.weight.name in chosen else 0 for i, x in enumerate(body))
    return Choice(0, tuple(counts))
