"""What `trainlet tune` measured, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from trainlet.compiled.tune import Answer


def tuning_table(found: Sequence[Answer], everything: bool = False) -> Table:
    """Steps whose way changed (or all), the largest gain first; microseconds of all steps alike."""
    table = Table(box=None, pad_edge=False)
    for name, side in {"question": "left", "step": "left", "default us": "right", "other us": "right",
                       "takes": "left"}.items():  # fmt: skip
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    rows = [a for a in found if everything or a.chosen != a.default]
    for a in sorted(rows, key=lambda a: min(a.yes_us, a.no_us) - _default_us(a)):
        other = a.no_us if a.default else a.yes_us
        takes = f"{'' if a.chosen else 'no '}{a.question}"
        table.add_row(a.question, a.key, f"{_default_us(a):.0f}", f"{other:.0f}", takes)
    return table


def tuning_summary(found: Sequence[Answer]) -> str:
    """One line: how many answers, how many changed, what that saves of the steps asked about."""
    changed = [a for a in found if a.chosen != a.default]
    saved = sum(_default_us(a) - min(a.yes_us, a.no_us) for a in changed)
    return f"{len(found)} questions, {len(changed)} answers unlike the defaults: {saved:,.0f} us a step less"


def _default_us(a: Answer) -> float:
    return a.yes_us if a.default else a.no_us
