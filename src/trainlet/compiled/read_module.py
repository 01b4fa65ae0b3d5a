"""A PyTorch module as a graph, exported once: the same module again comes from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainlet.compiled.cache import entry
from trainlet.compiled.module_key import module_key
from trainlet.compiled.origin import load_origin, save_origin
from trainlet.frontends.torch import TorchOrigin, from_module_with_origin
from trainlet.ir import Graph
from trainlet.ir.text import load_graph, save_graph

NETWORK, ORIGIN = "network.tl", "origin.safetensors"


def read_module(module: Any, example_inputs: Any, norm: str, use: bool = True) -> tuple[Graph, TorchOrigin]:
    """`from_module_with_origin`, remembered by the module's content where that can be told."""
    key = module_key(module, example_inputs, norm) if use else None
    if key is None:
        return from_module_with_origin(module, example_inputs, norm)
    read: list[tuple[Graph, TorchOrigin]] = []

    def make(folder: Path) -> dict[str, Any]:
        read.append(from_module_with_origin(module, example_inputs, norm))
        graph, origin = read[0]
        save_graph(graph, folder / NETWORK)
        save_origin(origin, folder / ORIGIN)
        return {}

    folder, _ = entry(key, make, kind="networks")
    return read[0] if read else (load_graph(folder / NETWORK), load_origin(folder / ORIGIN))
