"""Packages compile and run: bare, with CMake, as a sketch, under stand-ins for Zephyr and ESP-IDF."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import pytest

from tests.package.packages import FLAGS, TESTS, cc, cmake_build, every_package, package, run, sources, tree
from trainlet.package import FORMATS
from trainlet.runtime.toolchain import compiler

EXAMPLES = {
    "c": "example",
    "cmake": "example",
    "platformio": "examples/learn",
    "zephyr": "samples/learn/src",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_package(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def objects(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The plain package, compiled with no include path but its own, warnings as errors."""
    out = tmp_path_factory.mktemp("objects")
    for source in sources(folders["c"]):
        cc("-std=c99", *FLAGS, "-I", folders["c"], "-c", source, "-o", out / f"{source.stem}.o")
    return sorted(out.glob("*.o"))


def learn(out: Path, package: Path, example: Path, port: Path, objects: list[Path]) -> None:
    """The example with a port, as the program `out`/learn."""
    include = ["-I", package, "-I", example]
    cc("-std=c99", *FLAGS, *include, example / "main.c", port, *objects, "-lm", "-o", out / "learn")


def losses(output: str) -> list[float]:
    return [float(text) for text in re.findall(r"loss (\S+)", output)]


def test_every_format_has_the_same_sources(folders: dict[str, Path]) -> None:
    """So that what compiles for one compiles for all."""
    want = {
        path: text for path, text in tree(folders["c"]).items() if not path.startswith(("example/", "README"))
    }
    want.pop("program.json")
    assert "residual.c" in want and "kernels/conv_s8.c" in want and "runtime/store.c" in want
    for form, folder in folders.items():
        root = folder / "src" if form == "arduino" else folder
        for path, text in want.items():
            assert (root / path).read_bytes() == text, (form, path)


@pytest.mark.parametrize("form", EXAMPLES)
def test_the_example_runs_before_anything_is_filled_in(
    form: str, folders: dict[str, Path], objects: list[Path], tmp_path: Path
) -> None:
    example = folders[form] / EXAMPLES[form]
    learn(tmp_path, folders[form], example, example / "port.c", objects)
    assert len(losses(run([tmp_path / "learn"]))) == 25


def test_what_was_learned_survives(folders: dict[str, Path], objects: list[Path], tmp_path: Path) -> None:
    """With samples, labels and flash filled in: the loss falls, the next run starts where this one ended."""
    shutil.copy(TESTS / "port_file.c", tmp_path / "port.c")
    learn(tmp_path, folders["c"], folders["c"] / "example", tmp_path / "port.c", objects)
    first, second = (run([tmp_path / "learn"], cwd=tmp_path) for _ in range(2))
    assert sum(losses(second)) < 0.9 * sum(losses(first))
    assert first.count("save: ") >= 3 and first.splitlines()[0] != second.splitlines()[0]


@pytest.mark.parametrize("kind", ["batch", "accumulate", "regression", "rows", "caller"])
def test_the_example_fits_other_programs(kind: str, tmp_path: Path) -> None:
    folder = package(tmp_path / "package", "c", None, kind)
    files = [*sources(folder), folder / "example" / "main.c", folder / "example" / "port.c"]
    cc("-std=c99", *FLAGS, "-I", folder, *files, "-lm", "-o", tmp_path / "learn")
    assert losses(run([tmp_path / "learn"]))


def test_a_package_is_a_subdirectory_of_a_cmake_project(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware C)\n"
        f"add_subdirectory({folders['cmake']} network)\n"
        f"add_executable(firmware {folders['cmake']}/example/main.c {folders['cmake']}/example/port.c)\n"
        "target_link_libraries(firmware PRIVATE trainlet::residual)\n"
    )
    build = cmake_build(tmp_path, tmp_path / "build")
    assert len(losses(run([build / "firmware"]))) == 25


def test_a_cmake_package_builds_its_example_on_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    build = cmake_build(folders["cmake"], tmp_path / "build")
    assert len(losses(run([build / "residual_example"]))) == 25


@pytest.mark.parametrize("form", ["zephyr", "idf"])
def test_the_build_files_name_sources_that_are_there(
    form: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    build = cmake_build(TESTS / f"fake_{form}", tmp_path / "build", f"-DPACKAGE={folders[form]}")
    assert len(losses(run([build / "learn"]))) == 25


def test_the_sketch_compiles_as_cpp_and_learns(folders: dict[str, Path], tmp_path: Path) -> None:
    """As Arduino does it: no flags of ours, src/ the only include path."""
    folder = folders["arduino"]
    sketch, build = folder / "examples" / "Learn", tmp_path / "build"
    build.mkdir()
    include = ["-DARDUINO=10819", "-Wall", "-Wextra", "-Werror", "-I", folder / "src"]
    files = [*sources(folder / "src"), sketch / "port.c"]
    cpp = ["-x", "c++", "-include", TESTS / "Arduino.h", "-c", sketch / "Learn.ino"]
    cc("-std=gnu++11", *include, *cpp, "-o", build / "sketch.o")
    for source in files:
        cc("-std=gnu11", *include, "-c", source, "-o", build / f"{source.stem}.o")
    cc(*sorted(build.glob("*.o")), "-lm", "-o", tmp_path / "sketch")
    lines = run([tmp_path / "sketch"]).splitlines()
    assert len([line for line in lines if re.fullmatch(r"\d+\.\d{4}", line)]) == 25


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 instructions")
def test_the_sketch_fuses_no_multiply_add_of_its_own_accord(tmp_path: Path) -> None:
    """tl_config.h does the work of -ffp-contract=off on a gcc that would fuse."""
    if "Free Software Foundation" not in run([*compiler(), "--version"]):
        pytest.skip("the pragma is gcc's")
    kernels = package(tmp_path / "arduino", "arduino", "stm32f207") / "src" / "kernels"
    fused = []
    for define in ("-DARDUINO=10819", "-DNO_ARDUINO"):
        flags = ["-std=gnu11", "-O2", "-mfma", "-ffp-contract=fast", define]
        cc(*flags, "-S", kernels / "pointwise_f32.c", "-o", tmp_path / "out.s")
        fused.append((tmp_path / "out.s").read_text().count("vfmadd"))
    assert fused[0] == 0 < fused[1]


def test_every_format_is_built_here() -> None:
    assert set(EXAMPLES) | {"arduino", "idf"} == set(FORMATS)
