"""A watch learns how its new owner moves, in 64 KB of RAM, by a C program that trainlet wrote.

    make demo        (or: python -m examples.watch_activity [--runs DIR])

1. A small 1-D network is pretrained in float on four people, by a program that trainlet compiled.
2. It is quantized to int8 and compiled, with a sparse update scheme, to C for a device with 64 KB.
3. Each of five people it has never met wears it: the first 40% of each of their recordings adapts
   it, one window at a time; the last 50% tests it. No window touches both parts.

4. The program runs as firmware on an emulated Cortex-M7 and must give the same bits as here.

The learning rate of each scheme is chosen on a further person, who is in neither group.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from examples.watch_activity_data import (
    NEW_PEOPLE,
    PRETRAINING_PEOPLE,
    Person,
    Windows,
    load_recordings,
    network,
    split,
)
from trainlet.adapt import adapted
from trainlet.api import Settings, build, emit, plan, plan_report
from trainlet.backends.c99.header import plan_table
from trainlet.device import emulate, report_lines
from trainlet.ir import Graph
from trainlet.quantize import quantize, quantize_samples
from trainlet.runtime.host import HostProgram
from trainlet.scheme import Channels, UpdateScheme, layers, resolve_scheme, select
from trainlet.train.parameters import Optimizer, parameters

STACK_BYTES = 2048  # the rest of the 64 KB; what is used of it is measured at the end
BUDGET_BYTES = 64 * 1024 - STACK_BYTES
DEVELOPMENT_PERSON = PRETRAINING_PEOPLE[-1]
PRETRAIN_EPOCHS, PRETRAIN_BATCH, PRETRAIN_LR = 20, 32, 2e-3
PASSES = 4  # over a person's first windows, in random order: a device would keep them in a buffer
RATES = (0.005, 0.01, 0.02, 0.04)
MASTER = "stochastic"
SEED = 0
BOARD, BOARD_STEPS = "stm32f746", 20
OUT = Console()


def pretrain(data: Windows) -> Graph:
    """The float network trained on `data` by its own compiled program (AdamW, every parameter)."""
    graph = network(SEED)
    settings = Settings(scheme="full", optimizer="adamw", batch=PRETRAIN_BATCH, weight_decay=0.01)
    host = build(graph, settings)
    rng, steps = np.random.default_rng(SEED), len(data) // PRETRAIN_BATCH
    for epoch in range(PRETRAIN_EPOCHS):
        order = rng.permutation(len(data))
        for i in range(steps):
            rows = order[i * PRETRAIN_BATCH : (i + 1) * PRETRAIN_BATCH]
            at = (epoch + i / steps) / PRETRAIN_EPOCHS
            host.step(data.x[rows], data.label[rows], PRETRAIN_LR * 0.5 * (1 + np.cos(np.pi * at)))
    selection = select(resolve_scheme("full", graph), graph)
    return adapted(graph, tuple(parameters(graph, selection, Optimizer("adamw"))), host.tensors())


# Share of input channels trained in each block, by the part of the block (chosen on the development person).
SHARES = {"expand/weight": 0.5, "depthwise/weight": 1.0}


def sparse_scheme(graph: Graph) -> UpdateScheme:
    """All biases but the stem's, the head, and SHARES of the blocks' weights: what fits in 64 KB."""
    trained = [x for x in layers(graph) if not x.weight.name.startswith("stem")]
    weights = {x.weight.name: Channels(share=1.0) for x in trained if x.is_head}
    for x in trained:
        if (part := x.weight.name.partition("/")[2]) in SHARES:
            weights[x.weight.name] = Channels(share=SHARES[part])
    return UpdateScheme("sparse", weights, tuple(x.bias.name for x in trained if x.bias is not None))


@dataclasses.dataclass
class Adaptation:
    """One person, one scheme: test accuracy before, after, and along the way by windows seen."""

    before: float
    after: float
    seen: list[int]
    accuracy: list[float]
    step_us: float


def adapt(host: HostProgram, graph: Graph, person: Person, lr: float, curve: bool = False) -> Adaptation:
    """From the shipped network, learn a person's first windows one at a time, test on the later ones."""
    x, test = quantize_samples(graph, person.adapt.x), quantize_samples(graph, person.test.x)
    host.init(SEED)

    def accuracy() -> float:
        return host.evaluate(test, person.test.label) / len(test)

    result = Adaptation(accuracy(), 0.0, [0], [], 0.0)
    result.accuracy.append(result.before)
    total, seen, times = PASSES * len(x), 0, []
    for epoch in range(PASSES):
        for i in np.random.default_rng([SEED, epoch]).permutation(len(x)):
            rate = lr * 0.5 * (1 + np.cos(np.pi * seen / total))
            started = time.perf_counter()
            host.step(x[i : i + 1], person.adapt.label[i : i + 1], rate)
            times.append(time.perf_counter() - started)
            seen += 1
            if curve and seen % max(1, total // 40) == 0:
                result.seen.append(seen)
                result.accuracy.append(accuracy())
    result.after, result.step_us = accuracy(), 1e6 * float(np.median(times))
    return result


def choose_rate(host: HostProgram, graph: Graph, person: Person) -> float:
    """The rate of RATES that serves the development person best."""
    return max(RATES, key=lambda lr: adapt(host, graph, person, lr).after)


def table(rows: dict[int, dict[str, Adaptation]], programs: dict[str, Any]) -> Table:
    out = Table(title="Adapting to people never seen: accuracy on their later recordings, %")
    for column in ("person", "before", *programs):
        out.add_column(column, justify="right")
    for person, by_scheme in rows.items():
        first = next(iter(by_scheme.values()))
        out.add_row(
            str(person), f"{100 * first.before:.1f}", *(f"{100 * r.after:.1f}" for r in by_scheme.values())
        )
    out.add_section()
    mean = {s: np.mean([r[s].after for r in rows.values()]) for s in programs}
    before = np.mean([next(iter(r.values())).before for r in rows.values()])
    out.add_row("mean", f"{100 * before:.1f}", *(f"{100 * m:.1f}" for m in mean.values()), style="bold")
    out.add_row("RAM, bytes", "", *(f"{p.ram_bytes:,}" for p in programs.values()))
    us = {s: np.median([r[s].step_us for r in rows.values()]) for s in programs}
    out.add_row("step here, µs", "", *(f"{u:.0f}" for u in us.values()))
    return out


def picture(path: Path, rows: dict[int, dict[str, Adaptation]], program: Any) -> None:
    """Accuracy over windows seen, and memory over the step's time line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from trainlet.plan.liveness import live_bytes

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for person, by_scheme in rows.items():
        r = by_scheme["sparse"]
        left.plot(r.seen, 100 * np.array(r.accuracy), label=f"person {person}")
    left.set(xlabel="windows seen", ylabel="test accuracy, %", title="Adapting, sparse update, int8")
    left.legend(frameon=False)
    main = program.main
    alive = live_bytes(list(main.ranges), len(main.graph.nodes))
    forward = next(i for i, n in enumerate(main.graph.nodes) if "Grad" in n.op)
    right.fill_between(range(len(alive)), np.array(alive) / 1024, step="mid", alpha=0.6)
    right.axvline(forward, color="black", lw=0.8, ls=":")
    right.axhline(main.peak_bytes / 1024, color="C3", lw=0.8)
    right.set(
        xlabel="kernel call (dotted: backward begins)",
        ylabel="arena, KB",
        title="Memory over one training step",
    )
    fig.tight_layout()
    fig.savefig(path, dpi=120)


def on_a_board(graph: Graph, program: Any, person: Person, lr: float, report: Callable[[str], None]) -> None:
    """The same program as firmware on an emulated Cortex-M7, memory fenced, compared with this machine."""
    rows = np.random.default_rng(SEED).permutation(len(person.adapt))[:BOARD_STEPS]
    x = quantize_samples(graph, person.adapt.x[rows])
    found = emulate(program, BOARD, (x, person.adapt.label[rows]), BOARD_STEPS, lr=lr)
    for line in report_lines(found.as_dict())[:7]:
        report(line)
    if found.memory.ram_bytes > BUDGET_BYTES + STACK_BYTES:
        raise SystemExit(f"{found.memory.ram_bytes:,} bytes of RAM are more than 64 KB")
    if found.difference is not None:
        raise SystemExit(f"the board and this machine differ: {found.difference}")


def prepare() -> tuple[Graph, dict[int, Person], Person]:
    """The shipped int8 network, the people it will meet, and the development person."""
    recordings = load_recordings()
    known = tuple(p for p in PRETRAINING_PEOPLE if p != DEVELOPMENT_PERSON)
    parts = split(recordings, known, (*NEW_PEOPLE, DEVELOPMENT_PERSON))
    started = time.perf_counter()
    graph = pretrain(parts.pretrain)
    OUT.print(
        f"pretrained in float on people {known}: {len(parts.pretrain)} windows, "
        f"{time.perf_counter() - started:.0f} s"
    )
    rows = np.random.default_rng(SEED).permutation(len(parts.pretrain))[:256]
    int8 = quantize(graph, parts.pretrain.x[rows])
    people = {p: parts.people[p] for p in NEW_PEOPLE}
    return int8, people, parts.people[DEVELOPMENT_PERSON]


def main(runs: Path, report: Callable[[str], None] = OUT.print) -> dict[str, Any]:
    folder = runs / "watch_activity"
    graph, people, development = prepare()
    schemes: dict[str, str | UpdateScheme] = {"sparse": sparse_scheme(graph), "head": "head", "full": "full"}
    settings = {s: Settings(scheme=v, master=MASTER, seed=SEED) for s, v in schemes.items()}
    settings["sparse"] = dataclasses.replace(settings["sparse"], budget_bytes=BUDGET_BYTES)
    programs = {s: plan(graph, v) for s, v in settings.items()}
    emit(graph, settings["sparse"], folder / "c")
    (folder / "plan.txt").write_text("\n".join(plan_table(programs["sparse"])) + "\n")
    (folder / "plan.json").write_text(json.dumps(plan_report(programs["sparse"]), indent=1) + "\n")
    hosts = {s: build(graph, v) for s, v in settings.items()}
    rates = {s: choose_rate(h, graph, development) for s, h in hosts.items()}
    report(f"learning rates chosen on person {DEVELOPMENT_PERSON}: {rates}")
    results = {
        p: {s: adapt(h, graph, person, rates[s], curve=s == "sparse") for s, h in hosts.items()}
        for p, person in people.items()
    }
    OUT.print(table(results, programs))
    windows = {p: (len(x.adapt), len(x.test)) for p, x in people.items()}
    report(
        f"windows (adapt, test) per person: {windows}; {PASSES} passes, one window a step, master {MASTER}"
    )
    picture(folder / "adaptation.png", results, programs["sparse"])
    on_a_board(graph, programs["sparse"], next(iter(people.values())), rates["sparse"], report)
    report(f"the plan, the C sources and a picture are in {folder}/")
    summary = {
        "ram_bytes": {s: p.ram_bytes for s, p in programs.items()},
        "people": {p: {s: dataclasses.asdict(r) for s, r in v.items()} for p, v in results.items()},
    }
    (folder / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where results go")
    main(parser.parse_args().runs)
