"""Losses: gradients by finite differences and PyTorch, and extreme logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.finite import assert_gradients_match
from tests.train.networks import Case, Net, case, gradients, seeds
from trainlet.errors import SchemeError
from trainlet.train import LOSSES, derive

QUICK = settings(max_examples=15, deadline=None, derandomize=True)


def logits(batch: int, classes: int, seed: int, loss: str) -> Case:
    net = Net((batch, 3), seed)
    return case(net.build([net.operand("head", classes)]), seed, loss=loss)


@given(st.sampled_from(sorted(LOSSES)), st.integers(1, 4), st.integers(1, 5), seeds)
@QUICK
def test_loss_agrees_with_finite_differences(loss: str, batch: int, classes: int, seed: int) -> None:
    assert_gradients_match(logits(batch, classes, seed, loss))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_loss_agrees_with_pytorch(loss: str) -> None:
    from tests.train.pytorch import torch

    given_case = logits(4, 5, 7, loss)
    found = gradients(given_case, np.float32)
    constants = given_case.graph.constants
    w, b = (torch.tensor(constants[f"head/{k}"].data, requires_grad=True) for k in ("weight", "bias"))
    y = torch.tensor(given_case.feeds["x"], dtype=torch.float32) @ w.T + b
    label = torch.tensor(given_case.feeds["label"])
    f = torch.nn.functional
    if loss == "softmax-cross-entropy":
        value = f.cross_entropy(y, label)
    elif loss == "sigmoid-cross-entropy":
        value = f.binary_cross_entropy_with_logits(y, label.float(), reduction="sum") / len(y)
    else:
        value = f.mse_loss(y, label.float())
    value.backward()
    np.testing.assert_allclose(found["head/weight"], w.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["head/bias"], b.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax-cross-entropy", "sigmoid-cross-entropy"])
def test_extreme_logits_stay_finite(loss: str) -> None:
    net = Net((2, 3))
    w, b = net.constant("w", np.zeros((3, 3))), net.constant("b", [500.0, -500.0, 0.0])
    given_case = case(net.build([net.add("Gemm", [net.x, w, b])]), loss=loss)
    assert np.isfinite(gradients(given_case, np.float32)["b"]).all()


def test_unknown_loss_is_refused() -> None:
    given_case = logits(1, 2, 0, "mean-squared-error")
    with pytest.raises(SchemeError, match="hinge"):
        derive(given_case.graph, given_case.selection, loss="hinge")
