"""An analysis with made-up gains, for a real network and data set."""

from __future__ import annotations

import numpy as np

from trainlet.choose.contribution import Contributions, Estimate, data_id, model_id
from trainlet.choose.structure import layer_infos
from trainlet.data import Dataset
from trainlet.ir import Graph

SHARES = (0.125, 0.25, 0.5, 1.0)


def analysis_of(graph: Graph, data: Dataset, lr: float = 0.025, seed: int = 0) -> Contributions:
    """Gains that grow with the number of biases and with each share; standard error half a point."""
    rng, infos = np.random.default_rng(seed), layer_infos(graph)
    body = [x for x in infos if x.conv_index is not None]

    def estimate(gain: float) -> Estimate:
        return Estimate(gain, gain - 0.008, gain + 0.008, 1, 2)

    biases = {k: estimate(0.08 * (1 - np.exp(-k / 6))) for k in range(1, len(body) + 1)}
    weights = {}
    for x in body:
        worth = float(rng.gamma(1.0, 0.006))
        for share in SHARES:
            if int(x.channels * share):
                weights[x.weight, share] = estimate(worth * np.log1p(8 * share) / np.log(9))
    settings = {
        "lr": lr, "head_lr": 4 * lr, "validation_share": 0.3, "samples": None, "seed": 0, "batch": 8,
        "base_biases": len(body) // 2,
    }  # fmt: skip
    fisher = {x.weight: rng.gamma(1.0, 1.0, x.channels) for x in infos}
    bases = {x.weight: len(body) - x.conv_index for x in body}
    return Contributions(
        graph.name, model_id(graph), data_id(data), settings, estimate(0.7), biases, weights, bases, infos,
        fisher, {},
    )  # fmt: skip
