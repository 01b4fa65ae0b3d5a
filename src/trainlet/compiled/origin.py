"""Where a graph's weights are in a PyTorch module, as a file. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.runtime.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from trainlet.frontends.torch import TorchOrigin


def save_origin(origin: TorchOrigin, path: Path) -> None:
    tensors = {f"state/{k}": np.asarray(v) for k, v in origin.state.items()}
    tensors |= {f"imported/{k}": np.asarray(v) for k, v in origin.imported.items()}
    shapes = {k: list(v.shape) for k, v in tensors.items()}  # scalars have none in every format
    about = {k: v for k, v in vars(origin).items() if k not in ("state", "imported", "stored")}
    stored = [{**vars(s), "norms": [vars(n) for n in s.norms]} for s in origin.stored]
    columns = {f"columns/{i}": s["columns"] for i, s in enumerate(stored) if s["columns"] is not None}
    tensors |= {k: np.asarray(v) for k, v in columns.items()}
    layers = [{k: v for k, v in s.items() if k != "columns"} for s in stored]
    save_checkpoint(path, tensors, {"about": about, "stored": layers, "shapes": shapes})


def load_origin(path: Path) -> TorchOrigin:
    from trainlet.frontends.stored import Norm, StoredLayer
    from trainlet.frontends.torch_state import TorchOrigin

    tensors, meta = load_checkpoint(path)

    def part(name: str) -> dict[str, np.ndarray]:
        """In the order they were saved in, the module's own: the file sorts its tensors by name."""
        shapes = {k: s for k, s in meta["shapes"].items() if k.startswith(f"{name}/")}
        return {k.removeprefix(f"{name}/"): tensors[k].reshape(s) for k, s in shapes.items()}

    layers = []
    for i, entry_ in enumerate(meta["stored"]):
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry_.items()}
        values["norms"] = tuple(Norm(**n) for n in entry_["norms"])
        layers.append(StoredLayer(**values, columns=tensors.get(f"columns/{i}")))
    about: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["about"].items()}
    return TorchOrigin(**about, stored=tuple(layers), imported=part("imported"), state=part("state"))
