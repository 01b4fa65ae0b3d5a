"""A network moved a little, so that its gradient at some samples does not hang on rounding.

relu and relu6 have kinks. Of millions of activations some lie closer to one than float32 can tell; on which
side they fall changes the gradient by far more than rounding (a single one by 1e-3 of a weight's largest, for
ResNet-18). `settle` moves biases, most by a tiny part of their layer's deviation, until none is so close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CLEAR = 3e-5  # of a layer's deviation: several times what Winograd's products are off
FARTHEST = 1.0  # of it: no bias moves more (one with few values has wide gaps)


def settle(module: Any, x: Any) -> int:
    """Move the biases of a float64 module without BatchNorms in place; how many moved.

    Every relu or relu6 directly follows a convolution with a bias, or a sum with one. Raises ValueError
    where some kink stays too close.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Settle(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.bias: Any = None
            self.moved = 0
            self.inside = False

        def __torch_function__(
            self, f: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            name = getattr(f, "__name__", "")
            if name == "conv2d":
                self.bias = args[2] if len(args) > 2 else kwargs.get("bias")
            if name not in ("relu", "relu_", "relu6", "hardtanh") or self.inside:
                return f(*args, **kwargs)
            kinks = (0.0,) if name.startswith("relu") and name != "relu6" else (0.0, 6.0)
            move = torch.from_numpy(moves(args[0].numpy(), kinks))
            if move.any():
                self.bias += move
                self.moved += int((move != 0).sum())
            self.inside = True
            try:
                return f(args[0] + move[:, None, None], *args[1:], **kwargs)
            finally:
                self.inside = False

    with torch.no_grad(), Settle() as mode:
        module(x)
    return mode.moved


def moves(z: np.ndarray, kinks: tuple[float, ...]) -> np.ndarray:
    """By channel of z (N, C, H, W) the smallest move after which nothing lies within CLEAR of a kink."""
    clear, out = CLEAR * z.std(), np.zeros(z.shape[1])
    for c in range(z.shape[1]):
        v = np.sort(z[:, c].ravel())
        middles = (v[1:] + v[:-1]) / 2
        wide = middles[v[1:] - v[:-1] > 2 * clear]
        tried = np.concatenate([[0.0], *(wide - k for k in kinks), [v[0] - 2 * clear, v[-1] + 2 * clear]])
        tried = tried[np.argsort(np.abs(tried), kind="stable")]
        out[c] = -_first_clear(v, tried, kinks, clear)
        if abs(out[c]) > FARTHEST * z.std():
            raise ValueError(f"a channel would have to move by {out[c]:.2g}")
    return out


def _first_clear(v: np.ndarray, tried: np.ndarray, kinks: tuple[float, ...], clear: float) -> float:
    """The first of `tried` that is `clear` of every value of v (sorted), with each kink added."""
    for t in tried:
        if all(_distance(v, t + k) >= clear for k in kinks):
            return float(t)
    raise ValueError("no gap is wide enough")


def _distance(v: np.ndarray, at: float) -> float:
    i = int(np.searchsorted(v, at))
    return min(abs(v[j] - at) for j in (i - 1, i) if 0 <= j < len(v))
