"""How a stored weight came about, so that a trained one can be given back to the model it was taken from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Norm:
    """A batch normalization that was folded into a layer: the names of its tensors in the model."""

    gamma: str
    beta: str
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A convolution or matrix product of the graph and the model's tensors it was made of.

    weight, bias: constants of the graph. weight_of, bias_of: the model's tensors behind them; None where
    the model computes them, or has no bias. The stored weight is
    model[weight_of].transpose(perm)[..., columns], times the factors of `norms` by output channel.
    """

    weight: str
    weight_of: str | None
    perm: tuple[int, ...]
    columns: np.ndarray | None
    bias: str | None
    bias_of: str | None
    norms: tuple[Norm, ...] = ()
