"""Shoulder exercises recorded by a smartwatch, split by person and in time, and a small network for them.

140 recordings at 50 Hz of 10 people, each doing 7 exercises with the watch on the left and on the right
wrist, one recording a side (Burns et al., arXiv:1802.01489). They come with the package seglearn.

The story they tell: a network is pretrained on some people and shipped. A person it has never met puts the
watch on, does a few repetitions of each exercise, and the watch adapts. It is tested on what that person does
later. What this cannot show: another day, or the watch strapped on anew, for a recording is one session.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainlet.errors import DataError
from trainlet.ir import Graph, GraphBuilder, Value

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius",
    "row",
)
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")  # acceleration in g, angular velocity in rad/s
RATE_HZ = 50
WINDOW = 128  # samples: 2.56 s, about one repetition
HOP = 64
PRETRAINING_PEOPLE = (2, 4, 6, 8, 10)
NEW_PEOPLE = (1, 3, 5, 7, 9)
ADAPTS = 0.4  # the first part of each recording of a new person adapts …
TESTS = 0.5  # … and the last part tests; what lies between belongs to neither


@dataclass(frozen=True)
class Recording:
    """One person doing one exercise: signal f32 (T, 6), label an index of EXERCISES."""

    signal: np.ndarray
    label: int
    person: int
    side: str


@dataclass(frozen=True)
class Windows:
    """x f32 (M, WINDOW, 6), label s32 (M,)."""

    x: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Person:
    """What a new person does first, and what the same person does later."""

    adapt: Windows
    test: Windows


@dataclass(frozen=True)
class Split:
    """Normalised windows. `mean` and `std` f32 (6,) come from the pretraining people alone."""

    pretrain: Windows
    people: dict[int, Person]
    mean: np.ndarray
    std: np.ndarray


def load_recordings() -> list[Recording]:
    """Every recording, in the order of the file. Raises DataError saying what to install."""
    # Read beside the package, not through it: seglearn 1.2.5 imports pandas without asking for it.
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the recordings come with the package seglearn: pip install 'trainlet[demo]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    if not path.is_file():
        raise DataError(f"{path} is missing: pip install --force-reinstall seglearn")
    data = np.load(path, allow_pickle=True).item()  # a pickle, of the package that was just installed
    return [
        Recording(np.asarray(signal, np.float32), int(label), int(person), "right" if side else "left")
        for signal, label, person, side in zip(
            data["X"], data["y"], data["subject"], data["side"], strict=True
        )
    ]


def windows(signal: np.ndarray, size: int = WINDOW, hop: int = HOP) -> np.ndarray:
    """Every whole window of a signal (T, C), one each `hop` samples: (M, size, C)."""
    starts = range(0, len(signal) - size + 1, hop)
    return (
        np.stack([signal[s : s + size] for s in starts]) if starts else np.zeros((0, size, signal.shape[1]))
    )


def first_and_later(length: int, size: int = WINDOW) -> tuple[slice, slice]:
    """Samples that adapt and samples that test, at least one window apart."""
    end = math.floor(ADAPTS * length)
    return slice(0, end), slice(max(length - math.floor(TESTS * length), end + size), length)


def split(
    recordings: Sequence[Recording],
    pretraining_people: Iterable[int] = PRETRAINING_PEOPLE,
    new_people: Iterable[int] = NEW_PEOPLE,
    *,
    size: int = WINDOW,
    hop: int = HOP,
) -> Split:
    """People apart, then for each new person the past apart from the future.

    A window lies wholly in one part: none straddles a border, so no sample is both adapted to and tested on.
    Raises DataError where somebody is on both sides or has no recordings.
    """
    pretraining, new = tuple(pretraining_people), tuple(new_people)
    if both := set(pretraining) & set(new):
        raise DataError(f"people {sorted(both)} are both pretrained on and new")
    if unknown := {*pretraining, *new} - {r.person for r in recordings}:
        raise DataError(f"no recordings of people {sorted(unknown)}")
    known = [r for r in recordings if r.person in pretraining]
    samples = np.concatenate([r.signal for r in known]).astype(np.float64)
    mean, std = samples.mean(0).astype(np.float32), samples.std(0).astype(np.float32)

    def cut(parts: Iterable[tuple[np.ndarray, int]]) -> Windows:
        pieces = [(windows((signal - mean) / std, size, hop), label) for signal, label in parts]
        x = np.concatenate([w for w, _ in pieces]).astype(np.float32)
        return Windows(
            x, np.repeat([label for _, label in pieces], [len(w) for w, _ in pieces]).astype(np.int32)
        )

    people = {}
    for person in new:
        own = [(r, *first_and_later(len(r.signal), size)) for r in recordings if r.person == person]
        people[person] = Person(
            cut((r.signal[first], r.label) for r, first, _ in own),
            cut((r.signal[later], r.label) for r, _, later in own),
        )
    return Split(cut((r.signal, r.label) for r in known), people, mean, std)


# Expanded channels, output channels and stride of each inverted residual (Sandler et al., arXiv:1801.04381).
BLOCKS = ((72, 32, 2), (96, 32, 1), (96, 48, 2), (144, 48, 1))
STEM = 24
KERNEL = 5


def network(seed: int = 0, classes: int = len(EXERCISES)) -> Graph:
    """A one-dimensional MobileNetV2 without normalisation: x f32 (1, WINDOW, 6) -> logits f32 (1, classes).

    35,783 parameters and 0.9 million multiply-accumulates for 7 classes. Weights are He-initialised (He et
    al., arXiv:1502.01852); the last convolution of a block starts smaller, so that depth adds no variance.
    """
    rng, b = np.random.default_rng(seed), GraphBuilder("watch_activity")
    x = b.input("x", "f32", (1, WINDOW, len(CHANNELS)))

    def conv(
        x: Value, name: str, o: int, k: int, stride: int = 1, groups: int = 1, gain: float = 1.0
    ) -> Value:
        fan_in = k * x.shape[-1] // groups
        w = rng.normal(0, gain * math.sqrt(2 / fan_in), (o, k, x.shape[-1] // groups)).astype(np.float32)
        operands = [x, b.constant(f"{name}/weight", w), b.constant(f"{name}/bias", np.zeros(o, np.float32))]
        attrs = {"strides": (stride,), "pads": (k // 2, k // 2), "groups": groups}
        return b.add("Conv", operands, attrs, name=name, source=f"{b.name}:/{name}")

    def relu6(x: Value) -> Value:
        return b.add(
            "Clip", [x], {"lo": 0.0, "hi": 6.0}, name=f"{x.name}/relu6", source=f"{b.name}:/{x.name}"
        )

    y = relu6(conv(x, "stem", STEM, KERNEL, stride=2))
    for i, (expanded, channels, stride) in enumerate(BLOCKS, start=1):
        block, residual = f"block{i}", stride == 1 and y.shape[-1] == channels
        h = relu6(conv(y, f"{block}/expand", expanded, 1))
        h = relu6(conv(h, f"{block}/depthwise", expanded, KERNEL, stride, groups=expanded))
        h = conv(h, f"{block}/project", channels, 1, gain=0.25 if residual else 0.7)
        y = b.add("Add", [y, h], name=f"{block}/add", source=f"{b.name}:/{block}/add") if residual else h
    y = b.add("AveragePool", [y], {"kernel": ()}, name="pool", source=f"{b.name}:/pool")
    y = b.add("Reshape", [y], {"shape": (1, y.shape[-1])}, name="features", source=f"{b.name}:/features")
    head = rng.normal(0, 0.5 * math.sqrt(2 / y.shape[-1]), (classes, y.shape[-1])).astype(np.float32)
    operands = [y, b.constant("head/weight", head), b.constant("head/bias", np.zeros(classes, np.float32))]
    return b.build([b.add("Gemm", operands, name="logits", source=f"{b.name}:/head")])
