"""Adapt a published int8 network to new images, with the update rounded as a device would have to.

One run, the training program compiled for this machine:

    python examples/image_adaptation.py --data cifar10 --model mcunet-5fps --scheme 99kb --master residual \\
        --epochs 8 --batch 32 --lr 0.0125

The tables of docs/image-adaptation.md (about an hour on two cores; run it again to go on where it stopped):

    python examples/image_adaptation.py --table

Data and models are looked for in the folder `shared` beside the checkout; any .npz, folder or zip of images
and any model that trainlet reads will do as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean

import numpy as np

from trainlet import api
from trainlet.data import Dataset, Samples
from trainlet.errors import TrainingError, TrainletError
from trainlet.runtime.trainer import Progress, TrainConfig, Trainer, TrainResult

ROOT = Path(__file__).resolve().parents[1]
DATA = {"cifar10": "data/cifar10/cifar10.npz", "caltech101": "data/caltech101/caltech101_128.zip"}
IMAGES = {"cifar10": 3000}  # training images used, the first ones; all where nothing is said
EPOCHS = {"cifar10": 8, "caltech101": 12}
SCHEMES = ("head", "bias-only:22", "49kb", "99kb", "last:12")
BATCH1_SCHEMES = ("49kb", "99kb")
# The middle one of three candidate rates, each twice the one before; where the best of them is at an end, the
# next rate beyond is tried too. Multiples of the published 0.0125 at batch 32; a head alone is convex and
# bears more; at batch 1 the linear rule divides by 32.
RATE, HEAD_RATE, BATCH1_RATE = 0.025, 0.2, 4 * 0.0125 / 32
MOST_RATES = 7
SEARCH_SHARE = 0.5  # of the epochs, for a candidate rate
VALIDATION_SHARE = 0.2  # of the training images of each class, while rates are compared
MARK = "<!-- table -->\n"


@dataclass(frozen=True)
class Row:
    """One cell of a table: what is trained, and how. `data` and `model` as on the command line."""

    data: str
    model: str
    scheme: str
    master: str
    batch: int
    epochs: int
    seed: int = 0

    @property
    def middle_rate(self) -> float:
        if self.scheme == "head":
            return HEAD_RATE
        return BATCH1_RATE if self.batch == 1 else RATE


def shared() -> Path:
    """The folder of data and models: beside the checkout, or where TRAINLET_SHARED says."""
    return Path(os.environ.get("TRAINLET_SHARED") or ROOT.parent / "shared")


def model_path(name: str) -> Path:
    """The model at a path, or else the published one of that name."""
    return Path(name) if Path(name).is_file() else shared() / "reference" / "models" / f"{name}.json"


@cache
def load_images(data: str, model: str) -> Dataset:
    """The data set for a network's input, kept: its images are resized once a process."""
    path = shared() / DATA[data] if data in DATA else Path(data)
    whole = api.load_dataset(api.load(model_path(model)), path)
    return first_images(whole, IMAGES.get(data, len(whole.x_train)))


def rows_of(samples: Samples, rows: np.ndarray) -> Samples:
    """The samples at `rows`, as a set of its own."""
    return Samples(samples.stored[rows], samples.transform, samples.image_size, samples.resize_to)


def first_images(data: Dataset, count: int) -> Dataset:
    """The data set with its first `count` training images only."""
    rows = np.arange(min(count, len(data.x_train)))
    return replace(data, x_train=rows_of(data.x_train, rows), y_train=data.y_train[rows])


@cache
def validation_split(data: str, model: str) -> Dataset:
    """The training images alone: VALIDATION_SHARE of each class takes the place of the test images."""
    whole = load_images(data, model)
    rng, held = np.random.default_rng(0), np.zeros(len(whole.x_train), bool)
    for label in np.unique(whole.y_train):
        rows = rng.permutation(np.flatnonzero(whole.y_train == label))
        held[rows[: round(VALIDATION_SHARE * len(rows))]] = True
    fit, validate = np.flatnonzero(~held), np.flatnonzero(held)
    return Dataset(
        rows_of(whole.x_train, fit),
        whole.y_train[fit],
        rows_of(whole.x_train, validate),
        whole.y_train[validate],
        whole.class_names,
        f"{VALIDATION_SHARE:.0%} of the training images of each class",
    )


