"""`trainlet tune`: time both ways of every step that has two on this machine, and remember the faster.

The very program of a network is built each way and times its own steps; what else the machine does is kept
out by taking each step's least time over many turns. Later compiles for this processor look the answers up
(backends/cpu/choices.py). Results change by the rounding of sums at most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.backends.cpu import native_isa, plan_program, write_program
from trainlet.backends.cpu.choices import Choices, machine_choices, remember
from trainlet.errors import BackendError
from trainlet.ir import Graph, GraphBuilder, Value

if TYPE_CHECKING:
    from trainlet.plan.program import Program

MARGIN = 0.05  # a way that is not the default has to be faster by this share
TURNS = 10  # each way runs in so many turns
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Asked(Choices):
    """Answers all questions of some kind alike, and notes which steps asked them."""

    answers: Mapping[str, bool] = field(default_factory=dict)
    notes: dict[tuple[str, str], tuple[bool, set[int]]] = field(default_factory=dict, compare=False)

    def pick(self, question: str, key: str, default: bool, step: int) -> bool:
        default = super().pick(question, key, default, step)
        self.notes.setdefault((question, key), (default, set()))[1].add(step)
        return self.answers.get(question, default)


@dataclass(frozen=True)
class Answer:
    """What was measured for a question about a step: microseconds of all steps alike, if yes and if no."""

    question: str
    key: str
    default: bool
    yes_us: float
    no_us: float

    @property
    def chosen(self) -> bool:
        mine, other = (self.yes_us, self.no_us) if self.default else (self.no_us, self.yes_us)
        return not self.default if other < (1 - MARGIN) * mine else self.default


def tune(
    model: Any = None,
    example_inputs: Any = None,
    *,
    scheme: Any = "full",
    batch: int = 8,
    threads: int = 1,
    rounds: int = 100,
    norm: str = "folded",
    watch: Watch = lambda text: None,
) -> list[Answer]:
    """Measure the kernels for a model's shapes on this machine; later compiles here use what was faster.

    model, example_inputs, scheme, batch, threads, norm: as for `compile`; without a model layers of common
    networks are measured. rounds: training steps that each way runs. Returns what was found, the answers
    being in the cache folder. Raises TrainletError as `compile` does; BackendError for an int8 network.
    """
    from trainlet import api
    from trainlet.compiled.compile import choose_backend, read_model, scheme_for

    graph = common_layers() if model is None else read_model(model, example_inputs, norm)[0]
    if choose_backend(None, graph) != "cpu":
        raise BackendError(f"{graph.name} is not float throughout: its kernels have no alternatives")
    settings = api.Settings(scheme_for(scheme, graph), batch=batch)
    found: list[Answer] = []
    program = plan_program(api.derive(graph, settings), threads)
    for questions in (("winograd", "blocks"), ("threads",) if threads > 1 else ()):
        known = {**machine_choices(native_isa()).table, **table_of(found)}
        found += measure(program, threads, questions, known, rounds, watch)
    remember(native_isa(), table_of(found))
    return found


def table_of(found: Iterable[Answer]) -> dict[str, bool]:
    """Answers as a table of choices.py."""
    return {f"{a.question} {a.key}": a.chosen for a in found}


def measure(
    program: Program,
    threads: int,
    questions: tuple[str, ...],
    known: Mapping[str, bool],
    rounds: int,
    watch: Watch = lambda text: None,
) -> list[Answer]:
    """Both ways of all steps that ask one of `questions`; other questions are answered from `known`."""
    from trainlet.runtime.profile import Profile

    if not questions:
        return []
    defaults = {k: v for k, v in known.items() if k.split()[0] not in questions}
    ways = [Asked(defaults, dict.fromkeys(questions, yes)) for yes in (True, False)]
    with tempfile.TemporaryDirectory(prefix="trainlet-tune-") as place:
        profiles: list[Profile] = []
        for way in ways:
            watch(f"building with {', '.join(questions)}: {'yes' if way.answers[questions[0]] else 'no'}")
            folder = write_program(program, Path(place) / str(len(profiles)), threads, choices=way)
            profiles.append(Profile(program, folder))
        watch(f"{rounds} steps each way")
        for _ in range(TURNS):
            for profile in profiles:
                profile.run(max(1, rounds // TURNS))
        yes, no = (p.least_us() for p in profiles)
    return [
        Answer(question, key, default, float(yes[list(steps)].sum()), float(no[list(steps)].sum()))
        for (question, key), (default, steps) in ways[0].notes.items()
        if question in questions and yes[list(steps)].all() and no[list(steps)].all()
    ]


def common_layers() -> Graph:
    """A network of shapes that vision networks have: ResNet's stages, then wide and narrow 1x1 layers."""
    b, rng = GraphBuilder("common"), np.random.default_rng(0)
    count = 0

    def conv(x: Value, o: int, k: int, stride: int = 1) -> Value:
        nonlocal count
        count += 1
        size = (o, k, k, x.shape[-1])
        w = b.constant(f"conv{count}/weight", rng.normal(0, (2 / np.prod(size[1:])) ** 0.5, size))
        bias = b.constant(f"conv{count}/bias", np.zeros(o))
        attrs = {"strides": (stride, stride), "pads": (k // 2,) * 4, "groups": 1, "dilations": (1, 1)}
        y = b.add("Conv", [x, w, bias], attrs, name=f"conv{count}", source=f"common:/conv{count}")
        return b.add("Clip", [y], {"lo": 0.0}, name=f"relu{count}")

    x = conv(b.input("x", "f32", (1, 112, 112, 3)), 32, 3)
    x = conv(conv(conv(x, 16, 1), 96, 1), 24, 1, 2)
    for channels in (64, 128, 256, 512):
        x = conv(conv(conv(x, channels, 1), channels, 3), channels, 3, 2)
    x = conv(conv(x, 1280, 1), 320, 1)
    pooled = b.add("AveragePool", [x], {"kernel": ()}, name="pooled")
    flat = b.add("Reshape", [pooled], {"shape": (1, x.shape[-1])}, name="flat")
    w = b.constant("head/weight", rng.normal(0, 0.05, (100, x.shape[-1])))
    return b.build([b.add("Gemm", [flat, w, b.constant("head/bias", np.zeros(100))], name="logits")])
