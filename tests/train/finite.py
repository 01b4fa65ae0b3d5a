"""Central finite differences of the loss, in the float64 interpreter."""

from __future__ import annotations

import numpy as np

from tests.train.networks import Case, gradients
from trainlet.ir import interpret

STEP = 1e-5
TOLERANCE = 1e-6  # of the gradient; the error of the difference itself is about STEP squared


def assert_gradients_match(given: Case, directions: int = 2) -> None:
    """Every parameter's gradient agrees with the slope of the loss along random directions."""
    rng = np.random.default_rng(1)
    module = given.derive()
    found = gradients(given)
    assert sorted(found) == sorted({*given.selection.weights, *given.selection.biases})
    for p in module.parameters:
        at = p.tensors["w"].data.astype(np.float64)
        for _ in range(directions):
            v = rng.normal(0, 1, at.shape)
            up, down = (_loss(given, p.tensors["w"].value.name, at + s * STEP * v) for s in (1, -1))
            slope, ours = (up - down) / (2 * STEP), float((found[p.name] * v).sum())
            scale = np.abs(found[p.name] * v).sum() + 1e-3
            assert abs(slope - ours) <= TOLERANCE * scale, (p.name, slope, ours)


def _loss(given: Case, state: str, value: np.ndarray) -> float:
    step = given.derive().functions["step"]
    return float(interpret(step, given.feeds, {state: value}, real=np.float64).outputs[0][0])
