"""Each framework in an environment of its own, made when it is first asked for: build/envs/NAME."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import ROOT, markdown

FOLDER = ROOT / "build" / "envs"
STAMP = "installed.json"


@dataclass(frozen=True)
class Environment:
    """Packages that count as the framework's install size, and what only our benchmark adds."""

    packages: tuple[str, ...]
    extras: tuple[str, ...] = ()


# onnxruntime-training ended with 1.19.2; the onnx of its time knows the operators that its artifacts use, and
# importing its training module takes torch, though its package does not say so.
ENVIRONMENTS = {
    "trainlet": Environment((str(ROOT),)),
    "torch": Environment(("torch==2.13.0", "numpy"), ("transformers>=5.0",)),
    "jax": Environment(("jax>=0.7",), ("safetensors",)),
    "tensorflow": Environment(("tensorflow-cpu>=2.18",), ("safetensors",)),
    "onnxruntime": Environment(
        ("onnxruntime-training==1.19.2", "onnx==1.16.2", "torch==2.13.0"), ("safetensors",)
    ),
}


def environment_of(contender: str) -> str:
    """ "torch channels_last" and "torch.compile" run in the environment "torch"."""
    return contender.split()[0].split(".")[0]


@functools.cache
def interpreter(name: str) -> Path:
    """Python of the environment `name`, installed if it is not yet.

    Raises RuntimeError with pip's last line where its packages cannot be installed.
    """
    about, python = ENVIRONMENTS[name], FOLDER / name / "bin" / "python"
    wanted = [*about.packages, *about.extras]
    if _stamp(name).get("packages") != wanted:
        print(f"installing {', '.join(wanted)} into {FOLDER / name}", file=sys.stderr, flush=True)
        venv.create(FOLDER / name, clear=True, with_pip=True)
        before = _bytes(name)
        _install(python, about.packages)
        size = _bytes(name) - before
        _install(python, about.extras)
        (FOLDER / name / STAMP).write_text(json.dumps({"packages": wanted, "bytes": size}))
    return python


def install_bytes(name: str) -> float | None:
    """What the framework and all it needs take on the disk beside Python itself; None where unknown."""
    return _stamp(name).get("bytes")  # type: ignore[return-value]


def install_table() -> str:
    """Size on the disk of the environments that are there, beside Python itself."""
    rows = []
    for name, about in ENVIRONMENTS.items():
        size = install_bytes(name)
        if size is not None:
            found = versions(name)
            wanted = [p for p in found if any(normal(w).startswith(normal(p)) for w in about.packages)]
            rows.append(
                [name, ", ".join(f"{p} {found[p]}" for p in wanted) or "this one", f"{size / 1e6:.0f}"]
            )
    return markdown(["environment", "packages, with all they need", "MB"], rows)


def normal(package: str) -> str:
    """A package's name as pip compares it."""
    return package.lower().replace("_", "-")


def versions(name: str) -> dict[str, str]:
    """Packages of an environment that is there."""
    python = FOLDER / name / "bin" / "python"
    if not python.is_file():
        return {}
    said = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    return {p["name"]: p["version"] for p in json.loads(said.stdout)}


def _stamp(name: str) -> dict[str, object]:
    path = FOLDER / name / STAMP
    return json.loads(path.read_text()) if path.is_file() else {}


def _install(python: Path, packages: tuple[str, ...]) -> None:
    if not packages:
        return
    done = subprocess.run([python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
    if done.returncode:
        said = [x for x in done.stderr.splitlines() if x.strip()]
        raise RuntimeError(f"cannot be installed: {said[-1] if said else 'pip failed'}")


def _bytes(name: str) -> int:
    files = (p for p in (FOLDER / name / "lib").rglob("*") if p.is_file() and p.suffix != ".pyc")
    return sum(p.stat().st_size for p in files)
