"""Small float networks as CPU programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.host.programs import NETWORKS, Net
from trainlet.api import Settings, derive
from trainlet.backends.cpu import plan_program, write_program
from trainlet.ir import Graph
from trainlet.plan.program import Program


def residual_stages() -> Graph:
    """As in ResNet: a 7x7 stem, max pool, basic blocks, clips behind sums; then a depthwise convolution."""
    n = Net("stages", (36, 39, 3), 4)
    x = n.conv(n.x, 24, 7, 2)
    pool = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    x = n.b.add("MaxPool", [x], pool, name="pool")
    for i, (o, stride) in enumerate([(24, 1), (40, 2), (40, 1)]):
        y = n.conv(n.conv(x, o, 3, stride), o, 3, act="none")
        skip = x if stride == 1 else n.conv(x, o, 1, stride, act="none")
        x = n.act(n.b.add("Add", [y, skip], name=f"sum{i}"), "relu")
    return n.head(n.conv(n.conv(x, 40, 3, 2, groups=40), 48, act="relu6"), 5)


GRAPHS = {**NETWORKS, "stages": residual_stages}


def built(graph: Graph, folder: Path, threads: int = 1, isa: str = "native", **settings) -> Program:
    """The program of a network, its sources in `folder`."""
    program = plan_program(derive(graph, Settings(**settings)), threads, isa)
    write_program(program, folder, threads, isa)
    return program


def batch(program: Program, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples and labels of one training call."""
    rng, graph = np.random.default_rng(seed), program.main.graph
    classes = program.functions["predict"].graph.outputs[0].shape[-1]
    x = rng.normal(0, 1, graph.inputs[0].shape).astype(np.float32)
    return x, rng.integers(0, classes, len(x)).astype(np.int32)
