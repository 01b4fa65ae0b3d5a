"""Microcontrollers: boards, firmware around an emitted program, and training on an emulated board."""

from __future__ import annotations

from trainlet.device.board import Board, board, board_lines, boards, read_board
from trainlet.device.build import build_firmware
from trainlet.device.emulate import FaultError, emulate
from trainlet.device.power_cut import PowerCutReport, power_cuts
from trainlet.device.report import EmulationReport, report_lines

__all__ = [
    "Board", "EmulationReport", "FaultError", "PowerCutReport", "board", "board_lines", "boards",
    "build_firmware", "emulate", "power_cuts", "read_board", "report_lines",
]  # fmt: skip
