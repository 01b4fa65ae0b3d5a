"""`trainlet search`: model, data and budget in; scheme, report and what speaks for it out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from trainlet import api
from trainlet.choose.confirm import Candidate, Confirmed, Training, confirm, preferred
from trainlet.choose.contribution import Contributions, read
from trainlet.choose.gains import Gains, measured_gains
from trainlet.choose.memory import MemoryModel
from trainlet.choose.search import Found, Options, Searcher
from trainlet.choose.space import Choice, Space, space
from trainlet.choose.step_time import StepTime
from trainlet.choose.task import AnalysisSettings, Task, make_task
from trainlet.choose.uniform import uniform
from trainlet.data import Dataset
from trainlet.errors import SchemeError, TrainletError
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.runtime.toolchain import cache_folder
from trainlet.scheme import PUBLISHED, UpdateScheme, resolve_scheme

SMALLER = (0.75, 0.5)  # of the room between the head alone and the budget: smaller schemes to compare with
CAUTION = 1.0  # standard errors taken off every gain, for the cautious candidate
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for. budget_bytes: of RAM, or of the published price with cost "analytic".

    confirm_epochs: of the trainings that compare candidates on validation samples; 0: the solver's proposal
    is taken as it is. rule: which channels of a weight, "norm", "fisher" or "redraw": others
    in every epoch.
    """

    budget_bytes: int
    options: Options = field(default_factory=Options)
    rule: str = "norm"
    board: str | None = None
    max_step_ms: float | None = None
    confirm_epochs: int = 4
    train_batch: int = 32  # of the comparing trainings; the plan's batch is that of the settings


@dataclass(frozen=True)
class Point:
    """A scheme on the front: what it costs, what is predicted, what validation said (None: not trained)."""

    name: str
    ram_bytes: int
    analytic_bytes: int
    macs: int
    gain: float
    accuracy: float | None = None
    step_ms: float | None = None


@dataclass(frozen=True)
class Chosen:
    """The answer. `lr`: the rate that did best in the confirming runs, to train with."""

    scheme: UpdateScheme
    space: Space
    found: Found
    points: tuple[Point, ...]
    confirmed: tuple[Confirmed, ...]
    analysis: Contributions
    request: Request
    model: str
    lr: float
    seconds: Mapping[str, float]