def again(trainer: Trainer, config: TrainConfig) -> Trainer:
    """The trainer with its program back in factory state. What lies behind the frozen prefix stays cached."""
    trainer.host.init()
    trainer.config, trainer.epoch, trainer.result = config, 0, TrainResult()
    return trainer


def trainer_of(row: Row, data: Dataset) -> Trainer:
    """The row's program, built for this machine, on a data set."""
    settings = api.Settings(
        row.scheme, row.master, batch=row.batch, classes=api.classes_of(data), seed=row.seed
    )
    config = TrainConfig(row.epochs, 1.0, seed=row.seed, evaluate_every=row.epochs)
    return Trainer(api.build(model_path(row.model), settings), data, config)


def run_at(trainer: Trainer, lr: float, epochs: int) -> dict[str, float | None]:
    """Accuracy, last training loss and seconds of one run; no loss where it became NaN."""
    config = replace(trainer.config, lr=lr, epochs=epochs, evaluate_every=epochs)
    try:
        result = again(trainer, config).run()
    except TrainingError:
        return {"accuracy": 0.0, "loss": None, "seconds": None}
    return {
        "accuracy": result.accuracy_after,
        "loss": result.loss_per_epoch[-1],
        "seconds": round(result.seconds, 1),
    }


# ---------------------------------------------------------------------------------------- the table


class Log:
    """Finished runs, one JSON line each; a line is there once its run is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[dict]:
        text = self.path.read_text() if self.path.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def find(self, row: Row, part: str, lr: float) -> dict | None:
        """The record of a row's validation or test run at a rate."""
        want = {**asdict(row), "part": part, "lr": lr}
        return next((r for r in self.records() if all(r.get(k) == v for k, v in want.items())), None)

    def append(self, row: Row, part: str, lr: float, result: dict) -> dict:
        record = {**asdict(row), "part": part, "lr": lr, **result}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:  # one short write to a file opened to append: processes do not mix
            file.write(json.dumps(record) + "\n")
        return record


def finish(row: Row, path: Path) -> dict:
    """Choose the row's rate on the validation images, train with it on all, test; but for what is logged."""
    log = Log(path)
    lr = best_rate(replace(row, seed=0), log)
    if done := log.find(row, "test", lr):
        return done
    trainer = trainer_of(row, load_images(row.data, row.model))
    return log.append(row, "test", lr, run_at(trainer, lr, row.epochs))


def search_epochs(row: Row) -> int:
    """Epochs of a run that tries a rate."""
    return max(1, round(SEARCH_SHARE * row.epochs))


def best_rate(row: Row, log: Log) -> float:
    """The candidate of highest validation accuracy, after running those that are not logged yet."""
    trainer: Trainer | None = None
    while (lr := next_rate(row, log)) is not None:
        trainer = trainer or trainer_of(row, validation_split(row.data, row.model))
        log.append(row, "validation", lr, run_at(trainer, lr, search_epochs(row)))
    return rates_tried(row, log)[0]


def rates_tried(row: Row, log: Log) -> list[float]:
    """Best first, by validation accuracy; of equals the smaller one. A run that diverged is the worst.

    It did where its last epoch's training loss is above that of guessing.
    """
    guessing = math.log(api.classes_of(load_images(row.data, row.model)))

    def score(record: dict) -> tuple[float, float]:
        diverged = record["loss"] is None or record["loss"] > guessing
        return (0.0 if diverged else -record["accuracy"], record["lr"])

    want = {**asdict(replace(row, seed=0)), "part": "validation"}
    found = [r for r in log.records() if all(r.get(k) == v for k, v in want.items())]
    return [r["lr"] for r in sorted(found, key=score)]


def next_rate(row: Row, log: Log) -> float | None:
    """The candidate to try next: one of the three, or one beyond the end at which the best lies."""
    tried = rates_tried(row, log)
    for lr in (row.middle_rate / 2, row.middle_rate, 2 * row.middle_rate):
        if lr not in tried:
            return lr
    if len(tried) >= MOST_RATES or min(tried) < tried[0] < max(tried):
        return None
    return tried[0] / 2 if tried[0] == min(tried) else 2 * tried[0]


