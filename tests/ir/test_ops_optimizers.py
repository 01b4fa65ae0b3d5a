"""Optimizer steps against torch.optim, and steps below one unit of an integer weight by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ir.one_op import half_even, run, saturate
from trainlet.errors import GraphError

seeds = st.integers(0, 2**32 - 1)
RATE = np.array([0.05])


def torch_steps(rule: str, w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    """w after one step a gradient, by torch.optim."""
    tensor = torch.from_numpy(w.copy()).requires_grad_()
    if rule == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW([tensor], lr=RATE[0], weight_decay=decay)
    else:
        momentum = 0.9 if rule == "momentum" else 0.0
        optimizer = torch.optim.SGD([tensor], lr=RATE[0], momentum=momentum, weight_decay=decay)
    for dw in gradients:
        tensor.grad = torch.from_numpy(dw)
        optimizer.step()
    return tensor.detach().numpy()


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adamw"])
@given(seeds, st.sampled_from([0.0, 0.125]))
@settings(max_examples=15, deadline=None)
def test_float_steps_match_torch(rule: str, seed: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    w, gradients = rng.normal(size=(3, 2)), [rng.normal(size=(3, 2)) for _ in range(4)]
    expected = torch_steps(rule, w, gradients, decay)
    m = np.zeros_like(w) if rule != "sgd" else None
    v = np.zeros_like(w) if rule == "adamw" else None
    slots = [a for a in (m, v) if a is not None]
    for step, dw in enumerate(gradients):
        m, v = [*slots, None, None][:2]
        operands = [dw, w, RATE, None, None, m, v, np.uint32([1, step])]
        attrs = {"rule": rule, "weight_decay": decay}
        w, *slots = run("Update", operands, attrs, outputs=1 + len(slots))
    # 1 - beta2 is taken in fp32, as the kernels do: 5e-5 off, half of that in a step of size RATE.
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-5)


def test_accumulate_adds_scaled_gradients() -> None:
    total, dw, scale = np.ones((2, 2)), np.array([[1.0, 2], [3, 4]]), np.array([10.0, 0.5])
    (after,) = run("Update", [dw, total, RATE, scale], {"rule": "accumulate"})
    assert after.tolist() == [[11, 21], [2.5, 3]]


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adamw"])
def test_a_row_whose_scale_is_zero_is_not_touched(rule: str) -> None:
    dw, w, scale = np.ones((2, 2)), np.full((2, 2), 0.25), np.array([0.0, 1.0])
    m, v = (
        (np.full((2, 2), 7.0) if rule != "sgd" else None),
        (np.full((2, 2), 3.0) if rule == "adamw" else None),
    )
    count = 1 + (m is not None) + (v is not None)
    operands = [dw, w, RATE, scale, None, m, v, np.uint32([1, 0])]
    results = run("Update", operands, {"rule": rule, "weight_decay": 0.5}, outputs=count)
    for old, new in zip([w, m, v], results, strict=False):
        assert np.array_equal(new[0], old[0])
        assert (new[1] != old[1]).any()


def test_a_gradient_is_multiplied_by_its_factor_and_scale() -> None:
    dw, w, scale, factor = np.ones((2, 1)), np.zeros((2, 1)), np.array([2.0, 3.0]), np.array([0.5])
    operands = [dw, w, np.array([0.1]), scale, None, None, None, None, factor]
    np.testing.assert_allclose(run("Update", operands)[0], [[-0.1], [-0.15]], rtol=1e-12)


def uniform(seed: int, step: int, stream: int, index: int) -> float:
    """tl_random.h in Python's unbounded integers."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x85EBCA6B % 2**32
        x ^= x >> 13
        x = x * 0xC2B2AE35 % 2**32
        return x ^ (x >> 16)

    key = mix((mix((mix((seed + 0x9E3779B9) % 2**32) + step) % 2**32) + stream) % 2**32)
    bits = mix((mix((key + index * 0x9E3779B9) % 2**32) + (key ^ 0x6A09E667)) % 2**32)
    return (bits >> 8) / 2**24


