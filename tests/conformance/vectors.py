"""The published conformance vectors, in our layouts and names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.shared_files import shared
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.passes.rebatch import rebatch
from trainlet.scheme import Selection, resolve_scheme, select, with_head

MODELS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")
FULL = ("mcunet-5fps_b1_full", "mbv2-w0.35_b1_full", "proxyless-w0.3_b1_full", "mcunet-5fps_b8_full")
# "100kb" of the vectors is the published 99 KB scheme under another name.
TRAJECTORIES = {
    "mcunet-5fps_b1_sparse100kb_step1": "mcunet-5fps:99kb",
    "mcunet-5fps_b1_sparse49kb_5steps": "mcunet-5fps:49kb",
    "mcunet-5fps_b8_sparse100kb_10steps": "mcunet-5fps:99kb",
    "mbv2-w0.35_b8_sparse99kb_5steps": "mbv2-w0.35:99kb",
    "proxyless-w0.3_b8_sparse98kb_5steps": "proxyless-w0.3:98kb",
}


@dataclass(frozen=True)
class Vector:
    """One file of vectors and the network it is about, with the file's head and batch size."""

    arrays: dict[str, np.ndarray]
    graph: Graph

    @property
    def samples(self) -> np.ndarray:
        return (self.arrays["img_u8"].astype(np.int16) - 128).astype(np.int8)

    @property
    def labels(self) -> np.ndarray:
        return self.arrays["label"].astype(np.int32)

    def selection(self, scheme: str) -> Selection:
        return select(resolve_scheme(scheme, self.graph), self.graph)


def vector(name: str) -> Vector:
    with np.load(shared(f"reference/{name}.npz")) as file:
        arrays = {k: file[k] for k in file.files}
    model = load(shared(f"reference/models/{name.split('_b')[0]}.json"))
    graph = rebatch(with_head(model, arrays["head_w"], arrays["head_b"]), len(arrays["label"]))
    return Vector(arrays, graph)


def nhwc(a: np.ndarray) -> np.ndarray:
    """Activations NCHW -> NHWC and weights OIHW -> OHWI are the same move."""
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


def activation(values: Any, name: str) -> str:
    """Our value for a name of the vectors: a block is its add, or its last convolution."""
    return next(n for n in (name, f"{name}.add", f"{name}.pw2") if n in values)


def last_gradient(values: Any, name: str) -> np.ndarray:
    """The gradient of a value once all its consumers have given their part."""
    numbered = [
        k for k in values if k == f"d_{name}" or (k.startswith(f"d_{name}.") and k[len(name) + 3 :].isdigit())
    ]
    return values[numbered[-1]]


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the reference's largest magnitude."""
    return float(np.abs(a.astype(np.float64) - b).max() / (np.abs(b).max() + 1e-30))
