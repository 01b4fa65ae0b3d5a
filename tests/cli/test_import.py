"""`import trainlet` costs next to nothing, and its names are the API's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stdout


@pytest.mark.parametrize(
    "statement", ["import trainlet", "import trainlet.api", "from trainlet import train, plan"]
)
def test_importing_needs_numpy_alone(statement: str) -> None:
    found = python(f"import sys\n{statement}\nprint(*{{m.split('.')[0] for m in sys.modules}})").split()
    heavy = {"torch", "onnx", "onnxruntime", "rich", "typer", "PIL", "safetensors", "matplotlib", "scipy"}
    assert "trainlet" in found and not heavy & set(found)


def test_importing_takes_less_than_300_ms() -> None:
    code = "import time; t = time.perf_counter(); import trainlet; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_functions_are_not_hidden_by_folders_of_their_name() -> None:
    code = """
import trainlet.plan.program, trainlet.train.autodiff, trainlet.quantize.int8
from trainlet import plan, quantize
from trainlet.api import train
print(trainlet.plan is plan, trainlet.train is train, callable(quantize), trainlet.plan.__module__)
"""
    assert python(code).split() == ["True", "True", "True", "trainlet.api.programs"]


def test_every_exported_name_exists() -> None:
    assert (
        python("import trainlet\nprint(all(hasattr(trainlet, n) for n in trainlet.__all__))").strip()
        == "True"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import trainlet\ntry: trainlet.nonsense\nexcept AttributeError as e: print(e)"
    assert "nonsense" in python(code)
