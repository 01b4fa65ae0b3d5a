"""PyTorch, or a skip where it is missing; under CI (environment variable CI) that is a failure."""

from __future__ import annotations

import os

import pytest

if os.environ.get("CI"):
    import torch
else:
    torch = pytest.importorskip("torch")

torch.set_num_threads(1)

__all__ = ["torch"]
