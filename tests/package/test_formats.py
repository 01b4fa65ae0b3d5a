"""The metadata of each format against the rules its package manager publishes; no manager runs here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.package.packages import every_package
from trainlet.package import FORMATS

SEMVER = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_package(tmp_path_factory.mktemp("packages"))


# Arduino: https://arduino.github.io/arduino-cli/latest/library-specification/ (rev. 2.2)

ARDUINO_REQUIRED = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url",
                    "architectures"}  # fmt: skip
ARDUINO_OPTIONAL = {"depends", "dot_a_linkage", "includes", "precompiled", "ldflags"}
ARDUINO_CATEGORIES = {"Display", "Communication", "Signal Input/Output", "Sensors", "Device Control",
                      "Timing", "Data Storage", "Data Processing", "Other"}  # fmt: skip


def properties(folder: Path) -> dict[str, str]:
    lines = (folder / "library.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_arduino_properties_follow_the_specification(folders: dict[str, Path]) -> None:
    p = properties(folders["arduino"])
    assert set(p) >= ARDUINO_REQUIRED and set(p) <= ARDUINO_REQUIRED | ARDUINO_OPTIONAL
    assert all(p.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", p["name"]) and re.search("[A-Za-z]", p["name"])
    assert not p["name"].startswith("Arduino") and len(p["name"]) <= 63
    assert re.fullmatch(SEMVER, p["version"])
    assert p["category"] in ARDUINO_CATEGORIES
    assert p["url"].startswith("https://")
    assert p["architectures"] == "*" and p["dot_a_linkage"] == "true"
    assert all((folders["arduino"] / "src" / name).is_file() for name in p["includes"].split(","))


def test_arduino_layout_is_recursive(folders: dict[str, Path]) -> None:
    """Sources below src/ only, kernel headers in a subfolder, a sketch named as its folder."""
    root = folders["arduino"]
    assert not [*root.glob("*.c"), *root.glob("*.h"), *(root / "utility").glob("*")]
    assert {h.name for h in (root / "src").glob("*.h")} == {"residual.h", "residual_data.h", "tl_config.h"}
    sketches = list((root / "examples").rglob("*.ino"))
    assert sketches and all(s.stem == s.parent.name for s in sketches)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", s.stem) for s in sketches)


def test_arduino_includes_resolve_from_src_alone(folders: dict[str, Path]) -> None:
    """Only src/ is on the include path: every other include is relative to the file that includes."""
    src = folders["arduino"] / "src"
    for file in [*src.rglob("*.c"), *src.rglob("*.h")]:
        for name in re.findall(r'^#include "(.+)"', file.read_text(), re.M):
            assert (file.parent / name).is_file(), (file, name)


# PlatformIO: https://docs.platformio.org/en/latest/manifests/library-json/, checked by pio pkg pack


def test_platformio_manifest_follows_the_schema(folders: dict[str, Path]) -> None:
    folder = folders["platformio"]
    m: dict[str, Any] = json.loads((folder / "library.json").read_text())
    known = {
        "name",
        "version",
        "description",
        "keywords",
        "frameworks",
        "platforms",
        "headers",
        "examples",
        "build",
    }
    assert set(m) <= known
    assert 1 <= len(m["name"]) <= 100 and not re.search(r"[:;/,@<>]", m["name"])
    assert re.fullmatch(SEMVER, m["version"]) and len(m["version"]) <= 50
    assert 1 <= len(m["description"]) <= 1000
    assert all(len(k) <= 50 and re.fullmatch(r"[a-z\d\-_+. ]+", k) for k in m["keywords"])
    assert m["frameworks"] == m["platforms"] == "*"
    assert all((folder / h).is_file() for h in m["headers"])
    for example in m["examples"]:
        assert re.fullmatch(r"[a-zA-Z\d\-_/]{1,100}", example["name"])
        assert all((folder / example["base"] / f).is_file() for f in example["files"])
    assert set(m["build"]) <= {"srcDir", "includeDir", "srcFilter", "flags", "unflags"}


def test_platformio_compiles_the_sources_and_nothing_else(folders: dict[str, Path]) -> None:
    folder = folders["platformio"]
    first, *rest = json.loads((folder / "library.json").read_text())["build"]["srcFilter"]
    assert first == "-<*>"
    listed = {re.fullmatch(r"\+<(.+)>", rule)[1] for rule in rest}  # type: ignore[index]
    there = {str(p.relative_to(folder)) for p in folder.rglob("*.c")}
    assert listed == {path for path in there if not path.startswith("examples/")}


# Zephyr: https://docs.zephyrproject.org/latest/develop/modules.html, schema in scripts/zephyr_module.py


def test_zephyr_module_follows_the_schema(folders: dict[str, Path]) -> None:
    folder = folders["zephyr"]
    m = yaml.safe_load((folder / "zephyr" / "module.yml").read_text())
    assert set(m) == {"name", "build"} and m["name"] == "residual"
    assert set(m["build"]) == {"cmake", "kconfig"}
    assert (folder / m["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (folder / m["build"]["kconfig"]).is_file()


def test_zephyr_kconfig_defines_the_option_that_the_build_asks_for(folders: dict[str, Path]) -> None:
    folder = folders["zephyr"]
    kconfig = (folder / "zephyr" / "Kconfig").read_text()
    symbol = re.search(r'^config ([A-Z][A-Z0-9_]*)\n\tbool "[^"\n]+"$', kconfig, re.M)
    assert symbol is not None
    assert f"if(CONFIG_{symbol[1]})" in (folder / "zephyr" / "CMakeLists.txt").read_text()
    assert f"CONFIG_{symbol[1]}=y\n" in (folder / "samples" / "learn" / "prj.conf").read_text()
    assert all(line.startswith(("config ", "\t")) for line in kconfig.splitlines())


# ESP-IDF: https://docs.espressif.com/projects/idf-component-manager/en/latest/reference/manifest_file.html

IDF_KEYS = {"version", "maintainers", "description", "license", "tags", "url", "repository", "documentation",
            "issues", "discussion", "targets", "dependencies", "files", "examples"}  # fmt: skip


def test_idf_manifest_follows_the_reference(folders: dict[str, Path]) -> None:
    m = yaml.safe_load((folders["idf"] / "idf_component.yml").read_text())
    assert set(m) <= IDF_KEYS
    assert re.fullmatch(SEMVER, m["version"])
    assert isinstance(m["description"], str) and m["description"]
    assert m["dependencies"] == {"idf": ">=4.4"}


def test_idf_registers_sources_that_are_there(folders: dict[str, Path]) -> None:
    """https://docs.espressif.com/projects/esp-idf/en/stable/esp32/api-guides/build-system.html#component-cmakelists-files"""
    text = (folders["idf"] / "CMakeLists.txt").read_text()
    call = re.search(r"idf_component_register\((.+?)\)", text, re.S)
    assert call is not None
    words = call[1].split()
    listed = words[words.index("SRCS") + 1 : words.index("INCLUDE_DIRS")]
    assert listed and all((folders["idf"] / name).is_file() for name in listed)
    project = (folders["idf"] / "examples" / "learn" / "CMakeLists.txt").read_text()
    assert "include($ENV{IDF_PATH}/tools/cmake/project.cmake)" in project and "project(learn)" in project


@pytest.mark.parametrize("form", FORMATS)
def test_every_package_explains_itself(form: str, folders: dict[str, Path]) -> None:
    text = (folders[form] / "README.md").read_text()
    assert "@" not in text
    assert "RAM, together" in text and "of the 262,144 of stm32f746" in text
    assert "conv8/weight" in text and "STM32F746" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (folders[form] / link).is_file()


@pytest.mark.parametrize("form", FORMATS)
def test_no_key_of_a_template_is_left(form: str, folders: dict[str, Path]) -> None:
    for file in folders[form].rglob("*"):
        if file.is_file() and file.parent.name not in ("kernels", "runtime"):
            assert not re.search(r"@[A-Z_]+@", file.read_text()), file
