"""Gradients through hidden layers by groups of channels: the bits of whole tensors in fewer bytes."""

import itertools
from functools import cache

import numpy as np
import pytest

from tests.host.programs import Net, samples
from tests.shared_files import shared
from trainlet.api import Settings, load, plan
from trainlet.backends.c99 import scratch_bytes, write_sources
from trainlet.ir import Graph
from trainlet.passes import OPTIONAL, PASSES
from trainlet.plan.program import plan as plan_module
from trainlet.quantize import quantize
from trainlet.runtime.host import HostProgram
from trainlet.runtime.measure import peak_arena_bytes, touched
from trainlet.scheme import UpdateScheme
from trainlet.scheme.scheme import Channels

CHOSEN = [p for p in PASSES if p not in OPTIONAL]
WHOLE = [p for p in CHOSEN if p not in ("group-hidden", "widen-groups")]
SMALLEST = [p for p in CHOSEN if p != "widen-groups"]


@cache
def widening(int8: bool, hidden: int = 40) -> Graph:
    """Inverted residuals of stride 1, 2 and 1, the last with an addition, then a wide 1x1 layer."""
    n = Net("widening", (11, 9, 3))
    x = n.conv(n.x, 8, 3, 2)
    x = n.conv(n.conv(n.conv(x, hidden), hidden, 3, groups=hidden, act="relu6"), 12, act="none")
    x = n.conv(n.conv(n.conv(x, 72), 72, 5, 2, groups=72), 10, act="none")
    y = n.conv(n.conv(n.conv(x, hidden), hidden, 3, groups=hidden), 10, act="none")
    x = n.b.add("Add", [x, y], name="sum")
    graph = n.head(n.conv(x, 33), 4)
    if not int8:
        return graph
    calibration = np.random.default_rng(2).normal(0, 1, (16, 11, 9, 3)).astype(np.float32)
    return quantize(graph, calibration)


ALL = Channels(1.0)
BIASES = (*(f"conv{i}/bias" for i in range(3, 12)), "head/bias")
# The 1x1 layers that make the hidden layers of the second and third block: some channels, all of them.
SPARSE = UpdateScheme(
    "sparse", {"conv5/weight": Channels(0.5), "conv8/weight": ALL, "head/weight": ALL}, BIASES
)
# No layer below the third block's: its chain ends with updates.
LAST = UpdateScheme("last", {"conv8/weight": ALL, "head/weight": ALL}, BIASES[5:])

# The lowest trained layer is depthwise: its chain ends with those weights.
DEPTHWISE = UpdateScheme("depthwise", {"conv9/weight": ALL, "head/weight": ALL}, BIASES[6:])


def grouped_and_whole(graph, tmp_path, passes=SMALLEST, **settings):
    module = plan(graph, Settings(**settings)).module
    programs = [plan_module(module, scratch_bytes, passes=p) for p in (passes, WHOLE)]
    names = ("grouped", "whole")
    return [(p, HostProgram(write_sources(p, tmp_path / n))) for p, n in zip(programs, names, strict=True)]


def assert_same_training(programs, x, steps=3):
    (_, a), (_, b) = programs
    y = np.arange(len(x), dtype=np.int32) % 4
    for _ in range(steps):
        assert a.step(x, y, 0.05) == b.step(x, y, 0.05)
    assert np.array_equal(a.region("state"), b.region("state"))


def chains(program):
    return [n for n in program.main.graph.nodes if n.op == "HiddenGrad"]


CASES = [
    *itertools.product([True], ["full", SPARSE], ["fp32", "residual", "stochastic", "nearest"], [1]),
    *itertools.product([True], [SPARSE, LAST, DEPTHWISE, "bias-only:6"], ["stochastic"], [3]),
    *itertools.product([False], ["full", "last:3"], ["fp32"], [2]),
]


@pytest.mark.parametrize(("int8", "scheme", "master", "batch"), CASES)
def test_groups_train_as_whole_tensors_do(int8, scheme, master, batch, tmp_path):
    graph = widening(int8)
    programs = grouped_and_whole(graph, tmp_path, scheme=scheme, master=master, batch=batch, seed=3)
    assert len(chains(programs[0][0])) >= 1
    x = samples(graph, batch)
    assert_same_training(programs, x)
    program, host = programs[0]
    assert peak_arena_bytes(host, x, np.zeros(batch, np.int32)) == program.bytes["arena"]
    used = touched(host, "scratch", lambda: host.step(x, np.zeros(batch, np.int32), 0.1))
    assert used <= program.bytes["scratch"]


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_optimizer_slots_go_by_groups_too(optimizer, tmp_path):
    graph = widening(False)
    programs = grouped_and_whole(graph, tmp_path, scheme="full", optimizer=optimizer, weight_decay=0.01)
    assert_same_training(programs, samples(graph, 1))


def test_accumulated_gradients_go_by_groups_too(tmp_path):
    graph = widening(True)
    programs = grouped_and_whole(graph, tmp_path, scheme=SPARSE, master="residual", accumulate=True)
    x, y = samples(graph, 1), np.array([1], np.int32)
    for _ in range(2):
        for _, host in programs:
            host.accumulate(x, y)
            host.accumulate(x, y)
            host.apply(0.05)
    assert np.array_equal(programs[0][1].region("state"), programs[1][1].region("state"))


@pytest.mark.parametrize("hidden", [17, 33, 48])
def test_hidden_channels_need_not_be_a_multiple_of_the_group(hidden, tmp_path):
    graph = widening(True, hidden)
    programs = grouped_and_whole(graph, tmp_path, scheme="full", master="stochastic")
    assert_same_training(programs, samples(graph, 1))


def test_planner_chooses_groups_that_lower_the_peak(tmp_path):
    graph = widening(True, 96)
    programs = grouped_and_whole(graph, tmp_path, CHOSEN, scheme=SPARSE, master="stochastic")
    (grouped, _), (whole, _) = programs
    assert any(16 <= n.attrs["group"] < 96 for n in chains(grouped))
    assert grouped.bytes["arena"] < 0.8 * whole.bytes["arena"]
    assert_same_training(programs, samples(graph, 1))


@pytest.mark.shared
@pytest.mark.parametrize(("model", "scheme"), [("vww_96_int8", "full"), ("kws_ref_model", "last:4")])
def test_fixed_point_networks_go_by_groups_too(model, scheme, tmp_path):
    graph = load(shared(f"data/mlperf_tiny/models/{model}.tflite"))
    programs = grouped_and_whole(graph, tmp_path, scheme=scheme, master="stochastic", classes=4)
    assert chains(programs[0][0])
    x = np.random.default_rng(0).integers(-128, 128, (1, *graph.inputs[0].shape[1:])).astype(np.int8)
    assert_same_training(programs, x)
