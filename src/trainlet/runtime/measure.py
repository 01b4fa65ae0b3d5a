"""What a program really touches: paint its memory, run it, look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainlet.runtime.host import HostProgram

PAINTS = (0xA5, 0x5A)  # two, so that a byte the program happens to write with one is seen by the other


def touched(host: HostProgram, memory: str, run: Callable[[], object]) -> int:
    """Bytes of "arena" or "scratch" from its start to the last one that `run` writes.

    The program's memory is put back afterwards.
    """
    before = host.memory.copy()
    changed = np.zeros(host.region(memory).size, bool)
    for paint in PAINTS:
        host.region(memory)[:] = paint
        run()
        changed |= host.region(memory) != paint
        host.memory[:] = before
    where = np.flatnonzero(changed)
    return int(where[-1]) + 1 if len(where) else 0


def peak_arena_bytes(host: HostProgram, samples: np.ndarray, labels: np.ndarray) -> int:
    """Measured arena peak over predict and one training call on a batch."""
    main = host.training_function

    def train() -> None:
        if main == "step":
            host.step(samples, labels, 0.0)
        else:
            host.accumulate(samples, labels)

    return max(touched(host, "arena", train), touched(host, "arena", lambda: host.predict(samples[:1])))
