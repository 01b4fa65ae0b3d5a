"""A small program for boards, and which emulators there are."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.host.programs import built, network, samples
from trainlet.device import Board, board
from trainlet.device.engine import choose_engine
from trainlet.errors import BackendError

ENGINES = ("unicorn", "qemu")


def available(engine: str, on: str | Board) -> None:
    """Skip where an emulator is not installed; under CI that is a failure (QEMU: for root)."""
    part = board(on)
    if getattr(part, engine) is None:
        pytest.skip(f"{part.name} has no [{engine}]")
    try:
        choose_engine(part, engine)
    except BackendError as error:
        if os.environ.get("CI") and (engine == "unicorn" or os.geteuid() == 0):
            pytest.fail(str(error))
        pytest.skip(str(error))


def small(folder, name="residual", int8=True, batch=1, **settings):
    """(planned program, folder of its sources, samples, labels)."""
    graph = network(name, int8)
    defaults = {"scheme": "full", "master": "stochastic" if int8 else "fp32", "batch": batch}
    program, sources = built(graph, folder, **{**defaults, **settings})
    x = samples(graph, 4)
    return program, sources, x, np.arange(4) % graph.outputs[0].shape[-1]
