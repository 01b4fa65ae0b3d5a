"""Activations at the cuts of a network, one file a cut, each computed from the nearest earlier one.

All trials whose frozen prefix ends at the same cut share a file, and no sample passes through a layer twice:
the forward pass over the frozen network is done once for the whole analysis.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from trainlet.api import Settings, build
from trainlet.choose.structure import cuts, last_cut_before, tail
from trainlet.choose.task import Task
from trainlet.data import Samples
from trainlet.data.transform import InputTransform
from trainlet.errors import AnalysisError
from trainlet.ir import Graph, Value
from trainlet.ir.graph import DTYPES
from trainlet.runtime.host import HostProgram
from trainlet.scheme import UpdateScheme, layers
from trainlet.scheme.scheme import Channels

LIMIT_BYTES = 4 * 2**30


class Boundaries:
    """Cached activations of a task's rows in a folder that several processes may share.

    A cut whose file would take the folder over `limit_bytes` is left out: trials that need it start from an
    earlier one, with the same result.
    """

    def __init__(self, task: Task, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.task, self.folder, self.limit_bytes = task, folder, limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def graph(self) -> Graph:
        return self.task.network(self.task.settings.seed)

    @cached_property
    def used(self) -> list[Value]:
        """The network's input, and from its end on the cuts that a layer starts from and that fit the
        limit."""
        places = cuts(self.graph)
        wanted = {last_cut_before(self.graph, places, {layer.weight.name}) for layer in layers(self.graph)}
        kept, total = [], 0
        for i in sorted(wanted - {0}, reverse=True):
            total += len(self.task.rows) * places[i].bytes
            if total <= self.limit_bytes:
                kept.append(places[i])
        return [places[0], *kept[::-1]]

    def cut_for(self, trained: set[str]) -> int:
        """Index in `used` of the last cut before the first of the constants `trained`."""
        return last_cut_before(self.graph, self.used, trained)

    def samples(self, index: int) -> tuple[Samples, Samples]:
        """What the rows to fit and those to validate are at a cut."""
        value, n = self.used[index], len(self.task.fit)
        x = self.task.data.x_train
        if index == 0:
            return tuple(  # type: ignore[return-value]
                Samples(x.stored[rows], x.transform, x.image_size, x.resize_to)
                for rows in (self.task.fit, self.task.validate)
            )
        stored = self._file(index)
        transform = InputTransform(value.dtype, value.quant)
        return Samples(stored[:n], transform), Samples(stored[n:], transform)

    def _file(self, index: int) -> np.ndarray:
        path = self.folder / f"cut{index}.npy"
        if not path.exists():
            with _locked(self.folder / f"cut{index}.lock"):
                if not path.exists():
                    self._compute(index, path)
        return np.load(path, mmap_mode="r")

    def _compute(self, index: int, path: Path) -> None:
        """Run the layers between the nearest cut that is there and this one, by the emitted program."""
        start = max(i for i in range(index) if i == 0 or (self.folder / f"cut{i}.npy").exists())
        value, host = self.used[index], self._program_to(index, start)
        parts, at = self.samples(start), 0
        partial = path.with_suffix(".partial")
        out = np.lib.format.open_memmap(
            partial, "w+", DTYPES[value.dtype][0], (len(self.task.rows), *value.shape[1:])
        )
        for part in parts:
            for i in range(len(part)):
                row = host.prefix("step", part.batch(np.array([i])))
                out[at] = row.view(out.dtype).reshape(value.shape[1:])
                at += 1
        out.flush()
        partial.replace(path)

    def _program_to(self, index: int, start: int) -> HostProgram:
        """A program whose step begins with the layers between two cuts, frozen. (predict may stream across
        a cut.)"""
        behind = [x for x in layers(self.graph) if self.cut_for({x.weight.name}) >= index]
        network, name = tail(self.graph, self.used[start]), self.used[index].name
        for trained in (behind[:1], behind):  # where paths part behind the cut, the first layer is not enough
            scheme = UpdateScheme("boundary", {x.weight.name: Channels(share=1.0) for x in trained})
            host = build(network, Settings(scheme, "nearest"))
            found = [v["name"] for v in host.manifest["functions"]["step"]["boundary"]]
            if found == [name]:
                return host
        raise AnalysisError(
            f"{self.graph.name} cannot be cut at {name}: {', '.join(found)} live there together"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock of a process that dies is free."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
