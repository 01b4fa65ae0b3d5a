"""Estimated against planned memory on random schemes, and what the solvers need for them.

    python -m benchmarks.memory_estimate                     # 200 schemes of each reference network
    python -m benchmarks.memory_estimate --schemes 40 --solvers --record numbers.json
    python -m benchmarks.memory_estimate --render numbers.json    # into docs/choosing.md, nothing is measured

Random: of the last k layers, k uniform, the biases of the last j, j uniform; each weight with probability
0.1, 0.3 or 0.6, at a share of 1/8, 1/4, 1/2 or 1. Networks are looked for in `shared` beside the checkout.
`--solvers`: additive gains made up from a seed; the exact search at four budgets, and evolution at the same.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import NETWORKS, ROOT, markdown, replace_between
from examples.image_adaptation import model_path
from trainlet import api
from trainlet.choose.evolve import evolve
from trainlet.choose.exact import solve
from trainlet.choose.gains import Gains
from trainlet.choose.greedy import greedy
from trainlet.choose.limits import PlannedMemory
from trainlet.choose.memory import MemoryModel
from trainlet.choose.search import probe_all
from trainlet.choose.space import Choice, Space, space
from trainlet.runtime.toolchain import cache_folder

PAGE = ROOT / "docs" / "choosing.md"
BUDGETS = (1.25, 1.5, 2.0, 3.0)  # times what the head alone needs


def model_of(network: str, master: str) -> MemoryModel:
    settings = api.Settings("head", master)
    graph, _ = api.prepare(model_path(network), replace(settings, classes=10))
    return MemoryModel(space(graph), settings, True, cache_folder())


def random_choice(places: Space, rng: np.random.Generator) -> Choice:
    n = len(places.body)
    depth, often = int(rng.integers(0, n + 1)), rng.choice([0.1, 0.3, 0.6])
    biases, counts = int(rng.integers(0, depth + 1)), [0] * n
    for i in range(n - depth, n):
        if rng.random() < often:
            counts[i] = int(rng.choice(places.options(i)))
    return Choice(biases, tuple(counts))


def errors(memory: MemoryModel, schemes: int, seed: int) -> tuple[np.ndarray, float, float]:
    """Relative errors; microseconds an estimate (once everything is probed), seconds of all probes."""
    rng, places = np.random.default_rng(seed), memory.space
    choices = [random_choice(places, rng) for _ in range(schemes)]
    started = time.process_time()
    for c in choices:
        memory.estimate(c)
    probing = time.process_time() - started
    started = time.process_time()
    estimated = [memory.estimate(c) for c in choices]
    each = (time.process_time() - started) / schemes
    planned = []
    for c in choices:
        settings = replace(memory.settings, scheme=places.scheme(c, "random"))
        planned.append(api.plan(places.graph, settings, for_board=True).ram_bytes)
    memory.save()
    return (np.array(estimated) - planned) / np.array(planned), 1e6 * each, probing


def made_up(places: Space, seed: int) -> Gains:
    rng = np.random.default_rng(seed)
    worth = rng.gamma(1.0, 0.004, len(places.body))
    biases = 0.1 * (1 - np.exp(-np.arange(len(places.body) + 1) / 10))

    def weight(layer: int, count: int) -> float:
        return float(worth[layer] * np.log1p(8 * count / places.body[layer].channels) / np.log(9))

    return Gains(biases, weight)


def solvers(memory: MemoryModel, seconds: float, evaluations: int, seed: int) -> dict[str, Any]:
    """What both solvers need at each budget, and what evolution reaches."""
    places, gains = memory.space, made_up(memory.space, seed)
    least, started = memory.estimate(places.nothing), time.process_time()
    probe_all(places, [PlannedMemory(memory, least)])
    memory.save()
    probing = time.process_time() - started
    print(f"  probes of everything: {probing:.0f} s of CPU, kept", flush=True)
    rows = []
    for part in BUDGETS:
        limits = [PlannedMemory(memory, part * least)]
        started = time.process_time()
        best = solve(places, gains, limits)
        exact_seconds = time.process_time() - started
        assert best is not None
        started = time.process_time()
        begin = greedy(places, gains, limits)
        found = evolve(
            places, gains, limits, seed=seed, evaluations=evaluations, seconds=seconds, start=begin
        )
        evolving = time.process_time() - started
        assert found is not None
        print(
            f"  budget {part * least:>9,.0f}  optimum {best.value:.5f} proved in {exact_seconds:5.2f} s of "
            f"CPU ({best.solved} of {best.considered} programs)  evolution {found.value / best.value:7.2%} "
            f"of it in {evolving:.1f} s of CPU, {found.evaluations:,} choices",
            flush=True,
        )
        row = {"budget_bytes": part * least, "exact_cpu_s": exact_seconds, "programs": best.solved}
        reached = {"evolution_cpu_s": evolving, "reached": found.value / best.value}
        rows.append({**row, **reached, "choices": found.evaluations})
    return {"probing_cpu_s": probing, "budgets": rows}


def estimate_row(network: str, r: dict[str, Any]) -> list[str]:
    return [
        network,
        str(r["schemes"]),
        f"{r['mean_error']:.3%}",
        f"{r['largest_error']:.2%}",
        str(r["beyond_3_percent"]),
        f"{r['estimate_us']:.0f} us",
    ]


def solver_rows(network: str, r: dict[str, Any]) -> list[list[str]]:
    return [
        [
            network,
            f"{b['budget_bytes']:,.0f}",
            f"{b['exact_cpu_s']:.2f}",
            str(b["programs"]),
            f"{b['reached']:.2%}",
            f"{b['evolution_cpu_s']:.0f}",
            f"{b['choices']:,}",
        ]
        for b in r.get("solvers", {}).get("budgets", [])
    ]


def render(records: dict[str, dict[str, Any]]) -> str:
    """Both tables, as docs/choosing.md has them."""
    head = ["network", "random schemes", "mean error", "largest", "beyond 3%", "an estimate"]
    text = markdown(head, [estimate_row(n, r) for n, r in records.items()])
    solved = [row for n, r in records.items() for row in solver_rows(n, r)]
    if not solved:
        return text
    head = ["network", "budget, bytes", "proof, CPU s", "programs", "evolution", "CPU s", "choices"]
    probes = ", ".join(
        f"{n} {r['solvers']['probing_cpu_s']:.0f}" for n, r in records.items() if "solvers" in r
    )
    words = (
        "Both solvers on gains made up from a seed, with the shape of measured ones: the optimum's proof,\n"
        "and how much of it evolution reached. Probing everything took, in CPU seconds:\n"
        f"{probes}; kept for the next search."
    )
    return f"{text}\n\n{words}\n\n{markdown(head, solved)}"


def measured(network: str, args: argparse.Namespace) -> dict[str, Any]:
    memory = model_of(network, args.master)
    e, each, probing = errors(memory, args.schemes, args.seed)
    result = {
        "schemes": args.schemes,
        "mean_error": float(np.abs(e).mean()),
        "largest_error": float(np.abs(e).max()),
        "beyond_3_percent": int((np.abs(e) > 0.03).sum()),
        "estimate_us": each,
        "probing_cpu_s": probing,
    }
    print(
        f"{network}: {args.schemes} schemes, error mean {result['mean_error']:.3%}, largest "
        f"{result['largest_error']:.2%}, beyond 3%: {result['beyond_3_percent']}; {each:.0f} us an estimate, "
        f"{probing:.0f} s of probes",
        flush=True,
    )
    if args.solvers:
        result["solvers"] = solvers(memory, args.seconds, args.evaluations, args.seed)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--schemes", type=int, default=200)
    parser.add_argument("--master", default="nearest", choices=api.MASTERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--solvers", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0, help="of evolution at most")
    parser.add_argument("--evaluations", type=int, default=10_000, help="of evolution at most")
    parser.add_argument("--record", type=Path, help="numbers, as JSON; networks that it has already are kept")
    parser.add_argument("--render", type=Path, help="write the tables of such a file into docs/choosing.md")
    args = parser.parse_args()
    if args.render is not None:
        records = json.loads(args.render.read_text())
        PAGE.write_text(replace_between(PAGE.read_text(), "memory", render(records)))
        return
    records = json.loads(args.record.read_text()) if args.record and args.record.is_file() else {}
    for network in args.networks:
        records[network] = measured(network, args)
        if args.record is not None:
            args.record.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
