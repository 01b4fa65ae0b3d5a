"""Fisher information against gradients written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.choose.tasks import task
from trainlet.api import Settings, build
from trainlet.choose.correlation import spearman
from trainlet.choose.fisher import fisher
from trainlet.choose.trials import Trials
from trainlet.ir.interpret import interpret
from trainlet.scheme import layers, with_head


def test_fisher_information_of_the_head_is_that_of_its_formula(tmp_path):
    """dL/dW = (p - onehot) x', dL/db = p - onehot: squares, mean over samples, summed by channel."""
    t = task()
    head, _ = Trials(t, tmp_path).head(0, 0.1)
    found = fisher(t, head)
    weight, bias = head["head/weight.trained"], head["head/bias.trained"]
    graph = with_head(t.network(0), weight, bias)
    features = next(n for n in graph.nodes if n.op == "Gemm").inputs[0]
    rows = t.fit[np.linspace(0, len(t.fit) - 1, 16).astype(int)]
    squares_w, squares_b = np.zeros(weight.shape), 0.0
    for row in rows:
        values = interpret(graph, {"x": t.data.x_train.batch(np.array([row]))}).values
        x = values[features.name][0].astype(np.float64)
        logits = x @ weight.T.astype(np.float64) + bias
        p = np.exp(logits - logits.max())
        d = p / p.sum() - np.eye(5)[t.data.y_train[row]]
        squares_w += np.outer(d, x) ** 2
        squares_b += (d**2).sum()
    np.testing.assert_allclose(found["weights"]["head/weight"], squares_w.sum(0) / 16, rtol=1e-4)
    assert found["biases"]["head/bias"] == pytest.approx(squares_b / 16, rel=1e-4)


def test_fisher_information_is_of_the_real_valued_weights(tmp_path):
    """A plain step of training moves a real weight by lr * gradient: the square of that step over one
    sample."""
    t = task()
    head, _ = Trials(t, tmp_path).head(0, 0.1)
    found = fisher(t, head)
    network = t.network(0)
    layer = next(x for x in layers(network) if x.weight.name == "conv7/weight")
    scales = np.broadcast_to(network.scales(layer.weight), (layer.weight.shape[0],))
    total = np.zeros(layer.channels)
    rows = t.fit[np.linspace(0, len(t.fit) - 1, 16).astype(int)]
    host = build(network, Settings("last:8", "fp32"))
    for row in rows:
        host.init()
        host.restore({**host.tensors(), **head})
        before = host.tensor("conv7/weight.trained").astype(np.float64)
        host.step(t.data.x_train.batch(np.array([row])), t.data.y_train[[row]], 1e-3)
        moved = (host.tensor("conv7/weight.trained") - before) * scales.reshape(-1, 1, 1, 1) / 1e-3
        total += (moved**2).sum((0, 1, 2))
    np.testing.assert_allclose(found["weights"]["conv7/weight"], total / 16, rtol=0.02)


def test_every_weight_and_bias_has_its_information(tmp_path):
    t = task()
    found = fisher(t, Trials(t, tmp_path).head(0, 0.1)[0])
    for layer in layers(t.network(0)):
        assert len(found["weights"][layer.weight.name]) == layer.channels
        assert min(found["weights"][layer.weight.name]) >= 0
        assert found["biases"][layer.bias.name] >= 0


def test_rank_correlation_is_spearmans_with_ties_at_their_mean_rank():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 25, 100])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # ranks 0 1.5 1.5 3 against 0 1 2 3
    assert spearman(np.array([1.0, 2, 2, 4]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)
    assert spearman(np.array([1.0, 2]), np.array([1.0, 2])) is None
    assert spearman(np.ones(4), np.arange(4.0)) is None
