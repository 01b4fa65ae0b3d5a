"""What a package is for: a board's kernels and memories, one folder that can be written again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.host.programs import network, samples
from tests.package.packages import SETTINGS, package, tree
from trainlet import api
from trainlet.backends.c99 import KERNELS
from trainlet.backends.c99.header import model_id
from trainlet.cli.app import app
from trainlet.device.board import FOLDER, boards
from trainlet.errors import BackendError, BudgetError
from trainlet.ir.text import save_graph
from trainlet.package import FORMATS
from trainlet.package.contents import KERNEL_FOLDER, core, kernel_files
from trainlet.runtime.host import HostProgram


def small_board(folder: Path, **values: int) -> Path:
    """stm32f746 with other budget_bytes for `ram` or `flash`."""
    text = (FOLDER / "stm32f746.toml").read_text().replace("budget_bytes = 262_144\n", "")
    for memory, count in values.items():
        text = text.replace(f"[{memory}]\n", f"[{memory}]\nbudget_bytes = {count}\n")
    (folder / "small.toml").write_text(text)
    return folder / "small.toml"


def test_cores_choose_their_kernels() -> None:
    cores = {name: core(part) for name, part in boards().items()}
    assert cores["stm32f746"] == "cortex-m7" and cores["nrf52840"] == "cortex-m4"
    faster = {path.name for path in (KERNEL_FOLDER / "armv7em").glob("*.[ch]")}
    for name, part in boards().items():
        chosen = {n for n, path in kernel_files(part).items() if path.parent.name == "armv7em"}
        assert chosen == (faster if cores[name] in ("cortex-m4", "cortex-m7") else set())
        assert set(kernel_files(part)) >= set(kernel_files(None))


@pytest.mark.parametrize("name,fma", [("stm32f746", 1), ("stm32f207", 0), (None, 0)])
def test_the_configuration_is_the_boards(name: str | None, fma: int, tmp_path: Path) -> None:
    text = (package(tmp_path, "c", name) / "tl_config.h").read_text()
    assert f"#define TL_USE_FMA {fma}\n" in text
    assert ("#define TL_LANES 4\n" in text) == (name is not None)


def test_too_little_ram_is_an_error_that_names_what_is_alive(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"needs 6,\d+ bytes of RAM .* beside a stack of 4,096, small has 8,192.*d_conv8"
    ):
        package(tmp_path / "package", "cmake", small_board(tmp_path, ram=8192))
    assert not (tmp_path / "package").exists()


def test_too_little_flash_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"constants of residual take 3,\d+ bytes of flash, small has 2,048"
    ):
        package(tmp_path / "package", "c", small_board(tmp_path, flash=2048))


def test_a_node_without_a_kernel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KERNELS, "QLinearAdd")
    with pytest.raises(BackendError, match="QLinearAdd at .* has no C kernel"):
        package(tmp_path / "package", "idf")
    assert not (tmp_path / "package").exists()


def test_another_format_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    for form in (*FORMATS, "c"):
        package(tmp_path / "again", form)
        (tmp_path / "again" / "notes.txt").write_text("mine")
    package(tmp_path / "fresh", "c")
    fresh = tree(tmp_path / "fresh")
    assert tree(tmp_path / "again") == {**fresh, "notes.txt": b"mine"}


def test_a_list_of_files_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    folder = package(tmp_path / "package", "c")
    about = json.loads((folder / "program.json").read_text())
    about["package"]["files"] += ["../mine.txt", str(tmp_path / "mine.txt")]
    (folder / "program.json").write_text(json.dumps(about))
    package(folder, "cmake")
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("form", ["c", "arduino"])
def test_a_package_for_a_board_runs_here(form: str, tmp_path: Path) -> None:
    """The same bits from a package as from the program that is trained here, with the board's kernels."""
    folder = package(tmp_path, form)
    host = HostProgram(folder / "src" if form == "arduino" else folder)
    graph = network("residual", True)
    twin, x = api.build(graph, SETTINGS["stochastic"]), samples(graph, 3)
    for i in range(3):
        label = np.array([i % 5])
        assert host.step(x[i : i + 1], label, 0.05) == twin.step(x[i : i + 1], label, 0.05)
    assert np.array_equal(host.predict(x), twin.predict(x))


def test_a_state_of_another_network_or_scheme_has_another_id() -> None:
    def ids() -> list[int]:
        kinds = [(name, kind) for name in ("residual", "wave") for kind in ("stochastic", "batch")]
        return [model_id(api.plan(network(n, True), SETTINGS[k])) for n, k in kinds]

    first = ids()
    assert len(set(first)) == 4 and first == ids()


def test_the_command_line_writes_packages(tmp_path: Path) -> None:
    save_graph(network("residual", True), tmp_path / "net.tl")
    words = [
        "compile",
        str(tmp_path / "net.tl"),
        "-o",
        str(tmp_path / "out"),
        "--board",
        "esp32c3",
        "--format",
        "idf",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "idf_component.yml").is_file()
    about = json.loads((tmp_path / "out" / "program.json").read_text())
    assert about["package"]["format"] == "idf" and about["package"]["board"] == "esp32c3"
    failed = CliRunner().invoke(app, [*words, "--board", "esp9000"])
    assert failed.exit_code == 1 and re.match("error: no board esp9000: there are .*stm32f746", failed.stderr)
