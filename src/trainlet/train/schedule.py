"""Learning rates over a training run."""

from __future__ import annotations

import math


def learning_rate(
    step: int, steps_per_epoch: int, epochs: float, peak: float, warmup_epochs: float = 0
) -> float:
    """Rate of step `step` (from 0): linear warm-up, then half a cosine down to zero (arXiv:1608.03983).

    With W = warmup_epochs * steps_per_epoch and T = epochs * steps_per_epoch, where `epochs` counts
    those of the warm-up too:
        step < W   peak * (step + 1) / W
        else       peak * (1 + cos(pi * (step - W) / (T - W))) / 2;   0 from step T on
    Raises ValueError where a count is not positive or the warm-up is not shorter than the run.
    """
    if steps_per_epoch < 1 or not 0 <= warmup_epochs < epochs or step < 0:
        raise ValueError(
            f"no rate for step {step} of {epochs} epochs with {steps_per_epoch} steps each, "
            f"{warmup_epochs} epochs of warm-up"
        )
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return peak * min(1.0, (step + 1) / warmup)
    if step >= total:
        return 0.0
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
