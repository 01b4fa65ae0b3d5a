"""A task that a small network learns in seconds: a pattern for each class, and noise."""

from __future__ import annotations

import numpy as np

from tests.host.programs import network, samples
from trainlet.choose.task import AnalysisSettings, Task, make_task
from trainlet.data import Dataset, Samples
from trainlet.data.transform import InputTransform
from trainlet.ir import Graph

QUICK = AnalysisSettings(batch=8, rungs=((1, 1), (2, 1)), fisher_samples=16, lr=0.02, head_lr=0.1)


def dataset(graph: Graph, count: int = 120, noise: float = 0.7, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x, y = samples(graph, count), (np.arange(count) % 5).astype(np.int32)
    patterns = rng.integers(-90, 90, (5, *x.shape[1:]))[y]
    x = np.clip(noise * x.astype(np.float64) + (1 - noise) * patterns, -128, 127).astype(np.int8)
    held = Samples(x[:10], InputTransform("s8", graph.inputs[0].quant))
    return Dataset(Samples(x, held.transform), y, held, y[:10], (), "")


def task(settings: AnalysisSettings = QUICK, name: str = "residual", **data) -> Task:
    graph = network(name, True)
    return make_task(graph, dataset(graph, **data), settings)
