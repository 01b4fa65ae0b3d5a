"""Where the time of a training call goes: least microseconds of every step of a CPU program."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainlet.runtime.host import HostProgram
from trainlet.runtime.toolchain import build_flags

if TYPE_CHECKING:
    from trainlet.plan.program import Program

STEPS = 8192  # TL_PROFILE_STEPS


class Profile:
    """A program of backends/cpu in `folder`, built so that it times its own steps.

    Times are the least processor time of the calling thread, so that other load disturbs little; with more
    than one thread a step's time includes the wait for the others.
    """

    def __init__(self, program: Program, folder: Path) -> None:
        flags = (*build_flags(json.loads((folder / "program.json").read_text())["build"]), "-DTL_PROFILE")
        self._host = HostProgram(folder, flags, native=False)
        x, y = program.main.graph.inputs[:2]
        self._samples = np.random.default_rng(0).normal(0, 1, x.shape).astype(np.float32)
        self._labels = np.zeros(y.shape, np.int32 if y.dtype == "s32" else np.float32)
        if y.dtype == "s32":
            self._labels[:] = np.arange(y.size).reshape(y.shape) % self._host.classes

    def run(self, rounds: int) -> None:
        """So many training calls, at rate 0."""
        for _ in range(rounds):
            if self._host.training_function == "step":
                self._host.step(self._samples, self._labels, 0.0)
            else:
                self._host.accumulate(self._samples, self._labels)

    def least_us(self) -> np.ndarray:
        """By number of the step in the program, all functions counted: 0 where it never ran by itself."""
        least = (ctypes.c_uint64 * STEPS).in_dll(self._host._library, "tl_profile_least")
        return np.array(least, np.float64) / 1e3


def first_step(program: Program) -> int:
    """Number of the training function's first step."""
    before = 0
    for function in program.functions.values():
        if function is program.main:
            break
        before += len(function.graph.nodes)
    return before
