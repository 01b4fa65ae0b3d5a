"""Either way of a step gives the same numbers, and a table decides between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.backends.cpu.programs import GRAPHS, batch
from trainlet.api import Settings, derive
from trainlet.backends.cpu import native_isa, plan_program, write_program
from trainlet.backends.cpu.choices import QUESTIONS, Choices, machine_choices, remember, table_path
from trainlet.compiled.tune import Asked
from trainlet.runtime.host import HostProgram


def gradients(folder: Path, choices: Choices, threads: int = 1) -> dict[str, np.ndarray]:
    """What one step at rate 1 changes."""
    program = plan_program(derive(GRAPHS["stages"](), Settings("full", batch=2)), threads, choices=choices)
    host = HostProgram(write_program(program, folder, threads, choices=choices))
    before = host.tensors()
    host.step(*batch(program), 1.0)
    return {name: before[name] - after for name, after in host.tensors().items()}


@pytest.mark.parametrize("question", QUESTIONS)
def test_either_answer_gives_the_same_gradients(question: str, tmp_path: Path) -> None:
    threads = 2 if question == "threads" else 1
    ways = {yes: Asked({}, {question: yes}) for yes in (True, False)}
    found = {yes: gradients(tmp_path / str(yes), way, threads) for yes, way in ways.items()}
    assert any(asked == question for asked, _ in ways[True].notes)
    sources = [next((tmp_path / str(yes)).glob("stages.c")).read_text() for yes in (True, False)]
    assert sources[0] != sources[1]
    for name, yes in found[True].items():
        np.testing.assert_allclose(yes, found[False][name], atol=1e-4 * np.abs(yes).max(), err_msg=name)


def test_a_table_decides_for_the_step_it_names(tmp_path: Path) -> None:
    asked = Asked()
    plain = gradients(tmp_path / "plain", asked)
    (question, key), (default, steps) = next(iter(asked.notes.items()))
    assert steps
    table = Choices({f"{question} {key}": not default})
    other = gradients(tmp_path / "other", table)
    assert plain.keys() == other.keys()
    texts = [(tmp_path / folder / "stages.c").read_text().splitlines() for folder in ("plain", "other")]
    assert texts[0] != texts[1]
    assert table.digest != Choices().digest


def test_answers_are_remembered_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    isa = native_isa()
    assert machine_choices(isa) == Choices()
    remember(isa, {"winograd a": True})
    remember(isa, {"winograd b": False})
    assert machine_choices(isa).table == {"winograd a": True, "winograd b": False}
    assert machine_choices("aarch64" if isa != "aarch64" else "x86-64") == Choices()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"answers": 3}', '{"answers": null}'])
def test_a_damaged_table_means_defaults(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    path = table_path(native_isa())
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert machine_choices(native_isa()) == Choices()