def search(
    model: str | Path | Graph,
    data: str | Path | Dataset,
    settings: api.Settings,
    request: Request,
    analysis: str | Path | Contributions,
    say: Say = lambda line: None,
) -> Chosen:
    """The scheme for a budget. analysis: what `trainlet analyze` wrote for this network and these samples;
    where there is no such file, the analysis is made and written there.

    Raises BudgetError below the least possible, AnalysisError for the analysis of another network or task.
    """
    graph = model if isinstance(model, Graph) else load(model)
    if isinstance(data, str | Path):
        data = api.load_dataset(graph, data)
    clock = _Clock()
    finder = _searcher(graph, data, settings, request)
    finder.check_budget(request.budget_bytes, request.options.cost)
    with clock("analysis"):
        found = _analysis(graph, data, settings, analysis, say)
    finder.gains = measured_gains(found, finder.space, redraw=finder.redraw)
    finder.indices = channel_order(found, request.rule)
    if request.max_step_ms is not None:
        finder.others.append(StepTime.calibrated(finder, request.board, request.max_step_ms))
    say("probing the planner")
    with clock("search"):
        proposal = finder.search(request.budget_bytes, request.options)
    finder.memory.save()
    say(f"proposed: {in_words(finder.space, proposal.choice)}, {proposal.ram_bytes:,} bytes")
    results: list[Confirmed] = []
    lr = float(found.settings["lr"])
    if request.confirm_epochs:
        with clock("confirm"):
            results = _confirmed(graph, data, settings, request, found, finder, proposal, say)
        winner = preferred(results)
        lr = winner.lr
        if winner.candidate.name != "proposed":
            choice = finder.space.choice(winner.candidate.scheme)
            proposal = replace(
                proposal, choice=choice, value=finder.predicted(choice), ram_bytes=winner.candidate.ram_bytes,
                analytic_bytes=-(-finder.space.analytic_bits(choice) // 8),
            )  # fmt: skip
    with clock("front"):
        points = _front(graph, finder, proposal, results, request)
    scheme = finder.scheme(proposal.choice, f"{graph.name}-{request.budget_bytes}")
    return Chosen(
        scheme,
        finder.space,
        proposal,
        points,
        tuple(results),
        found,
        request,
        graph.name,
        lr,
        dict(clock.seconds),
    )


def _analysis(
    graph: Graph, data: Dataset, settings: api.Settings, path: str | Path | Contributions, say: Say
) -> Contributions:
    """The one given, the one in the file, or a new one that is kept there."""
    if isinstance(path, Contributions):
        return path
    if Path(path).exists():
        return read(path, graph, data)
    from trainlet.choose.analyze import analyze
    from trainlet.choose.progress import lines

    say(f"no analysis in {path} yet: measuring contributions (this is the long part; it is kept)")
    batch = min(AnalysisSettings.batch, max(1, len(data.y_train) // 4))  # a small data set still fills some
    wanted = AnalysisSettings(batch=batch, seed=settings.seed)
    watch = lines(lambda line: say(f"  {line}"))
    return analyze(graph, data, path, wanted, jobs=os.cpu_count() or 1, watch=watch)


def _searcher(graph: Graph, data: Dataset, settings: api.Settings, request: Request) -> Searcher:
    """Without gains yet: what can be said before anything is measured."""
    fitted = api.fit_settings(graph, data, settings)
    network, _ = api.prepare(graph, replace(fitted, scheme="head"))
    places, plain = space(network), replace(fitted, classes=None, scheme="head", budget_bytes=None)
    redraw = request.rule == "redraw"
    memory = MemoryModel(places, plain, request.board is not None, cache_folder(), redraw)
    nothing = Gains(np.zeros(len(places.body) + 1), lambda layer, count: 0.0)
    return Searcher(places, nothing, memory)


def channel_order(found: Contributions, rule: str) -> Mapping[str, Sequence[int]] | None:
    """Channels of each weight in the order in which a rule takes them; None: the scheme's own rule, norm."""
    if rule in ("norm", "redraw"):
        return None
    if rule != "fisher":
        raise SchemeError(f"channel rule {rule!r} is none of norm, fisher, redraw")
    return {name: (-values).argsort(kind="stable").tolist() for name, values in found.fisher.items()}


def _confirmed(
    graph: Graph,
    data: Dataset,
    settings: api.Settings,
    request: Request,
    found: Contributions,
    finder: Searcher,
    proposal: Found,
    say: Say,
) -> list[Confirmed]:
    raw = found.settings
    task = make_task(
        graph,
        data,
        AnalysisSettings(
            batch=request.train_batch, validation_share=raw["validation_share"], samples=raw["samples"],
            seed=raw["seed"],
        ),
    )  # fmt: skip
    candidates = candidates_for(finder, request, proposal, found)
    training = Training(request.confirm_epochs, raw["lr"], raw["head_lr"], settings.seed)
    fitted = replace(api.fit_settings(graph, data, settings), batch=request.train_batch)
    least = 1.0 / len(task.validate)
    say(f"comparing {len(candidates)} schemes on {len(task.validate)} validation samples ({least:.2%} each)")
    return confirm(graph, task, fitted, candidates, training, lambda c: say(_confirmed_line(c)))


def _confirmed_line(c: Confirmed) -> str:
    return f"  {c.candidate.name}: {c.accuracy:.1%} at rate {c.lr:g} ({c.seconds:.0f} s a run)"


def candidates_for(
    finder: Searcher, request: Request, proposal: Found, found: Contributions
) -> list[Candidate]:
    """The proposal, the head alone, the best number of biases alone, proposals by other readings of the same
    gains, one share for all weights of a kind, and smaller ones.
    """
    options, budget, kind = request.options, request.budget_bytes, request.options.cost
    least = finder.cost(finder.space.nothing, kind)
    choices: dict[str, Choice] = {"proposed": proposal.choice, "head": finder.space.nothing}
    by_bias = [Choice(k, finder.space.nothing.counts) for k in range(1, len(finder.space.body) + 1)]
    fitting = [c for c in by_bias if all(x.allows(c) for x in finder.limits(budget, kind))]
    for choice in sorted(fitting, key=finder.gains, reverse=True)[:3]:
        if finder.cost(choice, kind) <= budget:
            choices[f"bias-only:{choice.biases}"] = choice
            break
    for part in SMALLER:
        smaller = replace(options, refine=False)
        choices[f"proposed at {part:.0%}"] = finder.search(
            int(least + part * (budget - least)), smaller
        ).choice
    choices |= uniform(finder, found, budget, kind)
    for name, gains in readings(finder, found).items():
        choices[name] = replace(finder, gains=gains).search(budget, replace(options, refine=False)).choice
    unique: dict[Choice, str] = {}
    for name, choice in choices.items():
        unique.setdefault(choice, name)
    return [
        Candidate(name, finder.scheme(choice, name), finder.plan(choice).ram_bytes)
        for choice, name in unique.items()
    ]


def readings(finder: Searcher, found: Contributions) -> dict[str, Gains]:
    """Other ways to add up the same measured gains, each of which may be nearer the truth."""
    plain = measured_gains(found, finder.space, ceiling=None, redraw=finder.redraw)
    return {
        "without biases": _without_biases(finder.gains),
        "plain sums": plain,
        "plain sums without biases": _without_biases(plain),
        "cautious": measured_gains(found, finder.space, CAUTION, redraw=finder.redraw),
    }


def _without_biases(gains: Gains) -> Gains:
    return replace(gains, biases=np.zeros_like(gains.biases))


def _front(
    graph: Graph, finder: Searcher, proposal: Found, results: Sequence[Confirmed], request: Request
) -> tuple[Point, ...]:
    """The chosen scheme among the named ones of the network and the optima at other budgets."""
    n = len(finder.space.body)
    names = ["head", *(f"bias-only:{k}" for k in sorted({max(1, n // 4), max(1, n // 2), n}))]
    names += [f"last:{k}" for k in (1, 2, 4) if k <= n]
    names += [name for name in PUBLISHED if name.split(":")[0] == graph.name]
    points = []
    for name in names:
        scheme = resolve_scheme(name, finder.space.graph)
        points.append(_point(finder, finder.space.choice(scheme), name))
    for c in results:
        choice = finder.space.choice(c.candidate.scheme)
        points.append(_point(finder, choice, c.candidate.name, c.accuracy))
    if proposal.choice not in [finder.space.choice(c.candidate.scheme) for c in results]:
        points.append(_point(finder, proposal.choice, "chosen"))
    seen: dict[str, Point] = {}
    for p in points:
        if p.name not in seen or p.accuracy is not None:
            seen[p.name] = p
    return tuple(sorted(seen.values(), key=lambda p: p.ram_bytes))


def _point(finder: Searcher, choice: Choice, name: str, accuracy: float | None = None) -> Point:
    program = finder.plan(choice)
    analytic = -(-finder.space.analytic_bits(choice) // 8)
    time_ = next((x.milliseconds(choice) for x in finder.others if isinstance(x, StepTime)), None)
    work = sum(program.main.macs().values())
    return Point(name, program.ram_bytes, analytic, work, float(finder.predicted(choice)), accuracy, time_)


def in_words(places: Space, choice: Choice) -> str:
    trained = [
        f"{places.body[i].weight.name} {count}/{places.body[i].channels}"
        for i, count in enumerate(choice.counts)
        if count
    ]
    biases = [f"the last {choice.biases} biases"] if choice.biases else []
    weights = [", ".join(trained)] if trained else []
    return " and ".join([*biases, *weights]) or "nothing"


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase, self._started = "", 0.0

    def __call__(self, phase: str) -> _Clock:
        self._phase = phase
        return self

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds[self._phase] = round(time.perf_counter() - self._started, 1)


__all__ = ["Chosen", "Point", "Request", "Task", "TrainletError", "in_words", "search"]
