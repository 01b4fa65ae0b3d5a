"""Normalizations and their gradients, against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.one_op import run
from trainlet.errors import GraphError

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(2, 4), min_size=2, max_size=4).map(tuple)
Arrays = list[np.ndarray]


def drawn(seed: int, shape: tuple[int, ...]) -> tuple[Arrays, list[torch.Tensor]]:
    """x, dy of `shape`, then gamma, beta, mean of its channels and a positive variance; as torch leaves."""
    rng, c = np.random.default_rng(seed), shape[-1]
    arrays = [2 * rng.normal(size=shape) + 1, rng.normal(size=shape)]
    arrays += [rng.normal(size=c), rng.normal(size=c), rng.normal(size=c), rng.uniform(0.5, 2, c)]
    return arrays, [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]


def close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-9)


@given(shapes, seeds, st.booleans())
@settings(max_examples=25, deadline=None)
def test_layer_normalization(shape: tuple[int, ...], seed: int, affine: bool) -> None:
    (x, dy, gamma, beta, *_), (tx, tdy, tg, tb, *_) = drawn(seed, shape)
    attrs = {"eps": 1e-3}
    y = F.layer_norm(tx, shape[-1:], tg if affine else None, tb if affine else None, 1e-3)
    y.backward(tdy)
    operands = [x, gamma, beta] if affine else [x]
    close(run("LayerNormalization", operands, attrs)[0], y)
    close(run("LayerNormInputGrad", [dy, x, gamma] if affine else [dy, x], attrs)[0], tx.grad)
    if affine:
        close(run("LayerNormScaleGrad", [dy, x], attrs)[0], tg.grad)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


@given(shapes, seeds)
@settings(max_examples=25, deadline=None)
def test_batch_normalization_with_running_statistics(shape: tuple[int, ...], seed: int) -> None:
    (x, _, gamma, beta, mean, var), (tx, _, tg, tb, tm, tv) = drawn(seed, shape)
    y = F.batch_norm(channels_first(tx), tm.detach(), tv.detach(), tg, tb, eps=1e-3).movedim(1, -1)
    close(run("BatchNormalization", [x, gamma, beta, mean, var], {"eps": 1e-3})[0], y)


@given(shapes, seeds, st.booleans(), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_batch_normalization_with_batch_statistics(
    shape: tuple[int, ...], seed: int, affine: bool, momentum: float
) -> None:
    (x, dy, gamma, beta, mean, var), (tx, tdy, tg, tb, tm, tv) = drawn(seed, shape)
    running = tm.detach().clone(), tv.detach().clone()
    scale = (tg, tb) if affine else (None, None)
    y = F.batch_norm(channels_first(tx), *running, *scale, True, momentum, 1e-3).movedim(1, -1)
    y.backward(tdy)
    operands = [x, gamma if affine else None, beta if affine else None, mean, var]
    results = run("BatchNormTrain", operands, {"eps": 1e-3, "momentum": momentum}, outputs=5)
    for ours, theirs in zip(results, (y, *running)):
        close(ours, theirs)
    d_gamma = run("BatchNormScaleGrad", [dy, x, *results[3:]])[0]
    d_beta = dy.reshape(-1, shape[-1]).sum(0)
    if affine:
        close(d_gamma, tg.grad)
    given_dx = run("BatchNormInputGrad", [dy, x, operands[1], *results[3:], d_gamma, d_beta])[0]
    close(given_dx, tx.grad)


def test_one_value_a_channel_has_no_statistics() -> None:
    with pytest.raises(GraphError, match="larger batch"):
        run("BatchNormTrain", [np.ones((1, 3)), None, None, np.ones(3), np.ones(3)], outputs=5)


def test_a_scale_of_another_size_is_refused() -> None:
    with pytest.raises(GraphError, match=r"\(2,\) for 3 channels"):
        run("LayerNormalization", [np.ones((2, 3)), np.ones(2)])