def tested(row: Row, log: Log) -> dict | None:
    """The row's test run at its best rate; None where the search or the run is still to be done."""
    return None if next_rate(row, log) is not None else log.find(row, "test", rates_tried(row, log)[0])


def masters_of(scheme: str, masters: Sequence[str]) -> Sequence[str]:
    """The head is float whatever the master, so one run of it stands for all."""
    return masters[:1] if scheme == "head" else masters


def cifar_rows(model: str, seeds: Iterable[int]) -> Iterator[Row]:
    for seed in seeds:
        for scheme in SCHEMES:
            for master in masters_of(scheme, api.MASTERS):
                yield Row("cifar10", model, scheme, master, 32, EPOCHS["cifar10"], seed)


def batch1_rows(model: str, seeds: Iterable[int]) -> Iterator[Row]:
    for seed in seeds:
        for scheme in BATCH1_SCHEMES:
            for master in api.MASTERS:
                yield Row("cifar10", model, scheme, master, 1, EPOCHS["cifar10"], seed)


def caltech_rows(model: str, masters: Sequence[str], seeds: Iterable[int]) -> Iterator[Row]:
    for seed in seeds:
        for scheme in SCHEMES:
            for master in masters_of(scheme, masters):
                yield Row("caltech101", model, scheme, master, 32, EPOCHS["caltech101"], seed)


def best_integer_master(log: Log, model: str) -> str:
    """The integer master of highest mean accuracy on cifar10 at batch 32."""

    def score(master: str) -> float:
        found = [tested(row, log) for row in cifar_rows(model, [0]) if row.master == master]
        return mean(record["accuracy"] if record else 0.0 for record in found)

    return max((m for m in api.MASTERS if m != "fp32"), key=score)


def run_table(model: str, jobs: int, path: Path, seeds: Sequence[int]) -> None:
    """Every run of the tables that is not in the log yet, `jobs` at a time."""
    first = [*cifar_rows(model, seeds), *caltech_rows(model, ("fp32",), seeds), *batch1_rows(model, seeds)]
    work(first, jobs, path)
    master = best_integer_master(Log(path), model)
    work([r for r in caltech_rows(model, ("fp32", master), seeds) if r.master == master], jobs, path)


def work(rows: Sequence[Row], jobs: int, path: Path) -> None:
    with ProcessPoolExecutor(jobs) as pool:
        for i, record in enumerate(pool.map(finish, rows, [path] * len(rows))):
            print(f"{i + 1:3}/{len(rows)}  {describe(record)}", flush=True)


def describe(record: dict) -> str:
    what = " ".join(str(record[k]) for k in ("data", "scheme", "master"))
    where = f"{what}, batch {record['batch']}, seed {record['seed']}"
    return f"{where}: {record['accuracy']:.1%} at rate {record['lr']:.5g} ({record['seconds']} s)"


# ---------------------------------------------------------------------------------------- rendering


def cell(log: Log, rows: Sequence[Row]) -> str:
    """Mean test accuracy over the seeds that are done, their range, and the rate; "-" where none is."""
    found = [r for r in (tested(row, log) for row in rows) if r is not None]
    if not found:
        return "-"
    values = [100 * r["accuracy"] for r in found]
    spread = f" ±{(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread} ({found[0]['lr']:.4g})"


def table(log: Log, rows: Sequence[Row], masters: Sequence[str]) -> list[str]:
    """Schemes down, masters across."""
    lines = [f"| scheme | {' | '.join(masters)} |", f"|---|{'---|' * len(masters)}"]
    for scheme in dict.fromkeys(r.scheme for r in rows):
        cells = [cell(log, [r for r in rows if r.scheme == scheme and r.master == m]) for m in masters]
        if scheme == "head":
            cells[1:] = ["same"] * (len(masters) - 1)
        lines.append(f"| {scheme} | {' | '.join(cells)} |")
    return [*lines, ""]


