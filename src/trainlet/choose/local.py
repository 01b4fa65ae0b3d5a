"""Trials in processes of this machine. A worker that dies costs the trial in its hands, which is run
again."""

from __future__ import annotations

import copyreg
import json
import os
import pickle
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trainlet
from trainlet.choose.task import Task
from trainlet.choose.trials import Run, Trial, Trials
from trainlet.errors import AnalysisError, TrainletError

ATTEMPTS = 3  # of one run, before the analysis gives up


def proxy(items: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """A read-only mapping anew; graphs hold these, and pickle has to be told how to make them."""
    return MappingProxyType(items)


copyreg.pickle(MappingProxyType, lambda m: (proxy, (dict(m),)))  # type: ignore[arg-type]


class LocalPool:
    """`jobs` worker processes, or with one job this process. `folder` holds what they share."""

    def __init__(self, task: Task, folder: Path, jobs: int) -> None:
        self.task, self.folder, self.jobs = task, folder, jobs
        self._workers: list[_Worker] = []
        self._here = Trials(task, folder) if jobs == 1 else None
        if jobs > 1:
            (folder / "task.pickle").write_bytes(pickle.dumps(task))

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *error: object) -> None:
        for w in self._workers:
            w.stop()

    def run(self, runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Each run with its record, as they end. Raises AnalysisError where a run fails or keeps dying."""
        if self._here is not None:
            yield from ((run, self._here(run)) for run in runs)
            return
        waiting, attempts = deque(runs), dict.fromkeys(runs, 0)
        selector = selectors.DefaultSelector()
        idle = [w for w in self._workers if w.alive]
        busy = 0
        while waiting or busy:
            while waiting and busy < self.jobs:
                w = idle.pop() if idle else self._start()
                w.give(waiting.popleft())
                selector.register(w.output, selectors.EVENT_READ, w)
                busy += 1
            for key, _ in selector.select():
                w = key.data
                selector.unregister(w.output)
                run, answer, busy = w.run, w.answer(), busy - 1
                assert run is not None
                if answer is None:
                    attempts[run] += 1
                    self._workers.remove(w)
                    if attempts[run] == ATTEMPTS:
                        raise AnalysisError(
                            f"the worker died {ATTEMPTS} times at {run.key}: too little memory?"
                        )
                    waiting.appendleft(run)
                    continue
                idle.append(w)
                if "error" in answer:
                    raise AnalysisError(f"trial {run.key}: {answer['error']}")
                yield run, answer["record"]

    def _start(self) -> _Worker:
        self._workers.append(_Worker(self.folder))
        return self._workers[-1]


class _Worker:
    def __init__(self, folder: Path) -> None:
        paths = [str(Path(trainlet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainlet.choose.local", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
            start_new_session=True,  # ctrl-C is for the parent to handle
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.run: Run | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def give(self, run: Run) -> None:
        self.run = run
        try:
            self.input.write(json.dumps(asdict(run)).encode() + b"\n")
            self.input.flush()
        except BrokenPipeError:
            pass  # it died: its output says so

    def answer(self) -> dict[str, Any] | None:
        """None where the worker died."""
        line = self.output.readline()
        if not line.endswith(b"\n"):
            self.stop()
            return None
        return json.loads(line)  # type: ignore[no-any-return]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.input.close()
        self.output.close()


def run_of(raw: dict[str, Any]) -> Run:
    return Run(Trial(**raw["trial"]), raw["epochs"], raw["seed"], raw["lr"], raw["head_lr"])


def serve(folder: Path) -> None:
    """A worker's life: a run a line on stdin, its record a line on what was stdout."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints does not disturb the answers
    do = Trials(pickle.loads((folder / "task.pickle").read_bytes()), folder)
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"record": do(run_of(json.loads(line)))}
        except TrainletError as error:
            answer = {"error": str(error)}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # nobody waits for it any more
            os._exit(1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
