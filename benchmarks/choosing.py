"""Found schemes against published ones, the head alone, biases alone and the last k layers, on test data.

    python -m benchmarks.choosing --analysis FILE                 # everything below; a rerun goes on
    python -m benchmarks.choosing --render                        # the table again, from what is done so far
    python -m benchmarks.choosing --data caltech101 --confirm 6   # what the comparing step takes there

At the analytic budget of each published scheme of mcunet-5fps (49, 99 and 148 KB) the search is given the
same budget, for fixed channels (rule norm) and for channels that are redrawn every epoch. As in `trainlet
search`, what comes of several readings of the measured gains is trained, and the best on validation images,
also of what was proposed for less, is what was found. It and the others are then trained in the same way.
Of cifar10 the first 3,000 training images are trained on; the rate of each scheme is the best of three a
factor of two apart (or beyond an end that is best) on the other 3,000, after as many epochs (caltech101: on
20% of each class). The test images are seen once, by three seeds at that rate. `last:K` is the largest K that
fits the RAM of the found scheme, or K = 1 where none does. Finished runs are lines of runs/choosing.jsonl;
schemes are files in runs/schemes (benchmarks/schemes has the one of cifar10 at 99 KB).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from examples.image_adaptation import (
    DATA,
    EPOCHS,
    ROOT,
    Log,
    Row,
    describe,
    load_images,
    model_path,
    next_rate,
    rates_tried,
    rows_of,
    run_at,
    shared,
    trainer_of,
    validation_split,
    write_document,
)
from trainlet import api
from trainlet.choose.contribution import Contributions, read
from trainlet.choose.gains import measured_gains
from trainlet.choose.memory import MemoryModel
from trainlet.choose.request import channel_order, readings
from trainlet.choose.search import Options, Searcher
from trainlet.choose.space import Choice, space
from trainlet.choose.uniform import uniform
from trainlet.data import Dataset
from trainlet.runtime.toolchain import cache_folder
from trainlet.scheme import analytic_bits, resolve_scheme

MODEL, MASTER = "mcunet-5fps", "nearest"
SIZES = ("49kb", "99kb", "148kb")
RULES = ("norm", "redraw")
SCHEMES = ROOT / "runs" / "schemes"


def searcher(data: str, analysis: Path, rule: str) -> Searcher:
    """The gains and the memory model of MODEL on a task, as `trainlet search` has them."""
    graph = api.load(model_path(MODEL))
    found = read(analysis, graph, api.load_dataset(graph, shared() / DATA[data]))
    settings = api.Settings("head", MASTER, classes=api.classes_of(load_images(data, MODEL)))
    network, _ = api.prepare(graph, settings)
    places = space(network)
    redraw = rule == "redraw"
    memory = MemoryModel(places, replace(settings, classes=None), True, cache_folder(), redraw)
    gains = measured_gains(found, places, redraw=redraw)
    return Searcher(places, gains, memory, indices=channel_order(found, rule))


def validation(data: str) -> Dataset:
    """What rates are chosen on: as many images to fit as in the test runs, where there are enough of them."""
    whole, used = (
        api.load_dataset(api.load(model_path(MODEL)), shared() / DATA[data]),
        load_images(data, MODEL),
    )
    count = len(used.x_train)
    if len(whole.x_train) < 2 * count:
        return validation_split(data, MODEL)
    rest = np.arange(count, len(whole.x_train))
    return replace(used, x_test=rows_of(whole.x_train, rest), y_test=whole.y_train[rest])


def finish(row: Row, path: Path) -> dict:
    """Choose the rate of a scheme with the first seed, train with it, test; but for what is logged."""
    log, first, trainer = Log(path), replace(row, seed=0), None
    while (lr := next_rate(first, log)) is not None:
        trainer = trainer or trainer_of(first, validation(row.data))
        log.append(first, "validation", lr, run_at(trainer, lr, row.epochs))
    lr = rates_tried(first, log)[0]
    if found := log.find(row, "test", lr):
        return found
    return log.append(row, "test", lr, run_at(trainer_of(row, load_images(row.data, MODEL)), lr, row.epochs))


def proposals(finder: Searcher, found: Contributions, data: str, size: str, rule: str) -> list[Path]:
    """Files of the schemes proposed at a published scheme's analytic price, each once."""
    published = resolve_scheme(f"{MODEL}:{size}", finder.space.graph)
    budget = -(-finder.space.analytic_bits(finder.space.choice(published)) // 8)
    SCHEMES.mkdir(parents=True, exist_ok=True)
    paths: dict[Choice, Path] = {}
    choices = {
        name: replace(finder, gains=gains).search(budget, Options(cost="analytic")).choice
        for name, gains in {"proposed": finder.gains, **readings(finder, found)}.items()
    }
    for name, choice in {**choices, **uniform(finder, found, budget, "analytic")}.items():
        path = SCHEMES / f"{data}-{size}-{rule}-{name.replace(' ', '-')}.json"
        if paths.setdefault(choice, path) == path and not path.exists():
            path.write_text(finder.scheme(choice, path.stem).to_json())
    finder.memory.save()
    return list(paths.values())


def compared(row: Row, path: Path) -> dict:
    """The validation run of a proposal at the middle rate, from the log where it is there."""
    log = Log(path)
    if found := log.find(row, "validation", row.middle_rate):
        return found
    run = run_at(trainer_of(row, validation(row.data)), row.middle_rate, row.epochs)
    return log.append(row, "validation", row.middle_rate, run)


def found_schemes(args: argparse.Namespace, pool: ProcessPoolExecutor) -> list[str]:
    """For each size the proposal of best validation accuracy, of those for smaller sizes too."""
    data = args.data
    graph = api.load(model_path(MODEL))
    contributions = read(args.analysis, graph, api.load_dataset(graph, shared() / DATA[data]))
    finders = {rule: searcher(data, args.analysis, rule) for rule in args.rules}
    chosen, results = [], list[dict]()
    for size in SIZES:
        files = [
            f for rule, finder in finders.items() for f in proposals(finder, contributions, data, size, rule)
        ]
        rows = [Row(data, MODEL, str(f), MASTER, args.batch, EPOCHS[data]) for f in files]
        for record in pool.map(compared, rows, [args.log] * len(rows)):
            print("proposed:", describe(record), flush=True)
            results.append(record)
        best = max(results, key=lambda r: (r["loss"] is not None, r["accuracy"]))
        chosen.append(best["scheme"])
    return chosen


def ram_bytes(finder: Searcher, scheme: str) -> int:
    return finder.plan(finder.space.choice(resolve_scheme(scheme, finder.space.graph))).ram_bytes


def last_of_equal_memory(finder: Searcher, budget: int) -> str:
    """The last K whole layers that fit, at least one."""
    fitting = [k for k in range(1, 8) if ram_bytes(finder, f"last:{k}") <= budget]
    return f"last:{max(fitting, default=1)}"


def names_of(args: argparse.Namespace, pool: ProcessPoolExecutor) -> list[str]:
    """The schemes to compare."""
    finder, found = searcher(args.data, args.analysis, "norm"), found_schemes(args, pool)
    last = [last_of_equal_memory(finder, planned_ram_bytes(ours)) for ours in found]
    return [*found, *(f"{MODEL}:{size}" for size in SIZES), "head", "bias-only:22", *last]


def planned_ram_bytes(scheme: str) -> int:
    settings = api.Settings(scheme, MASTER, classes=10)
    return api.plan(model_path(MODEL), settings, for_board=True).ram_bytes


def runs_of(names: Sequence[str], data: str, batch: int, seeds: Sequence[int]) -> list[Row]:
    """First one seed of every scheme, which chooses its rate, then the others."""
    return [
        Row(data, MODEL, name, MASTER, batch, EPOCHS[data], seed)
        for seed in seeds
        for name in dict.fromkeys(names)
    ]


def done(row: Row, log: Log) -> dict | None:
    """The test run of a row at the rate that its first seed's search chose, if it is there."""
    first = replace(row, seed=0)
    return None if next_rate(first, log) is not None else log.find(row, "test", rates_tried(first, log)[0])


def rows_in(log: Log, data: str, batch: int) -> list[list[Row]]:
    """The schemes that the log has test runs of; the runs of each, by seed."""
    found: dict[str, list[Row]] = {}
    for r in log.records():
        if (r["data"], r["batch"], r["part"]) == (data, batch, "test"):
            row = Row(*(r[k] for k in ("data", "model", "scheme", "master", "batch", "epochs", "seed")))
            found.setdefault(r["scheme"], []).append(row)
    return [sorted(rows, key=lambda r: r.seed) for rows in found.values()]


def table(rows: list[list[Row]], log: Log) -> list[str]:
    """A line a scheme, smallest RAM first: what it costs, and what came of it."""
    lines = [
        "| scheme | analytic, bytes | RAM, bytes | test accuracy | seeds | validation | rate |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    return lines + [line for _, line in sorted(_line(runs, log) for runs in rows)]


def _line(runs: list[Row], log: Log) -> tuple[int, str]:
    found = [r for r in (done(row, log) for row in runs) if r is not None]
    settings = api.Settings(runs[0].scheme, runs[0].master, classes=api.classes_of(_images(runs[0])))
    program = api.plan(model_path(runs[0].model), settings, for_board=True)
    graph, selection = api.prepare(model_path(runs[0].model), settings)
    values = [100 * r["accuracy"] for r in found]
    spread = f" ±{(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    accuracy = f"{mean(values):.1f}{spread}" if values else "-"
    name = Path(runs[0].scheme).stem if runs[0].scheme.endswith(".json") else runs[0].scheme
    rate = found[0]["lr"] if found else math.nan
    tried = log.find(replace(runs[0], seed=0), "validation", rate)
    validated = f"{100 * tried['accuracy']:.1f}" if tried else "-"
    costs = f"{analytic_bits(graph, selection) // 8:,} | {program.ram_bytes:,}"
    return program.ram_bytes, f"| {name} | {costs} | {accuracy} | {len(values)} | {validated} | {rate:g} |"


def _images(row: Row) -> Dataset:
    return load_images(row.data, row.model)


def confirm_named(data: str, epochs: int) -> None:
    """What the comparing step of the search takes of the head, biases and published schemes."""
    from trainlet.choose.confirm import Candidate, Training, confirm, preferred
    from trainlet.choose.task import AnalysisSettings, make_task

    graph, images = api.load(model_path(MODEL)), load_images(data, MODEL)
    task = make_task(graph, images, AnalysisSettings(batch=32))
    settings = api.Settings("head", MASTER, batch=32, classes=api.classes_of(images))
    network, _ = api.prepare(graph, settings)
    candidates = []
    for name in ("head", "bias-only:14", "bias-only:22", *(f"{MODEL}:{size}" for size in SIZES[:2])):
        scheme = resolve_scheme(name, network)
        planned = api.plan(network, replace(settings, scheme=scheme, classes=None, batch=1), for_board=True)
        candidates.append(Candidate(name, scheme, planned.ram_bytes))
    results = confirm(graph, task, settings, candidates, Training(epochs, 0.1, 0.4), lambda c: print(
        f"  {c.candidate.name}: {c.accuracy:.1%} of {len(c.right)} validation images at rate {c.lr:g}, "
        f"{c.candidate.ram_bytes:,} bytes of RAM", flush=True,
    ))  # fmt: skip
    print(f"taken on {data}: {preferred(results).candidate.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--analysis", type=Path, help="of mcunet-5fps on --data")
    parser.add_argument(
        "--confirm", type=int, metavar="EPOCHS", help="only compare named schemes, as search does"
    )
    parser.add_argument("--data", default="cifar10", choices=sorted(EPOCHS))
    parser.add_argument("--only", nargs="*", help="only these schemes: names, or files")
    parser.add_argument("--rules", nargs="*", default=RULES, choices=RULES, help="of the channels proposed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="no runs; the table of what is done")
    parser.add_argument("--log", type=Path, default=ROOT / "runs" / "choosing.jsonl")
    parser.add_argument("--document", type=Path, help="write the table between the marks of this file")
    args = parser.parse_args()
    if args.confirm:
        return confirm_named(args.data, args.confirm)
    log = Log(args.log)
    if not args.render:
        if args.analysis is None and not args.only:
            parser.error("name the --analysis")
        with ProcessPoolExecutor(args.jobs) as pool:
            names = args.only or names_of(args, pool)
            for seed in range(args.seeds):
                rows = runs_of(names, args.data, args.batch, [seed])
                for record in pool.map(finish, rows, [args.log] * len(rows)):
                    print(describe(record), flush=True)
    text = "\n".join(table(rows_in(log, args.data, args.batch), log))
    print(text)
    if args.document is not None:
        write_document(args.document, text)
    return None


if __name__ == "__main__":
    main()
