"""Arguments and options that several commands share."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from trainlet.api import INPUTS, MASTERS
from trainlet.byte_count import byte_count as bytes_in
from trainlet.errors import BudgetError
from trainlet.train.autodiff import LOSSES
from trainlet.train.parameters import SLOTS

# The choices come from the tables that implement them.
Master = StrEnum("Master", {name: name for name in MASTERS})  # type: ignore[misc]
Rule = StrEnum("Rule", {name: name for name in SLOTS})  # type: ignore[misc]
Loss = StrEnum("Loss", {name: name for name in LOSSES})  # type: ignore[misc]
Input = StrEnum("Input", {name: name for name in INPUTS})  # type: ignore[misc]
INPUT = Input("arena")
MASTER, RULE, LOSS = Master("fp32"), Rule("sgd"), Loss("softmax-cross-entropy")


def byte_count(text: str) -> int:
    """Bytes in "256KB", "1.5MB" or "262144"."""
    try:
        return bytes_in(text)
    except BudgetError as error:
        raise typer.BadParameter(str(error)) from None


def print_json(report: Any) -> None:
    """JSON on stdout; what is not a finite number becomes null."""
    print(to_json(report))


def to_json(report: Any) -> str:
    return json.dumps(_finite(report), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


Model = Annotated[str, typer.Argument(help="ONNX file, int8 archive (.json + .npz), or IR text (.tl).")]
Data = Annotated[Path, typer.Option("--data", help="An .npz, or a folder or .zip of images by class.")]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        help="head, bias-only:K, last:K, full, biases:K,LAYER=SHARE,…, a published name, or a .json file.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples of one call.")]
Accumulate = Annotated[
    int, typer.Option("--accumulate", min=1, help="Calls whose gradients are summed into one update.")
]
MasterOption = Annotated[
    Master, typer.Option("--master", help="How trained integers are kept between steps (int8 networks).")
]
RuleOption = Annotated[Rule, typer.Option("--optimizer", help="How a gradient becomes a step.")]
LossOption = Annotated[Loss, typer.Option("--loss", help="What training makes small.")]
InputOption = Annotated[
    Input,
    typer.Option("--input", help="Samples: copied to the arena, read where the caller has them, or by rows."),
]
Classes = Annotated[
    int | None, typer.Option("--classes", help="A new head for this many classes, instead of the network's.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of the new head, the order, the rounding.")
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        parser=byte_count,
        metavar="BYTES",
        help="RAM it has to fit in: 256KB (of 1024), 1MB, 262144.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