def heading(rows: Sequence[Row], log: Log) -> str:
    row = rows[0]
    images = f"the first {IMAGES[row.data]:,}" if row.data in IMAGES else "all"
    middle = rows[-1].middle_rate
    rates = f"{middle / 2:.4g}, {middle:.4g}, {2 * middle:.4g}"
    if any(r.scheme == "head" for r in rows):
        rates += f" (head alone: {HEAD_RATE / 2:g}, {HEAD_RATE:g}, {2 * HEAD_RATE:g})"
    seeds = len({r.seed for r in rows if tested(r, log)})
    count = f"{seeds} seed{'s' if seeds != 1 else ''}"
    return (
        f"### {row.data}, batch {row.batch}, {row.epochs} epochs\n\n"
        f"{row.model}; {images} training images, all test images, no augmentation; SGD without momentum,\n"
        f"warm-up over a tenth of the run, then a cosine; {count}. The rate of a cell, in brackets, is the\n"
        f"best of {rates} on {VALIDATION_SHARE:.0%} of the\n"
        f"training images, after {search_epochs(row)} epochs on the others; where the best was at an end,\n"
        "the next rate beyond was tried too, and so on. Then the network was trained on all images. Test\n"
        "accuracy in percent.\n"
    )


def render(log: Log, model: str) -> str:
    """The tables in Markdown, from whatever is in the log."""
    seeds = sorted({r["seed"] for r in log.records()})
    master = best_integer_master(log, model)
    parts: list[str] = []
    for rows, masters in (
        (list(cifar_rows(model, seeds)), api.MASTERS),
        (list(batch1_rows(model, seeds)), api.MASTERS),
        (list(caltech_rows(model, ("fp32", master), seeds)), ("fp32", master)),
    ):
        parts += [heading(rows, log), *table(log, rows, masters)]
    return "\n".join(parts)


def write_document(document: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    old = document.read_text()
    between = re.compile(re.escape(MARK) + ".*?" + re.escape(MARK), re.DOTALL)
    if not between.search(old):
        raise SystemExit(f"{document} has no two lines {MARK.strip()!r} to write between")
    document.write_text(between.sub(lambda _: f"{MARK}\n{text}\n{MARK}", old, count=1))


# ---------------------------------------------------------------------------------------- one run


def report(p: Progress) -> None:
    if p.test_accuracy is not None:
        speed = f"{p.samples_per_second:.0f} samples/s"
        print(f"epoch {p.epoch:3}  loss {p.loss:.4f}  test {p.test_accuracy:.1%}  {speed}", flush=True)


def run_once(args: argparse.Namespace) -> None:
    """Train one network as the arguments say, and print what it took."""
    data = load_images(args.data, args.model)
    if args.images:
        data = first_images(data, args.images)
    row = Row(args.data, args.model, args.scheme, args.master, args.batch, args.epochs, args.seed)
    trainer = trainer_of(row, data)
    config = TrainConfig(args.epochs, args.lr, seed=args.seed)
    result = again(trainer, config).run(report)
    ram = " + ".join(f"{memory} {size:,}" for memory, size in result.ram_bytes.items())
    before, after = result.accuracy_before, result.accuracy_after
    print(f"test accuracy {before:.1%} -> {after:.1%} in {result.seconds:.0f} s")
    print(f"RAM {sum(result.ram_bytes.values()):,} bytes at batch {args.batch}: {ram}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, caltech101, or a path")
    parser.add_argument("--model", default="mcunet-5fps", help="a published network, or a path")
    parser.add_argument("--scheme", default="99kb", help="head, bias-only:K, last:K, full, 99kb, a .json …")
    parser.add_argument("--master", default="residual", choices=api.MASTERS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.0125)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="use the first training images only")
    parser.add_argument("--table", action="store_true", help="compute the tables of the documentation")
    parser.add_argument("--render", action="store_true", help="write what is done into the document")
    parser.add_argument("--jobs", type=int, default=2, help="processes of --table")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each cell of --table")
    parser.add_argument("--log", type=Path, default=ROOT / "runs" / "image_adaptation.jsonl")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "image-adaptation.md")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        if args.table:
            run_table(args.model, args.jobs, args.log, range(args.seeds))
        if args.table or args.render:
            write_document(args.document, render(Log(args.log), args.model))
        else:
            run_once(args)
    except TrainletError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
