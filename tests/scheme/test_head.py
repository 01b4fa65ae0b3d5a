"""A new head for a new number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scheme.networks import small
from tests.train.networks import Net
from trainlet.errors import SchemeError
from trainlet.ir import interpret
from trainlet.scheme import layers, replace_head, with_head


def test_new_head_has_the_classes_and_keeps_the_names() -> None:
    graph = replace_head(small(), 7)
    assert graph.outputs[0].shape == (1, 7) and graph.outputs[0].name == small().outputs[0].name
    assert graph.constants["head/weight"].data.shape == (7, 8)
    assert layers(graph)[-1].is_head and layers(graph)[-1].bias.name == "head/bias"
    assert graph.nodes[-1].source == small().nodes[-1].source


def test_everything_but_the_head_stays() -> None:
    old, new = small(), replace_head(small(), 7)
    assert new.nodes[:-1] == old.nodes[:-1]
    body = {k for k in old.constants if not k.startswith("head/")}
    assert all(new.constants[k] == old.constants[k] for k in body)


def test_new_head_is_uniform_within_the_usual_bound_and_drawn_from_the_seed() -> None:
    w = replace_head(small(), 1000, seed=1).constants["head/weight"].data
    bound = 1 / np.sqrt(8)
    assert np.abs(w).max() <= bound and np.abs(w).mean() == pytest.approx(bound / 2, rel=0.05)
    assert (replace_head(small(), 3).constants["head/bias"].data == 0).all()
    a, b, c = (replace_head(small(), 5, seed).constants["head/weight"] for seed in (4, 4, 5))
    assert a == b and a != c


def test_given_head_is_what_is_computed() -> None:
    w, b = np.eye(2, 8, dtype=np.float32), np.array([10.0, 20.0], np.float32)
    graph = with_head(small(), w, b)
    run = interpret(graph, {"x": np.ones((1, 4, 4, 8))})
    features = run.values[graph.nodes[-1].inputs[0].name]
    np.testing.assert_allclose(run.outputs[0], features[:, :2] + b, rtol=1e-6)


def test_head_without_a_bias_gets_one() -> None:
    net = Net((1, 4))
    graph = net.build([net.add("Gemm", [net.x, net.normal("head/weight", (3, 4))], name="logits")])
    assert layers(replace_head(graph, 2))[-1].bias is not None


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_too_few_classes_are_refused(classes: int) -> None:
    with pytest.raises(SchemeError, match="at least 2"):
        replace_head(small(), classes)


def test_softmax_behind_the_head_goes_with_the_old_classes() -> None:
    net = Net((1, 4))
    graph = replace_head(net.build([net.add("Softmax", [net.operand("head", 3)])]), 5)
    assert [n.op for n in graph.nodes] == ["Gemm"] and graph.outputs[0].shape == (1, 5)


def test_network_that_does_not_end_in_a_layer_is_refused() -> None:
    net = Net((1, 4))
    two = net.add("Mul", [net.operand("left"), net.operand("right")])
    with pytest.raises(SchemeError, match="net does not end in a"):
        replace_head(net.build([two]), 5)


def test_head_over_many_positions_is_refused() -> None:
    net = Net((1, 6, 4))
    with pytest.raises(SchemeError, match="net"):
        replace_head(net.build([net.operand("head", 3)]), 5)
