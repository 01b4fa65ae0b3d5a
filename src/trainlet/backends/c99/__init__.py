"""Readable C99: a straight list of kernel calls with constant arguments."""

from trainlet.backends.c99 import (  # noqa: F401  (they fill the table)
    convolution,
    hidden,
    norm,
    pointwise,
    shapes,
    stream,
    update,
)
from trainlet.backends.c99.emit import emit, write_host_sources, write_sources
from trainlet.backends.c99.writer import BOARD_LANES, HOST_LANES, KERNELS, scratch_bytes

__all__ = [
    "BOARD_LANES",
    "HOST_LANES",
    "KERNELS",
    "emit",
    "scratch_bytes",
    "write_host_sources",
    "write_sources",
]
