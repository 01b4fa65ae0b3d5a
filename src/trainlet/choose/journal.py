"""The journal of an analysis: one line for every run that is finished, so that none is ever repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainlet.errors import AnalysisError

FORMAT = "trainlet-journal-1"


def journal_path(output: Path) -> Path:
    """Beside the analysis it belongs to."""
    return output.with_name(f"{output.name}.journal.jsonl")


class Journal:
    """Records by key in a JSON lines file. A line cut short by a crash is dropped, all others hold."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Opens or begins it. Raises AnalysisError where it belongs to another analysis than `identity`
        says."""
        self.path, self.records = path, {}  # type: ignore[var-annotated]
        identity = json.loads(json.dumps(identity))
        lines = self._whole_lines()
        if not lines:
            self._append({"format": FORMAT, **identity})
            return
        if lines[0].get("format") != FORMAT:
            raise AnalysisError(
                f"{path} is not a journal of this version: remove it, or choose another output"
            )
        if other := [k for k, v in identity.items() if lines[0].get(k) != v]:
            raise AnalysisError(
                f"{path} holds an analysis with other {', '.join(_names(lines[0], identity, other))}: give "
                "the same to go on with it, or choose another output"
            )
        self.records = {line["key"]: line["record"] for line in lines[1:]}

    def _whole_lines(self) -> list[dict[str, Any]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = self.path.read_bytes() if self.path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                os.truncate(self.path, len(whole))
            return [json.loads(line) for line in whole.splitlines()]
        except OSError as error:
            raise AnalysisError(f"{self.path} cannot be used: {error.strerror or error}") from None
        except ValueError:
            raise AnalysisError(f"{self.path} is damaged: remove it to measure anew") from None

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AnalysisError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a record; it is on the disk when this returns."""
        self.records[key] = dict(record)
        self._append({"key": key, "record": record})


def _names(old: Mapping[str, Any], new: Mapping[str, Any], changed: list[str]) -> list[str]:
    """What differs, settings one by one."""
    words = {"model_id": "network", "data": "training data"}
    names: list[str] = []
    for key in changed:
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            names += [k for k in new[key] if old[key].get(k) != new[key][k]]
        else:
            names.append(words.get(key, key))
    return names