@given(seeds, seeds, st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_stochastic_rounding_of_int8(seed: int, key: int, step: int, stream: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-128, 128, (2, 3)).astype(np.int8)
    dw = rng.normal(size=w.shape).astype(np.float32)
    attrs = {"master": "stochastic", "stream": stream}
    operands = [dw, w, np.ones(1), None, None, None, None, np.uint32([key, step])]
    (after,) = run("Update", operands, attrs, real=np.float32)
    for i, value in enumerate(w.ravel()):
        moved = np.float32(value) - dw.ravel()[i]
        rounded = math.floor(np.float32(moved + np.float32(uniform(key, step, stream, i))))
        assert after.ravel()[i] == saturate(rounded)


def test_stochastic_rounding_has_no_bias_and_nearest_forgets_small_steps() -> None:
    w, dw = np.zeros((100, 200), np.int8), np.full((100, 200), 0.25)
    operands = [dw, w, np.ones(1), None, None, None, None, np.uint32([3, 4])]
    (after,) = run("Update", operands, {"master": "stochastic"})
    assert set(np.unique(after)) == {-1, 0}
    assert abs(after.mean() + 0.25) < 0.01
    assert not run("Update", operands, {"master": "nearest"})[0].any()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_nearest_rounds_half_to_even_and_saturates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-128, 128, (4, 4)).astype(np.int8)
    dw = rng.integers(-500, 500, w.shape) / 2
    (after,) = run("Update", [dw, w, np.ones(1)], {"master": "nearest"})
    for index, value in np.ndenumerate(w):
        assert after[index] == saturate(half_even(int(value) - dw[index]))


@given(seeds, seeds)
@settings(max_examples=40, deadline=None)
def test_residual_steps_are_exact_in_units_of_a_256th(seed: int, key: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-128, 128, 12).astype(np.int8)
    fraction = np.where(w == -128, rng.integers(0, 128, 12), rng.integers(-128, 128, 12)).astype(np.int8)
    dw = (rng.normal(size=12) * rng.choice([0.01, 1.0, 300.0])).astype(np.float32)
    operands = [dw, w, np.ones(1), None, fraction, None, None, np.uint32([key, 5])]
    after, rest = run("Update", operands, {"master": "residual"}, outputs=2, real=np.float32)
    for i in range(12):
        step = math.floor(np.float32(256 * dw[i]) + np.float32(uniform(key, 5, 0, i)))
        whole = min(max(256 * int(w[i]) + int(fraction[i]) - step, -128 * 256), 127 * 256 + 127)
        assert 256 * int(after[i]) + int(rest[i]) == whole
        assert after[i] == (whole + 128) // 256


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_an_update_fused_with_its_gradient_is_both_in_turn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = rng.integers(-128, 128, (1, 4, 4, 3)).astype(np.int8), rng.normal(size=(1, 4, 4, 2))
    w, scale = rng.integers(-9, 9, (2, 3, 3, 3)).astype(np.int8), rng.random(2) / 100
    tail = [w, RATE, scale, None, None, None, np.uint32([seed, 2])]
    grad, step = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}, {"master": "stochastic", "stream": 3}
    (dw,) = run("ConvWeightGrad", [x, dy], grad)
    fused = run("ConvWeightGradUpdate", [x, dy, None, *tail], {**grad, **step})
    assert np.array_equal(fused[0], run("Update", [dw, *tail], step)[0])
    bias = [rng.normal(size=2), *tail[1:]]
    (db,) = run("BiasGrad", [dy])
    assert np.array_equal(
        run("BiasGradUpdate", [dy, *bias], {"rule": "sgd"})[0], run("Update", [db, *bias], {"rule": "sgd"})[0]
    )


@pytest.mark.parametrize(
    ("w", "attrs", "message"),
    [
        (np.zeros(3, np.int8), {}, "sgd/fp32 on s8"),
        (np.zeros(3, np.int8), {"rule": "adamw", "master": "nearest"}, "adamw/nearest on s8"),
        (np.zeros(3), {"rule": "lion"}, "rule lion is none of sgd, momentum"),
        (np.zeros(3), {"master": "bf16"}, "master bf16 is none of fp32"),
    ],
)
def test_updates_that_make_no_sense_are_refused(
    w: np.ndarray, attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        run("Update", [np.zeros(3), w, RATE], attrs)
