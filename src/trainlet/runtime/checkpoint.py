"""Checkpoints: everything a run needs to go on exactly where it stopped, as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import CheckpointError

FORMAT = "trainlet-checkpoint-1"


def _require_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise CheckpointError("checkpoints are safetensors files: pip install safetensors") from None


def save_checkpoint(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write atomically: the old checkpoint stays until the new one is whole."""
    _require_safetensors()
    from safetensors.numpy import save

    blob = save(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()},
        metadata={"format": FORMAT, "trainlet": json.dumps(meta)},
    )
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(blob)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and metadata. Raises CheckpointError when the file is missing, damaged or foreign."""
    _require_safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error})") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by trainlet train")
    return tensors, json.loads(header["trainlet"])
