"""`trainlet tune` measures a network's steps here, and later compiles follow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trainlet
from tests.backends.cpu.programs import residual_stages
from tests.host.programs import NETWORKS
from trainlet.api import Settings, derive
from trainlet.backends.cpu import native_isa, plan_program
from trainlet.backends.cpu.choices import machine_choices, remember, table_path
from trainlet.compiled.compile import plan_for, write_for
from trainlet.compiled.tune import MARGIN, Answer, Asked, common_layers
from trainlet.errors import BackendError
from trainlet.ir import Graph
from trainlet.quantize import quantize


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_table(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this file's own, so that kernels compile once, and in it nothing measured yet."""
    monkeypatch.setenv("TRAINLET_CACHE", str(cache))
    table_path(native_isa()).unlink(missing_ok=True)


def turned(graph: Graph) -> dict[str, bool]:
    """A table that answers every question about a network unlike the default."""
    asked = Asked()
    plan_program(derive(graph, Settings("full", batch=2)), choices=asked)
    return {f"{question} {key}": not default for (question, key), (default, _) in asked.notes.items()}


def test_every_question_of_a_network_is_measured_and_remembered() -> None:
    found = trainlet.tune(residual_stages(), batch=2, threads=2, rounds=10)
    assert {a.question for a in found} == {"winograd", "blocks", "threads"}
    assert all(a.yes_us > 0 and a.no_us > 0 for a in found)
    assert machine_choices(native_isa()).table == {f"{a.question} {a.key}": a.chosen for a in found}


def test_a_way_has_to_be_clearly_faster_to_replace_the_default() -> None:
    barely, clearly = 100 * (1 - MARGIN) + 1, 100 * (1 - MARGIN) - 1
    assert Answer("threads", "", True, 100, barely).chosen
    assert not Answer("threads", "", True, 100, clearly).chosen
    assert not Answer("threads", "", False, barely, 100).chosen
    assert Answer("threads", "", False, clearly, 100).chosen


def test_a_compile_follows_the_table_and_is_not_taken_for_the_one_before() -> None:
    graph = residual_stages()
    first = trainlet.compile(graph, batch=2)
    again = trainlet.compile(graph, batch=2)
    assert again.host.folder == first.host.folder
    remember(native_isa(), turned(graph))
    other = trainlet.compile(graph, batch=2)
    assert other.host.folder != first.host.folder
    x = np.random.default_rng(0).normal(size=(2, 36, 39, 3)).astype(np.float32)
    losses = [p.step(x, np.array([0, 3]), 0.01) for p in (first, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_program_for_another_processor_ignores_the_table(tmp_path: Path) -> None:
    graph, settings = residual_stages(), Settings("full", batch=2)

    def source(name: str) -> str:
        program = plan_for(graph, settings, "cpu", isa="x86-64")
        return (write_for(program, tmp_path / name, "cpu", isa="x86-64") / "stages.c").read_text()

    before = source("before")
    remember(native_isa(), turned(graph))
    assert source("after") == before


def test_common_layers_ask_about_both_kernels() -> None:
    asked = Asked()
    plan_program(derive(common_layers(), Settings("full", batch=2)), 2, choices=asked)
    assert {question for question, _ in asked.notes} == {"winograd", "blocks", "threads"}


def test_an_int8_network_is_refused() -> None:
    graph = NETWORKS["residual"]()
    samples = np.random.default_rng(0).normal(size=(8, *graph.inputs[0].shape[1:])).astype(np.float32)
    with pytest.raises(BackendError, match="not float"):
        trainlet.tune(quantize(graph, samples))
