"""Person or not, learnt by a board: `python -m benchmarks.person_detection`.

mcunet-5fps with a new head for two classes, int8 weights rounded stochastically, batch 1, one epoch of
warm-up and ten more (arXiv:2206.15472's setting), for stm32f746. Three things are found out:

1. Accuracy of whole trainings, run on this machine, by scheme; the rate is chosen on a fifth of the
training images.
2. What it takes: exact instructions of a few steps, projected to the board's clock.
3. Whether the board computes the same: the whole training of 49kb that ten minutes of the board allow, one
pass over as many images, runs as firmware in QEMU. Losses, outputs and trained parameters are compared with
this machine's, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import ROOT, markdown
from trainlet import api
from trainlet.data import Dataset, Samples
from trainlet.device import EmulationReport, board, build_firmware, emulate, firmware
from trainlet.device.counting import Call
from trainlet.device.emulate import Job, compare, decode, program_sources, run_host
from trainlet.device.engine_qemu import run_qemu
from trainlet.errors import TrainingError
from trainlet.runtime.host import HostProgram
from trainlet.runtime.trainer import Progress, TrainConfig, Trainer
from trainlet.train.schedule import learning_rate

SHARED = Path(os.environ.get("TRAINLET_SHARED", ROOT.parent / "shared"))
MODEL = SHARED / "reference/models/mcunet-5fps.json"
DATA = SHARED / "data/person_cifar/person_cifar.npz"
BOARD, EPOCHS, WARMUP, SEED, COUNTED_STEPS = "stm32f746", 11, 1, 0, 3
PUBLISHED_S = 600  # "10 minutes" for a full training run of person detection
# scheme -> rates to choose from; a single one is what docs/image-adaptation.md found at batch 1
SCHEMES: dict[str, tuple[float, ...]] = {
    "head": (0.003125, 0.00625, 0.0125),
    "mcunet-5fps:49kb": (0.003125,),
}
EMULATED = "mcunet-5fps:49kb"  # whose ten minutes run as firmware


@dataclass(frozen=True)
class Cost:
    """Of a program on the board: exact counts of COUNTED_STEPS steps, each on another image.

    prefix: what a step does before anything that training changes; a sample whose boundary is kept skips it.
    """

    ram_bytes: int
    flash_bytes: int
    step_instructions: tuple[int, ...]
    step_extra_words: tuple[int, ...]
    prefix_instructions: int
    prefix_extra_words: int
    boundary_bytes: int

    def step_ms(self) -> float:
        means = np.mean(self.step_instructions), np.mean(self.step_extra_words)
        return board(BOARD).milliseconds(*map(float, means))

    def replay_ms(self) -> float:
        """Of a step that skips the prefix."""
        return self.step_ms() - board(BOARD).milliseconds(self.prefix_instructions, self.prefix_extra_words)


class Results:
    """What was found so far, as JSON: a run goes on where the one before it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def find(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self.values:
            started = time.perf_counter()
            self.values[key] = make()
            print(f"{key}: {self.values[key]}  ({time.perf_counter() - started:.0f} s)", flush=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.values, indent=1))
        return self.values[key]


def sources(scheme: str, folder: Path) -> tuple[Path, Path]:
    """The program for this machine, and for the board: other kernels, the same bits."""
    settings, name = api.Settings(scheme, "stochastic", classes=2, seed=SEED), scheme.replace(":", "-")
    here = api.emit(MODEL, settings, folder / f"{name}-here")
    return here, api.emit(MODEL, settings, folder / f"{name}-{BOARD}", board=BOARD)


def rows_of(data: Dataset, train: np.ndarray, test: np.ndarray | None = None) -> Dataset:
    """Some of the training samples; with `test` others of them take the place of the test samples."""

    def pick(samples: Samples, rows: np.ndarray) -> Samples:
        return Samples(samples.stored[rows], samples.transform, samples.image_size, samples.resize_to)

    x, y = data.x_train, data.y_train
    if test is not None:
        data = replace(data, x_test=pick(x, test), y_test=y[test])
    return replace(data, x_train=pick(x, train), y_train=y[train])


