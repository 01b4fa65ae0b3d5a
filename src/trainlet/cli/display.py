"""What `train` shows: a bar in a terminal, elsewhere one line an epoch."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainlet.runtime import trainer


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
