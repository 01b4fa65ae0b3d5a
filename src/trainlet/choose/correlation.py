"""How well the criterion without training ranks what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainlet.choose.contribution import Contributions


def correlation(c: Contributions) -> dict[str, Any]:
    """Spearman's rank correlation of Fisher information with measured gains; None with fewer than 3 pairs.

    `weights`: of whole weights. `weights_per_byte`: both divided by the weight's bytes. `biases`: of the sum
    of the last k biases' information with the gain of training them.
    """
    largest = max((share for _, share in c.weights), default=1.0)
    rows = [x for x in c.layers if x.conv_index is not None and x.weight in c.fisher]
    rows = [x for x in rows if (x.weight, largest) in c.weights]
    gain = np.array([c.weights[x.weight, largest].gain for x in rows])
    information = np.array([float(c.fisher[x.weight].sum()) for x in rows])
    size = np.array([float(x.bytes) for x in rows])
    body = [x for x in c.layers if x.conv_index is not None]
    per_bias = [c.bias_fisher.get(x.bias or "", 0.0) for x in body]
    ks = sorted(c.biases)
    sums = np.array([sum(per_bias[len(body) - k :]) for k in ks])
    return {
        "kind": "Spearman",
        "weights": spearman(information, gain),
        "weights_per_byte": spearman(information / size, gain / size) if len(rows) else None,
        "biases": spearman(sums, np.array([c.biases[k].gain for k in ks])),
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation of the ranks; ties share their mean rank. None with fewer than 3 pairs, or where all
    tie."""
    if len(a) < 3:
        return None
    x, y = _ranks(a), _ranks(b)
    if x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(v: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(v, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return ((ends - counts + ends - 1) / 2)[inverse]
