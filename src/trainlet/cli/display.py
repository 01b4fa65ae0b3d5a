"""What `train` and `analyze` show: a bar in a terminal, elsewhere one line an epoch or phase."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainlet.runtime import trainer

if TYPE_CHECKING:
    from trainlet.choose.analyze import AnalysisProgress


class Display:
    """Watches a training run; a context manager around it."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: trainer.Progress) -> None:
        if progress.epoch_ended:
            self.console.print(self._line(progress), highlight=False)
        elif self.console.is_terminal:
            self._advance(progress)

    def _advance(self, p: trainer.Progress) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=self.epochs * p.steps, numbers="")
        done = p.epoch * p.steps + p.step
        title = f"epoch {p.epoch + 1}/{self.epochs}"
        self._bar.update(self._task, completed=done, description=title, numbers=_numbers(p))

    def _line(self, p: trainer.Progress) -> str:
        test = "" if p.test_accuracy is None else f"  test {p.test_accuracy:.4f}"
        return f"epoch {p.epoch}/{self.epochs}  {_numbers(p)}{test}"


def _numbers(p: trainer.Progress) -> str:
    return (
        f"loss {p.loss:.4f}  accuracy {p.accuracy:.4f}  {p.samples_per_second:,.0f} samples/s  "
        f"arena peak {p.peak_bytes:,} bytes"
    )


class PhaseDisplay:
    """Watches an analysis: a bar with the time that is left of each phase, a line when it ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[last]}"), TimeRemainingColumn(), console=console,
            disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> PhaseDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, p: AnalysisProgress) -> None:
        if p.phase not in self._tasks:
            self._tasks[p.phase] = self._bar.add_task(p.phase, total=p.total, last="")
            self._started[p.phase] = time.perf_counter()
        last = "" if p.record is None else f"{p.record['run']}: {p.record['accuracy']:.1%}"
        self._bar.update(self._tasks[p.phase], completed=p.done, total=p.total, last=last)
        if p.done == p.total and p.total:
            seconds = time.perf_counter() - self._started[p.phase]
            reused = f", {p.reused} of them kept from before" if p.reused else ""
            self.console.print(f"{p.phase}: {p.total} runs in {seconds:.0f} s{reused}", highlight=False)
            self._bar.remove_task(self._tasks.pop(p.phase))
