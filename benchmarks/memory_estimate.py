"""Estimated against planned memory on random schemes, and what the solvers need for them.

    python -m benchmarks.memory_estimate                     # 200 schemes of each reference network
    python -m benchmarks.memory_estimate --schemes 40 --solvers

Random: the last k biases, k uniform; of the weights of these layers each with probability 0.1, 0.3 or 0.6, at
a share of 1/8, 1/4, 1/2 or 1. Networks are looked for in `shared` beside the checkout. `--solvers`: additive
gains made up from a seed; the exact search at four budgets, and evolution at the same.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from examples.image_adaptation import model_path
from trainlet import api
from trainlet.choose.evolve import evolve
from trainlet.choose.exact import solve
from trainlet.choose.gains import Gains
from trainlet.choose.limits import PlannedMemory
from trainlet.choose.memory import MemoryModel
from trainlet.choose.search import probe_all
from trainlet.choose.space import Choice, Space, space
from trainlet.runtime.toolchain import cache_folder

NETWORKS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")
BUDGETS = (1.25, 1.5, 2.0, 3.0)  # times what the head alone needs


def model_of(network: str, master: str) -> MemoryModel:
    settings = api.Settings("head", master)
    graph, _ = api.prepare(model_path(network), replace(settings, classes=10))
    return MemoryModel(space(graph), settings, True, cache_folder())


def random_choice(places: Space, rng: np.random.Generator) -> Choice:
    n = len(places.body)
    biases, often = int(rng.integers(0, n + 1)), rng.choice([0.1, 0.3, 0.6])
    counts = [0] * n
    for i in range(n - biases, n):
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


def solvers(memory: MemoryModel, seconds: float, evaluations: int, seed: int) -> None:
    places, gains = memory.space, made_up(memory.space, seed)
    least, started = memory.estimate(places.nothing), time.process_time()
    probe_all(places, [PlannedMemory(memory, least)])
    memory.save()
    print(f"  probes of everything: {time.process_time() - started:.0f} s of CPU, kept", flush=True)
    for part in BUDGETS:
        limits = [PlannedMemory(memory, part * least)]
        started = time.process_time()
        best = solve(places, gains, limits)
        exact_seconds = time.process_time() - started
        assert best is not None
        started = time.process_time()
        found = evolve(places, gains, limits, seed=seed, evaluations=evaluations, seconds=seconds)
        evolving = time.process_time() - started
        assert found is not None
        print(
            f"  budget {part * least:>9,.0f}  optimum {best.value:.5f} proved in {exact_seconds:5.2f} s of "
            f"CPU ({best.solved} of {best.considered} programs)  evolution {found.value / best.value:7.2%} "
            f"of it in {evolving:.1f} s of CPU, {found.evaluations:,} choices",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--schemes", type=int, default=200)
    parser.add_argument("--master", default="nearest", choices=api.MASTERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--solvers", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0, help="of evolution at most")
    parser.add_argument("--evaluations", type=int, default=10_000, help="of evolution at most")
    args = parser.parse_args()
    for network in args.networks:
        memory = model_of(network, args.master)
        e, each, probing = errors(memory, args.schemes, args.seed)
        worst, beyond = np.abs(e).max(), int((np.abs(e) > 0.03).sum())
        print(
            f"{network}: {args.schemes} schemes, error mean {np.abs(e).mean():.3%}, largest {worst:.2%}, "
            f"beyond 3%: {beyond}; {each:.0f} us an estimate, {probing:.0f} s of probes",
            flush=True,
        )
        if args.solvers:
            solvers(memory, args.seconds, args.evaluations, args.seed)


if __name__ == "__main__":
    main()
