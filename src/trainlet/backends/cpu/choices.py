"""Which of two ways a step is computed: what `trainlet tune` measured on this machine, else a default.

Questions, asked by the writers where both ways give the same result up to the rounding of sums:

    winograd   a 3x3 convolution through Winograd's tiles (else a product over tiles of patches)
    blocks     the weight gradient of a 1x1 convolution by blocks of columns (else one product)
    threads    all threads work on the step (else the calling one alone)
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainlet.ir import Node

QUESTIONS = ("winograd", "blocks", "threads")


@dataclass(frozen=True)
class Choices:
    """Answers by "question step"; `step_key` is the step's part."""

    table: Mapping[str, bool] = field(default_factory=dict)

    def pick(self, question: str, key: str, default: bool, step: int) -> bool:
        """The answer for a step with this key; `step` is its number in the program."""
        return self.table.get(f"{question} {key}", default)

    @property
    def digest(self) -> str:
        """Hash of the table: programs of the same digest choose alike."""
        text = json.dumps(dict(self.table), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def step_key(node: Node, frozen: bool, threads: int) -> str:
    """What decides the speed of a step: op, shapes, strides, whether its weights lie packed, threads."""
    shapes = ["x".join(map(str, v.shape)) for v in node.inputs[:2] if v is not None]
    out = "x".join(map(str, node.output.shape))
    strides = "x".join(map(str, node.attrs.get("strides", ())))
    words = [node.op, *shapes, "to", out, *([f"strides {strides}"] if strides else [])]
    return " ".join([*words, *(["frozen"] if frozen else []), f"threads {threads}"])


def table_path(isa: str) -> Path:
    """Where this machine's answers for an instruction set are kept: in the cache folder, by processor."""
    from trainlet.runtime.toolchain import cache_folder

    name = hashlib.sha256(f"{isa} {_processor()}".encode()).hexdigest()[:16]
    return cache_folder() / "tuned" / f"{name}.json"


def machine_choices(isa: str) -> Choices:
    """What was measured here for programs of `isa`; no answers where nothing was, or the file is damaged."""
    try:
        table = json.loads(table_path(isa).read_text())["answers"]
        return Choices({str(k): bool(v) for k, v in table.items()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return Choices()


def remember(isa: str, answers: Mapping[str, bool]) -> Path:
    """Add answers to this machine's table; the file appears whole or not at all."""
    path = table_path(isa)
    path.parent.mkdir(parents=True, exist_ok=True)
    merged = {**machine_choices(isa).table, **answers}
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".json")
    with os.fdopen(handle, "w") as file:
        json.dump({"processor": _processor(), "isa": isa, "answers": merged}, file, indent=1, sort_keys=True)
    Path(name).replace(path)
    return path


def _processor() -> str:
    """The processor's model, as far as the system tells it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "CPU part", "CPU implementer", "cache size")
    found = dict.fromkeys(x.split(":", 1)[1].strip() for x in lines if x.startswith(wanted))
    return ", ".join(found) or f"{platform.machine()} {platform.processor()}"
