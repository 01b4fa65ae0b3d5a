"""A criterion without training: Fisher information of each channel, from one pass of the emitted program.

The diagonal of the empirical Fisher matrix is the mean over samples of the squared gradient of the loss at
the true label (Theis et al., arXiv:1801.05787, use its sum over a channel to prune). Gradients are those of
the real-valued weights: an integer weight's is divided by its scale (quantization-aware scaling,
arXiv:2206.15472, section 3.1). The head is trained first: gradients through a random head say little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainlet.api import Settings, build
from trainlet.choose.task import Task
from trainlet.scheme import layers, select
from trainlet.scheme.named import resolve_scheme
from trainlet.train.parameters import Optimizer, Parameter, parameters


def fisher(task: Task, head: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"weights": name -> channels, "biases": name -> sum, "samples"}, from rows to fit, evenly spaced.

    `head`: state of a trained head (Trials.head).
    """
    network = task.network(task.settings.seed)
    host = build(network, Settings("full", "nearest", accumulate=True))
    state = host.tensors()
    host.restore({**state, **{k: v for k, v in head.items() if k in state}})
    count = min(task.settings.fisher_samples, len(task.fit))
    rows = task.fit[np.linspace(0, len(task.fit) - 1, count).astype(np.int64)]
    found = {
        p.name: p for p in parameters(network, select(resolve_scheme("full", network), network), Optimizer())
    }
    totals = {name: np.zeros(p.shape, np.float64) for name, p in found.items()}
    for row in rows:
        x = task.data.x_train.batch(np.array([row]))
        host.accumulate(x, task.data.y_train[[row]].astype(np.int32))
        for name in found:
            gradient = host.tensor(f"{name}.grad_sum")
            totals[name] += gradient.astype(np.float64) ** 2
            gradient[...] = 0
    return {**_by_channel(task, totals, found, count), "samples": count}


def _by_channel(
    task: Task, totals: dict[str, np.ndarray], found: dict[str, Parameter], count: int
) -> dict[str, Any]:
    weights, biases = {}, {}
    for layer in layers(task.network(task.settings.seed)):
        p = found[layer.weight.name]
        squares = _real(totals[p.name] / count, p)
        axes = tuple(range(1, squares.ndim)) if layer.depthwise else tuple(range(squares.ndim - 1))
        weights[p.name] = [float(v) for v in squares.sum(axes)]
        if layer.bias is not None and layer.bias.name in found:
            q = found[layer.bias.name]
            biases[q.name] = float(_real(totals[q.name] / count, q).sum())
    return {"weights": weights, "biases": biases}


def _real(squares: np.ndarray, p: Parameter) -> np.ndarray:
    """Squared gradients of the real-valued tensor: `row_scale` is 1 / scale^2 of each row."""
    if p.row_scale is None:
        return squares
    return squares * p.row_scale.astype(np.float64).reshape(-1, *(1,) * (squares.ndim - 1))
