"""An emitted program on this machine: the same C, called through ctypes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import BackendError, DataError
from trainlet.ir.graph import DTYPES
from trainlet.runtime.toolchain import FLAGS, GENERATED, build_flags, build_shared, check_processor


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Image(ctypes.Structure):
    """NAME_image of an emitted header: a function that gives rows, and its context."""

    _fields_ = (("rows", ctypes.c_void_p), ("context", ctypes.c_void_p))


class HostProgram:
    """A training program, loaded. Samples are arrays of the network's input type, channels last.

    `memory` is the program's one context struct; `state` a view of what training changes.
    """

    def __init__(self, folder: Path, flags: tuple[str, ...] = FLAGS, native: bool = True) -> None:
        path = folder / "program.json"
        if not path.is_file():
            raise BackendError(f"{folder} holds no trainlet program (program.json is missing)")
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads(path.read_text())
        generated = GENERATED if flags == FLAGS else ()
        if "build" in self.manifest and flags == FLAGS:
            flags, native, generated = build_flags(self.manifest["build"]), False, ()
        check_processor(self.manifest.get("needs", []))
        self._library = ctypes.CDLL(str(build_shared(folder, flags, native, generated)))
        counter = self.training_function == "accumulate"
        self._layout = _layout(self.manifest["bytes"], counter, self.manifest.get("alignment", 0))
        self._raw = np.zeros(self._layout["total"] + 64, np.uint8)
        start = -self._raw.ctypes.data % 64
        self.memory = self._raw[start : start + self._layout["total"]]
        self.init()

    @property
    def training_function(self) -> str:
        return str(self.manifest["training_function"])

    @property
    def batch(self) -> int:
        return int(self.manifest["batch"])

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.manifest["input"]["shape"][1:])

    @property
    def classes(self) -> int:
        return int(self.manifest["output"]["shape"][-1])

    def region(self, memory: str) -> np.ndarray:
        """Bytes of "arena", "state" or "scratch", as a view."""
        at = self._layout[memory]
        return self.memory[at : at + self.manifest["bytes"][memory]]

    def tensor(self, name: str) -> np.ndarray:
        """A state tensor as a view into the program's memory."""
        entry = next(e for e in self.manifest["state"] if e["name"] == name)
        at, dtype = entry["offset"], DTYPES[entry["dtype"]][0]
        return self.region("state")[at : at + entry["bytes"]].view(dtype).reshape(entry["shape"])

    def tensors(self) -> dict[str, np.ndarray]:
        """Copies of all state tensors by name."""
        return {e["name"]: self.tensor(e["name"]).copy() for e in self.manifest["state"]}

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Put state tensors back. Raises DataError where one is missing or differs in shape."""
        for entry in self.manifest["state"]:
            new = tensors.get(entry["name"])
            if new is None or list(new.shape) != entry["shape"]:
                raise DataError(f"state {entry['name']} is missing or is not {entry['shape']}")
        for entry in self.manifest["state"]:
            self.tensor(entry["name"])[...] = tensors[entry["name"]]

    def _call(self, name: str, returns: Any, *args: Any) -> Any:
        function = getattr(self._library, f"{self.manifest['prefix']}_{name}")
        function.restype = returns
        return function(_address(self.memory), *args)

    def _given(self, samples: np.ndarray) -> Any:
        """The argument for samples: their address, or of an image that comes by rows a NAME_image."""
        if self.manifest["input"].get("where") != "rows":
            return _address(samples)
        read = getattr(self._library, f"{self.manifest['prefix']}_rows_from_memory")
        return ctypes.byref(Image(ctypes.cast(read, ctypes.c_void_p), _address(samples)))

    def init(self, seed: int | None = None) -> None:
        """Factory state."""
        chosen = self.manifest["optimizer"]["seed"] if seed is None else seed
        self._call("init", None, ctypes.c_uint32(chosen))

    def redraw(self, epoch: int) -> None:
        """The channels of an epoch (0, 1, …) instead of those before; nothing where a scheme redraws none.

        `init` draws those of epoch 0.
        """
        if any(p.get("redrawn") for p in self.manifest["parameters"]):
            self._call("redraw", None, ctypes.c_uint32(epoch))

    def _samples(self, samples: np.ndarray, count: int) -> np.ndarray:
        dtype = DTYPES[self.manifest["input"]["dtype"]][0]
        if samples.dtype != dtype or samples.shape != (count, *self.sample_shape):
            raise DataError(
                f"samples are {samples.dtype}{list(samples.shape)}, the program takes "
                f"{np.dtype(dtype)}{[count, *self.sample_shape]}"
            )
        return np.ascontiguousarray(samples)

    def _labels(self, labels: np.ndarray) -> np.ndarray:
        entry = self.manifest["label"]
        array = np.ascontiguousarray(labels, DTYPES[entry["dtype"]][0])
        if list(array.shape) != entry["shape"]:
            raise DataError(f"labels are {list(array.shape)}, the program takes {entry['shape']}")
        if entry["dtype"] == "s32" and (array.min() < 0 or array.max() >= self.classes):
            raise DataError(
                f"labels lie in {array.min()}..{array.max()}, the network has classes 0..{self.classes - 1}"
            )
        return array

    def step(self, samples: np.ndarray, labels: np.ndarray, lr: float) -> float:
        """Forward, backward and update on one batch; the loss before it."""
        x, y = self._samples(samples, self.batch), self._labels(labels)
        return float(self._call("step", ctypes.c_float, self._given(x), _address(y), ctypes.c_float(lr)))

    def accumulate(self, samples: np.ndarray, labels: np.ndarray) -> float:
        """Forward and backward on one batch, gradients summed; the loss."""
        x, y = self._samples(samples, self.batch), self._labels(labels)
        return float(self._call("accumulate", ctypes.c_float, self._given(x), _address(y)))

    def apply(self, lr: float) -> None:
        """One update by the mean of the gradients summed so far."""
        self._call("apply", None, ctypes.c_float(lr))

    def logits(self) -> np.ndarray:
        """Outputs of the last training call, (batch, outputs)."""
        function = getattr(self._library, f"{self.manifest['prefix']}_logits")
        function.restype = ctypes.POINTER(ctypes.c_float)
        pointer = function(_address(self.memory))
        return np.ctypeslib.as_array(pointer, (self.batch, self.classes)).copy()

    def predict(self, samples: np.ndarray) -> np.ndarray:
        """Outputs, f32 (N, outputs), one sample at a time."""
        x = self._samples(samples, len(samples))
        out = np.empty((len(x), self.classes), np.float32)
        for i in range(len(x)):
            self._call("predict", None, self._given(x[i : i + 1]), _address(out[i : i + 1]))
        return out

    def evaluate(self, samples: np.ndarray, labels: np.ndarray) -> int:
        """Number of samples whose largest output is their label, counted in C."""
        x = self._samples(samples, len(samples))
        y = np.ascontiguousarray(labels, np.int32)
        return int(
            self._call("evaluate", ctypes.c_int32, self._given(x), _address(y), ctypes.c_int32(len(x)))
        )

    def boundary_shapes(self, function: str) -> list[tuple[str, tuple[int, ...]]]:
        """(dtype, shape) of what is alive behind the frozen prefix of a function."""
        return [(v["dtype"], tuple(v["shape"])) for v in self.manifest["functions"][function]["boundary"]]

    def prefix(self, function: str, samples: np.ndarray) -> np.ndarray:
        """What is alive behind the frozen prefix, as bytes; pass it to `resume`."""
        count = 1 if function == "predict" else self.batch
        x = self._samples(samples, count)
        total = sum(v["bytes"] for v in self.manifest["functions"][function]["boundary"])
        out = np.empty(total, np.uint8)
        self._call(f"{function}_prefix", None, self._given(x), _address(out))
        return out

    def predict_resume(self, boundary: np.ndarray) -> np.ndarray:
        """Outputs (outputs,) of the sample whose prefix gave `boundary`."""
        out = np.empty(self.classes, np.float32)
        self._call("predict_resume", None, _address(boundary), _address(out))
        return out

    def train_resume(self, boundary: np.ndarray, labels: np.ndarray, lr: float | None) -> float:
        """step (or accumulate, with lr None) of the samples whose prefix gave `boundary`."""
        args = [] if lr is None else [ctypes.c_float(lr)]
        y = self._labels(labels)
        name = f"{self.training_function}_resume"
        return float(self._call(name, ctypes.c_float, _address(boundary), _address(y), *args))


def _layout(sizes: Mapping[str, int], counter: bool, alignment: int) -> dict[str, int]:
    """Offsets of the context struct's members, as the header declares them."""
    unit = alignment or 4
    scratch = max(1, -(-sizes["scratch"] // max(8, unit))) * max(8, unit)
    state, arena = (max(1, -(-sizes[m] // unit)) * unit for m in ("state", "arena"))
    before_arena = scratch + state + (unit if counter else 0)
    total = -(-(before_arena + arena + alignment) // max(8, unit)) * max(8, unit)
    return {"scratch": 0, "state": scratch, "arena": before_arena, "total": total}