def chosen_rate(program: Path, data: Dataset, rates: tuple[float, ...]) -> dict[str, Any]:
    """The rate of the highest accuracy on every fifth training image, after 3 epochs on the others."""
    if len(rates) == 1:
        return {"rate": rates[0], "validation": None}
    rows = np.arange(len(data.x_train))
    split = rows_of(data, rows[rows % 5 != 0], rows[rows % 5 == 0])
    trainer = Trainer(HostProgram(program), split, TrainConfig(3, rates[0], 0.3, SEED, evaluate_every=3))
    found = {str(rate): again(trainer, rate) for rate in rates}
    return {"rate": max(rates, key=lambda rate: found[str(rate)]), "validation": found}


def again(trainer: Trainer, rate: float) -> float:
    """Accuracy of one more run, from the factory state; 0 where it diverges."""
    trainer.host.init()
    trainer.config, trainer.epoch = replace(trainer.config, lr=rate), 0
    try:
        return trainer.run().accuracy_after
    except TrainingError:
        return 0.0


def trained(program: Path, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """A whole training."""
    result = Trainer(HostProgram(program), data, config).run()
    return {
        "before": result.accuracy_before, "after": result.accuracy_after, "loss": result.loss_per_epoch,
        "seconds": round(result.seconds, 1),
    }  # fmt: skip


class Enough(Exception):
    """Ends a training early."""


def state_after(steps: int, program: Path, data: Dataset, config: TrainConfig) -> bytes:
    """What that training has made of the state after its first steps."""
    host = HostProgram(program)

    def watch(p: Progress) -> None:
        if p.step == steps:
            raise Enough

    try:
        Trainer(
            host, replace(data, x_test=rows_of(data, np.arange(1)).x_train, y_test=data.y_train[:1]), config
        ).run(watch)
    except Enough:
        return host.region("state").tobytes()
    raise ValueError(f"an epoch has no {steps} steps")


def first_steps(data: Dataset, config: TrainConfig, steps: int) -> Job:
    """The first steps of a training of batch 1, as the trainer takes them."""
    per_epoch = len(data.x_train)
    order = np.random.default_rng([config.seed, 0]).permutation(per_epoch)[:steps]
    warmup = config.epochs / 10 if config.warmup_epochs is None else config.warmup_epochs
    rates = [learning_rate(i, per_epoch, config.epochs, config.lr, warmup) for i in range(steps)]
    x = np.ascontiguousarray(data.x_train.batch(order))[:, None]
    return Job(x, data.y_train[order].astype(np.int32)[:, None], np.array(rates, np.float32), 1, SEED)


def emulated(program: Path, job: Job, folder: Path, state: bytes) -> dict[str, Any]:
    """The first steps as firmware in QEMU against this machine; its state also against the training's."""
    part = board(BOARD)
    assert part.qemu is not None
    source, offsets = program_sources(program, folder / "unused")
    image = build_firmware(source, part, folder / "firmware", firmware.on_machine(part), "auto", offsets)
    started, cpu = time.perf_counter(), os.times().children_user
    run = run_qemu(image, part.qemu, job.encode(), folder / "firmware", 4 * 3600, counted=False)
    wall, cpu = time.perf_counter() - started, os.times().children_user - cpu
    device, _ = decode(run.result, image.manifest, len(job.lr))
    difference = compare(run_host(source, part, job), device, image.manifest)
    return {
        "steps": len(job.lr), "difference": difference,
        "state_is_the_training's": device.state.tobytes() == state,
        "first_loss": float(device.losses[0]), "mean_loss_of_last_100": float(device.losses[-100:].mean()),
        "wall_s": round(wall, 1), "cpu_s": round(cpu, 1),
    }  # fmt: skip


def on_board(here: Path, there: Path, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """A whole epoch on the board against this machine's and against the training's own state."""
    steps = len(data.x_train)
    return emulated(
        there, first_steps(data, config, steps), there.parent, state_after(steps, here, data, config)
    )


def cost(program: Path, data: Dataset) -> Cost:
    """Counts of a few steps, and of their frozen prefix."""
    rows = np.arange(COUNTED_STEPS)
    samples = np.ascontiguousarray(data.x_train.batch(rows)), data.y_train[rows].astype(np.int32)
    report = emulate(program, BOARD, samples, COUNTED_STEPS, lr=0.001)
    assert report.identical, report.difference
    step = json.loads((program / "program.json").read_text())["functions"]["step"]
    prefix = prefix_calls(report, program)
    return Cost(
        report.memory.ram_bytes,
        report.memory.flash_bytes,
        tuple(region.instructions for region in report.steps),
        tuple(region.extra_words for region in report.steps),
        sum(call.instructions for call in prefix),
        sum(call.extra_words for call in prefix),
        sum(v["bytes"] for v in step["boundary"]),
    )


def prefix_calls(report: EmulationReport, program: Path) -> list[Call]:
    """The kernel calls that the emitted step_prefix makes; they are the first ones of a step."""
    source = next(program.glob("*_data.c")).name.replace("_data.c", ".c")
    body = (program / source).read_text().split("static void step_prefix(")[1].split("\n}\n")[0]
    wanted = re.findall(r"^    (tl_\w+)\(", body, re.MULTILINE)
    calls = [c for c in report.steps[-1].calls if c.name.startswith("tl_")][: len(wanted)]
    assert [c.name for c in calls] == wanted, (calls, wanted)
    return calls


def measure(results: Results) -> dict[str, Any]:
    folder = results.path.parent / "person_detection"
    data = api.load_dataset(api.load(MODEL), DATA, classes=2)
    for scheme, rates in SCHEMES.items():
        here, there = sources(scheme, folder)
        rate = results.find(f"{scheme} rate", lambda: chosen_rate(here, data, rates))["rate"]  # noqa: B023
        spent = Cost(**results.find(f"{scheme} counts", lambda: asdict(cost(there, data))))  # noqa: B023
        config = TrainConfig(EPOCHS, rate, WARMUP, SEED, evaluate_every=EPOCHS)
        results.find(f"{scheme} trained", lambda: trained(here, data, config))  # noqa: B023
        images = min(len(data.x_train), int(PUBLISHED_S * 1000 / spent.step_ms()))
        few, short = (
            rows_of(data, np.arange(images)),
            replace(config, epochs=1, warmup_epochs=0.1, evaluate_every=1),
        )
        results.find(f"{scheme} ten minutes", lambda: trained(here, few, short) | {"images": images})  # noqa: B023
        if scheme == EMULATED:
            results.find(f"{scheme} on the board", lambda: on_board(here, there, few, short))  # noqa: B023
    return results.values


def text(found: dict[str, Any]) -> str:
    """The tables."""
    rows, steps = [], EPOCHS * 3600
    for scheme in SCHEMES:
        if f"{scheme} ten minutes" not in found:
            continue
        c, t = Cost(**found[f"{scheme} counts"]), found[f"{scheme} trained"]
        short, mean = found[f"{scheme} ten minutes"], float(np.mean(c.step_instructions))
        replayed = (steps * c.replay_ms() + 3600 * (c.step_ms() - c.replay_ms())) / 60e3
        rows.append((
            scheme, f"{found[f'{scheme} rate']['rate']:g}", f"{t['before']:.1%}", f"{t['after']:.1%}",
            f"{c.ram_bytes:,}", f"{mean / 1e6:.2f}", f"{c.step_ms():.0f}",
            f"{steps * c.step_ms() / 60e3:.0f}",
            f"{replayed:.0f}", f"{short['images']:,}", f"{short['after']:.1%}",
        ))  # fmt: skip
    header = (
        "scheme", "rate", "before", "after 11 epochs", "RAM", "step, M", "step, ms", "11 epochs, min",
        "with replay, min", "images in 10 min", "after 10 min",
    )  # fmt: skip
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "person_detection.json")
    args = parser.parse_args()
    found = measure(Results(args.json))
    print(text(found), f"\n{board(BOARD).assumption}")
    print(found[f"{EMULATED} on the board"])


if __name__ == "__main__":
    main()
