"""A budget in, a scheme out: one interface for the exact search, evolution and the freezing rule.

The search itself uses estimated memory; what it proposes is planned, and the search is repeated with the
budget corrected by the error until the plan fits. What is handed out never exceeds the budget by a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainlet import api
from trainlet.choose.evolve import evolve
from trainlet.choose.exact import Solution, solve
from trainlet.choose.freeze import freeze
from trainlet.choose.gains import Gains, Objective
from trainlet.choose.greedy import greedy
from trainlet.choose.limits import AnalyticMemory, Limit, PlannedMemory
from trainlet.choose.memory import MemoryModel
from trainlet.choose.space import Choice, Space
from trainlet.errors import BudgetError, SchemeError
from trainlet.plan.program import Program

METHODS = ("exact", "evolution", "freeze")
COSTS = ("planned", "analytic")
ROUNDS = 8  # of search and plan
CLOSE_ENOUGH = (
    0.005  # of the budget: so much may be left over before the search is repeated with a larger one
)
FINE = 16  # steps in which the share of a weight is refined
FILL_TRIES = 12  # plans for filling what is left


@dataclass(frozen=True)
class Options:
    """How to search. threshold: for freeze, the least accuracy (or predicted gain). seed, evaluations:
    evolution.
    """

    method: str = "exact"
    cost: str = "planned"
    refine: bool = True
    threshold: float | None = None
    seed: int = 0
    evaluations: int = 20_000
    seconds: float | None = 60.0


@dataclass(frozen=True)
class Found:
    """A scheme and what it costs. `rounds`: (estimated, planned) bytes of each proposal; `proof` says what
    is proved.
    """

    choice: Choice
    value: float
    ram_bytes: int
    analytic_bytes: int
    rounds: tuple[tuple[int, int], ...]
    proof: str


@dataclass
class Searcher:
    """A network, its gains and its memory model; plans are kept."""

    space: Space
    gains: Gains
    memory: MemoryModel
    others: list[Limit] = field(default_factory=list)  # limits beside memory, such as time
    indices: Mapping[str, Sequence[int]] | None = None
    objective: Objective | None = None
    _plans: dict[Choice, Program] = field(default_factory=dict)

    def plan(self, choice: Choice) -> Program:
        """The plan of a choice, without a budget."""
        if choice not in self._plans:
            settings = replace(self.memory.settings, scheme=self.scheme(choice), budget_bytes=None)
            self._plans[choice] = api.plan(self.space.graph, settings, for_board=self.memory.for_board)
        return self._plans[choice]

    @property
    def redraw(self) -> bool:
        """Whether channels of dense weights are drawn anew every epoch."""
        return self.memory.redraw

    def scheme(self, choice: Choice, name: str = "chosen") -> Any:
        return self.space.scheme(choice, name, self.indices, self.redraw)

    def cost(self, choice: Choice, kind: str) -> int:
        """Bytes that count against a budget of this kind, exact."""
        return self.plan(choice).ram_bytes if kind == "planned" else -(-self.space.analytic_bits(choice) // 8)

    def search(self, budget_bytes: int, options: Options | None = None) -> Found:
        """The best scheme within the budget. Raises BudgetError naming the least there is."""
        options = options or Options()
        _check(options)
        self.check_budget(budget_bytes, options.cost)
        bound, rounds = float(budget_bytes), list[tuple[int, int]]()
        best: tuple[Choice, str] | None = None
        if options.refine and options.method == "exact":  # what comes of refining has to be better than this
            coarse = self.search(budget_bytes, replace(options, refine=False))
            best, rounds = (coarse.choice, coarse.proof), list(coarse.rounds)
        for _ in range(ROUNDS):
            proposal = self._propose(bound, options)
            if proposal is None:
                break
            choice, proof = proposal
            estimated, planned = self._estimate(choice, options.cost), self.cost(choice, options.cost)
            rounds.append((estimated, planned))
            if planned <= budget_bytes and (best is None or self._value(choice) > self._value(best[0])):
                best = (choice, proof)
            error = planned - estimated
            if planned <= budget_bytes and (
                error >= 0 or budget_bytes - planned < CLOSE_ENOUGH * budget_bytes
            ):
                break
            following = (
                budget_bytes - error if error <= 0 else min(bound, estimated) - (planned - budget_bytes)
            )
            if following == bound:
                break
            bound = following
        if best is None:
            best = (self.space.nothing, "nothing more than the head was found to fit")
        choice = self._filled(best[0], budget_bytes, options) if options.refine else best[0]
        planned = self.plan(choice).ram_bytes
        assert self.cost(choice, options.cost) <= budget_bytes
        analytic = -(-self.space.analytic_bits(choice) // 8)
        return Found(choice, self.predicted(choice), planned, analytic, tuple(rounds), best[1])

    def predicted(self, choice: Choice) -> float:
        """The objective, or the predicted gain in accuracy."""
        return (self.objective or self.gains.predicted)(choice)

    def _value(self, choice: Choice) -> float:
        return (self.objective or self.gains)(choice)

    def _estimate(self, choice: Choice, kind: str) -> int:
        return self.memory.estimate(choice) if kind == "planned" else self.cost(choice, kind)

    def limits(self, bound: float, kind: str) -> list[Limit]:
        first: Limit = (
            PlannedMemory(self.memory, bound) if kind == "planned" else AnalyticMemory(self.space, bound)
        )
        return [first, *self.others]

    def _propose(self, bound: float, options: Options) -> tuple[Choice, str] | None:
        limits = self.limits(bound, options.cost)
        return _METHODS[options.method](self, limits, options)

    def _filled(self, choice: Choice, budget_bytes: int, options: Options) -> Choice:
        """More channels, the most gain a byte first, while the real plan has room for them."""
        tries = 0
        while tries < FILL_TRIES:
            for larger in self._larger(choice, options):
                tries += 1
                fits = all(limit.allows(larger) for limit in self.others)
                if fits and self.cost(larger, options.cost) <= budget_bytes:
                    choice = larger
                    break
                if tries >= FILL_TRIES:
                    return choice
            else:
                return choice
        return choice

    def _larger(self, choice: Choice, options: Options) -> list[Choice]:
        """One weight with a step more channels, or one bias more, by gain a byte, as far as there is any
        gain.
        """
        found: list[tuple[float, Choice]] = []
        n, value, cost = len(choice.counts), self._value(choice), self._estimate(choice, options.cost)
        steps = [Choice(choice.biases + 1, choice.counts)] if choice.biases < n else []
        for i in range(n):
            larger = [c for c in fine_options(self.space, i) if c > choice.counts[i]]
            if larger:
                counts = (*choice.counts[:i], larger[0], *choice.counts[i + 1 :])
                steps.append(Choice(choice.biases, counts))
        for step in steps:
            gain = self._value(step) - value
            if gain > 1e-6:
                bytes_ = max(1, self._estimate(step, options.cost) - cost)
                found.append((gain / bytes_, step))
        return [step for _, step in sorted(found, key=lambda f: -f[0])]

    def check_budget(self, budget_bytes: int, kind: str) -> None:
        """Raises BudgetError where not even the head fits, naming what dominates."""
        least = self.cost(self.space.nothing, kind)
        if least <= budget_bytes:
            return
        program = self.plan(self.space.nothing)
        b = program.bytes
        alive = ", ".join(f"{r.name} {r.bytes:,}" for r in _widest(program)[:3])
        raise BudgetError(
            f"{self.space.graph.name} needs {least:,} bytes to train its head alone, the least there is; "
            f"the budget is {budget_bytes:,}. Of them arena {b['arena']:,}, state {b['state']:,}, scratch "
            f"{b['scratch']:,}; largest in the arena: {alive}. Raise the budget, or take a smaller network "
            "or input."
        )


def _widest(program: Program) -> list[Any]:
    worst = max(program.functions.values(), key=lambda f: f.peak_bytes)
    return worst.peak_live()


def _check(options: Options) -> None:
    if options.method not in METHODS:
        raise SchemeError(f"method {options.method!r} is none of {', '.join(METHODS)}")
    if options.cost not in COSTS:
        raise SchemeError(f"cost {options.cost!r} is none of {', '.join(COSTS)}")


def fine_options(space: Space, layer: int) -> tuple[int, ...]:
    """Counts in steps of 1 / FINE of the channels (by ones where there are fewer)."""
    x = space.body[layer]
    step = max(1, x.channels // FINE)
    counts = {*range(step, x.channels, step), x.channels}
    return tuple(sorted(counts)) if space.count(layer, 0.5) else (x.channels,)


def _exact(s: Searcher, limits: list[Limit], options: Options) -> tuple[Choice, str] | None:
    if s.objective is not None:
        raise SchemeError(
            "the exact method needs additive gains: take method evolution for another objective"
        )
    coarse = solve(s.space, s.gains, limits)
    if coarse is None:
        return None
    proof = (
        "optimal among shares 1/8, 1/4, 1/2, 1 of any weights and any number of biases: "
        f"{coarse.solved} integer programs solved to proven optimality, the other "
        f"{coarse.considered - coarse.solved} excluded by their bound"
    )
    if not options.refine:
        return coarse.choice, proof
    finer = _refined(s, limits, coarse)
    return finer.choice, f"{proof}; then refined in steps of 1/{FINE} of the channels around it"


def _refined(s: Searcher, limits: list[Limit], coarse: Solution) -> Solution:
    """The optimum on the fine grid near the coarse one: as deep, or two layers more or fewer."""
    n, k = len(s.space.body), len(s.space.body) - coarse.choice.first()
    near = [b for b in range(k - 2, k + 3) if 0 <= b <= n]

    def options(layer: int) -> Sequence[int]:
        shares, count = (0, *s.space.options(layer)), coarse.choice.counts[layer]
        at = shares.index(count) if count in shares else 0
        low, high = shares[max(0, at - 1)], shares[min(len(shares) - 1, at + 1)]
        return [c for c in fine_options(s.space, layer) if low <= c <= high]

    found = solve(s.space, s.gains, limits, options, near)
    return found if found is not None and found.value > coarse.value else coarse


def probe_all(places: Space, limits: list[Limit]) -> None:
    """Ask the limits for every option once, so that a search with a clock does not wait for probed plans."""
    n = len(places.body)
    for first in range(n + 1):
        options = [(i, c) for i in range(first, n) for c in places.options(i)]
        for limit in limits:
            limit.system(first, options)


def _evolution(s: Searcher, limits: list[Limit], options: Options) -> tuple[Choice, str] | None:
    probe_all(s.space, limits)
    found = evolve(
        s.space, s.objective or s.gains, limits, seed=options.seed, evaluations=options.evaluations,
        seconds=options.seconds, start=greedy(s.space, s.gains, limits) if s.objective is None else (),
    )  # fmt: skip
    if found is None:
        return None
    return found.choice, f"best of {found.evaluations:,} choices evolved; nothing is proved"


def _freeze(s: Searcher, limits: list[Limit], options: Options) -> tuple[Choice, str] | None:
    value = s.predicted
    threshold = options.threshold
    if threshold is None:
        raise SchemeError("the freezing rule needs a threshold: the least accuracy, or gain, that may remain")
    found = freeze(s.space, s.gains, limits, value, threshold)
    if found is None:
        return None
    frozen = len(found.steps) - 1
    return found.choice, f"{frozen} pieces frozen, least useful first; {value(found.choice):.4f} remains"


_METHODS: dict[str, Callable[[Searcher, list[Limit], Options], tuple[Choice, str] | None]] = {
    "exact": _exact,
    "evolution": _evolution,
    "freeze": _freeze,
}
