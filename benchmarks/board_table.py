"""RAM, flash and instructions on an emulated board, exact: `python -m benchmarks.board_table [--board B]`.

Published schemes of three networks, stochastic master, batch 1, two training steps each, compared
with this machine bit for bit; and the MLPerf Tiny models with a new head trained alone. Each with its image
in the arena, and by rows, where it has rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from trainlet import api
from trainlet.device import EmulationReport, emulate
from trainlet.errors import SchemeError, TrainletError

SCHEMES = ("mcunet-5fps:49kb", "mcunet-5fps:99kb", "mbv2-w0.35:99kb", "proxyless-w0.3:98kb")
PLACES = {"arena": "in the arena", "rows": "by rows"}
HEADER = ("program", "input", "RAM with stack", "flash", "predict, M", "step, M", "forward, M", "same bits")
LEFT = 2  # columns of text


def emulated(model: Path, scheme: str, board: str, place: str) -> EmulationReport:
    """Two steps on random samples: counts do not depend on the data."""
    settings = api.Settings(scheme=scheme, master="stochastic", classes=10, input=place)
    with tempfile.TemporaryDirectory() as folder:
        api.emit(model, settings, folder, board=board)
        shape = api.load(model).inputs[0].shape[1:]
        x = np.random.default_rng(0).integers(-128, 128, (2, *shape)).astype(np.int8)
        return emulate(folder, board, (x, np.array([1, 2], np.int32)), 2, lr=0.001)


def row(name: str, place: str, report: EmulationReport) -> tuple[str, ...]:
    n = report.as_dict()["instructions"]
    millions = (f"{n[k] / 1e6:.1f}" for k in ("predict", "step", "step_forward"))
    same = "yes" if report.difference is None else f"NO: {report.difference}"
    memory = (f"{report.memory.ram_bytes:,}", f"{report.memory.flash_bytes:,}")
    return (name, PLACES[place], *memory, *millions, same)


def programs(shared: Path) -> list[tuple[str, Path, str]]:
    """(name, model file, scheme)."""
    found = [(s, shared / "reference/models" / f"{s.split(':')[0]}.json", s) for s in SCHEMES]
    tiny = sorted((shared / "data/mlperf_tiny").rglob("*.tflite"))
    return found + [(f"{p.stem}, head", p, "head") for p in tiny if quantized(p)]


def quantized(model: Path) -> bool:
    """The folder also holds float versions, which only ONNX can bring."""
    try:
        api.load(model)
    except TrainletError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--board", default="stm32f746")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    args = parser.parse_args()
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * LEFT + "---:|" * (len(HEADER) - LEFT))
    for name, model, scheme in programs(args.shared):
        for place in PLACES:
            try:
                cells = row(name, place, emulated(model, scheme, args.board, place))
            except SchemeError:  # its input has no rows, or is needed whole
                cells = (name, PLACES[place], *["-"] * (len(HEADER) - LEFT))
            except TrainletError as error:
                cells = (name, PLACES[place], str(error), *[""] * (len(HEADER) - LEFT - 1))
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
