"""How a program is built, and that as a record beside what it trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainlet.errors import SchemeError
from trainlet.ir.graph import PLACES
from trainlet.scheme import Selection, UpdateScheme
from trainlet.train.autodiff import LOSSES
from trainlet.train.parameters import INTEGER_MASTERS, SLOTS, Optimizer

MASTERS = ("fp32", *INTEGER_MASTERS)
INPUTS = ("arena", *PLACES)


@dataclass(frozen=True)
class Settings:
    """How a program is built. `accumulate`: gradients of several calls make one update.

    `classes`: a new head for that many classes, drawn from `seed` (None: the network's own head).
    `budget_bytes`: RAM that must suffice. `arena_target_bytes`: cheap activations are computed twice until
    the arena is as small as this (`plan.budget.fit_budget` chooses it).
    `input`: where a sample is while the program runs. arena: copied into its memory. caller: read where the
    caller has it. rows: never whole, the program asks a function of the caller's for rows of an image.
    """

    scheme: str | UpdateScheme = "head"
    master: str = "fp32"
    optimizer: str = "sgd"
    batch: int = 1
    accumulate: bool = False
    loss: str = "softmax-cross-entropy"
    classes: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    budget_bytes: int | None = None
    arena_target_bytes: int | None = None
    input: str = "arena"

    def update_rule(self) -> Optimizer:
        """How a gradient becomes a step under these settings."""
        return Optimizer(
            self.optimizer,
            self.master,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )


def check_values(settings: Settings) -> None:
    if settings.loss not in LOSSES:
        raise SchemeError(f"loss {settings.loss!r} is none of {', '.join(LOSSES)}")
    if settings.batch < 1:
        raise SchemeError(f"batch {settings.batch} is not positive")
    if settings.master not in MASTERS:
        raise SchemeError(f"master {settings.master!r} is none of {', '.join(MASTERS)}")
    if settings.input not in INPUTS:
        raise SchemeError(f"input {settings.input!r} is none of {', '.join(INPUTS)}")
    if settings.optimizer not in SLOTS:
        raise SchemeError(f"optimizer {settings.optimizer!r} is none of {', '.join(SLOTS)}")


def checkpoint_meta(model: str, settings: Settings, chosen: Selection) -> dict[str, Any]:
    """What is needed to build the same program again for the network named `model`, JSON-ready."""
    weights = {k: None if v is None else list(v) for k, v in chosen.weights.items()}
    values = {**asdict(replace(settings, scheme="")), "scheme": chosen.name}
    return {
        "model": model,
        "settings": values,
        "weights": weights,
        "biases": sorted(chosen.biases),
        "redrawn": sorted(chosen.redrawn),
    }


def settings_of(meta: Mapping[str, Any]) -> Settings:
    """The settings a checkpoint was trained with; its scheme by channels, or by their number if redrawn."""
    from trainlet.scheme import Channels

    redrawn = meta.get("redrawn", ())  # absent before channels could be redrawn

    def channels(name: str, chosen: list[int] | None) -> Channels:
        if chosen is None:
            return Channels(share=1.0)
        if name in redrawn:
            return Channels(count=len(chosen), redraw=True)
        return Channels(indices=tuple(chosen))

    weights = {name: channels(name, chosen) for name, chosen in meta["weights"].items()}
    scheme = UpdateScheme(meta["settings"]["scheme"], weights, tuple(meta["biases"]))
    return Settings(**{**meta["settings"], "scheme": scheme})
