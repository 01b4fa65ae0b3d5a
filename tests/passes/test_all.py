"""Every pass, and all of them together, leave the results of random training graphs as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.train.random_networks import Training, trainings
from trainlet.errors import GraphError
from trainlet.ir import Graph, interpret, verify
from trainlet.passes import OPTIONAL, PASSES, run_passes

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def assert_same_results(t: Training, old: Graph, new: Graph) -> None:
    """In float64 fusing reorders no rounding, so results are equal to the bit."""
    before, after = (interpret(g, t.inputs(g), real=np.float64) for g in (old, new))
    for a, b in zip(before.outputs, after.outputs):
        assert np.array_equal(a, b)
    assert set(before.state) == set(after.state)
    assert all(np.array_equal(before.state[k], after.state[k]) for k in before.state)


@given(trainings())
@QUICK
def test_each_pass_and_all_together_keep_the_results(t: Training) -> None:
    for graph in t.module.functions.values():
        current = graph
        for name, change in PASSES.items():
            changed = verify(change(current))
            assert_same_results(t, current, changed)
            if name != "reuse-in-place":  # each alone, too: no pass needs the ones before it
                assert_same_results(t, graph, verify(change(graph)))
            current = changed
        assert_same_results(t, graph, current)


@given(trainings())
@settings(QUICK, max_examples=20)
def test_passes_are_deterministic_and_idempotent(t: Training) -> None:
    from trainlet.ir.text import print_graph

    for graph in t.module.functions.values():
        once = run_passes(graph)
        assert print_graph(run_passes(graph)) == print_graph(once)
        for name in ("fold-constants", "fold-overlays", "eliminate-dead", "fuse"):
            assert len(run_passes(once, [name]).nodes) == len(once.nodes), name


@given(trainings(integer=True))
@settings(QUICK, max_examples=20)
def test_no_gradient_tensor_of_a_trained_weight_is_left_in_an_immediate_step(t: Training) -> None:
    if "step" not in t.module.functions:
        return
    graph = run_passes(t.module.functions["step"])
    trained = {p.tensors["w"].value.shape for p in t.module.parameters}
    assert trained
    assert not [n for n in graph.nodes if n.op in ("ConvWeightGrad", "BiasGrad", "Update")]
    assert not [
        n for n in graph.nodes if n.op in ("ConvInteger", "Requantize", "OverlayChannels", "RoundMaster")
    ]


def test_unknown_pass_is_refused_with_the_known_ones() -> None:
    with pytest.raises(GraphError, match="no pass 'inline'.*fold-constants"):
        run_passes(Graph("g", (), (), ()), ["inline"])


def test_watch_sees_the_graph_after_each_pass() -> None:
    seen: list[str] = []
    run_passes(Graph("g", (), (), ()), watch=lambda name, graph: seen.append(name))
    assert seen == [name for name in PASSES if name not in OPTIONAL]
