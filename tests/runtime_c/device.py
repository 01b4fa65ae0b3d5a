"""A device that learns: an emitted int8 network, a session and a flash, driven from Python."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np

from tests.host.programs import built, network
from tests.runtime_c.build import SOURCES, TESTS, CFlash, Nor
from trainlet.quantize import quantize_samples
from trainlet.runtime.host import Image
from trainlet.runtime.toolchain import FLAGS, build_shared

CLASSES, MODEL = 5, 0x1122334455667788
(OK, HELD_BACK, COMMITTED, ROLLED_BACK, NOTHING_NEW, TOO_FEW, NOT_SAVED, BAD_LABEL, NO_MEMORY) = range(9)


class Config(ctypes.Structure):
    """tl_session_config."""

    _fields_ = [
        *((n, ctypes.c_uint32) for n in ("seed", "replay_bytes", "held_bytes", "replays")),
        ("held_per_256", ctypes.c_uint32), ("least_held", ctypes.c_uint32),
        ("older_loss_per_256", ctypes.c_uint32),
        ("flash", ctypes.POINTER(CFlash)), ("model", ctypes.c_uint64),
    ]  # fmt: skip


class Score(ctypes.Structure):
    """tl_session_score."""

    _fields_ = [(n, ctypes.c_uint32) for n in ("count", "right", "older", "older_right")]

    def all(self) -> tuple[int, ...]:
        return self.count, self.right, self.older, self.older_right


class Report(ctypes.Structure):
    """tl_session_report."""

    _fields_ = [("now", Score), ("committed", Score), ("store", ctypes.c_int)]


class Firmware:
    """The network `residual`, its last two layers trained (int8: with integer masters), and the session.

    place: where its samples are (Settings.input).
    """

    def __init__(
        self, folder: Path, accumulate: bool = False, int8: bool = True, place: str = "arena"
    ) -> None:
        self.graph, self.int8, self.folder = network("residual", int8), int8, folder
        self.by_rows = place == "rows"
        master = "residual" if int8 else "fp32"
        settings = {"scheme": "last:2", "master": master, "accumulate": accumulate, "input": place}
        self.program, _ = built(self.graph, folder, **settings)
        for source in [*SOURCES.iterdir(), TESTS / "session_driver.c"]:
            shutil.copy(source, folder)
        element = "int8_t" if int8 else "float"
        flags = [
            *FLAGS,
            f"-DSAMPLE={'residual_image' if self.by_rows else element}",
            *(["-DACCUMULATE"] if accumulate else []),
        ]
        self.library = ctypes.CDLL(str(build_shared(folder, flags)))
        self.library.tl_session_words.restype = ctypes.c_char_p
        self.library.tl_session_evaluate.restype = Score
        self.library.driver_session.restype = ctypes.c_void_p
        functions = self.program.functions
        self.step_boundary = sum(v.bytes for v in self.program.main.boundary)
        self.predict_boundary = sum(v.bytes for v in functions["predict"].boundary)

    def keep(self, replay: int, held: int) -> dict[str, int]:
        """Reservoir sizes in bytes for numbers of samples."""
        rounded = [4 + -(-b // 4) * 4 for b in (self.step_boundary, self.predict_boundary)]
        return {"replay_bytes": replay * rounded[0], "held_bytes": held * rounded[1]}

    def data(self, count: int, classes: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Noisy copies of one pattern for each class: samples (N, 9, 7, 3), labels."""
        patterns = np.random.default_rng(0).normal(0, 1, (CLASSES, 9, 7, 3))
        rng = np.random.default_rng(seed)
        labels = rng.choice(classes, count).astype(np.int32)
        x = (patterns[labels] + rng.normal(0, 0.5, (count, 9, 7, 3))).astype(np.float32)
        return (quantize_samples(self.graph, x) if self.int8 else x), labels


class Device:
    """One boot of a firmware. `config` as in tl_session_config."""

    def __init__(
        self, firmware: Firmware, flash: Nor | None = None, in_place: bool = True, **config: int
    ) -> None:
        self.firmware, self.library, self.flash = firmware, firmware.library, flash
        values = {"seed": 1, "least_held": 1, "model": MODEL, **config}
        self.config = Config(**values)
        if flash is not None:
            self.config.flash = ctypes.pointer(flash.c)
        self.driver = np.zeros(self.library.driver_bytes() // 8 + 1, np.uint64)
        self.at = ctypes.c_void_p(self.driver.ctypes.data)
        self.bytes = self.library.driver_memory(self.at, ctypes.byref(self.config), in_place)
        self.memory = np.full(self.bytes // 4 + 2, 0xA5A5A5A5, np.uint32)
        loaded = ctypes.c_int()
        self.status = self.library.driver_open(
            self.at,
            ctypes.byref(self.config),
            in_place,
            self._address(self.memory),
            self.bytes,
            ctypes.byref(loaded),
        )
        self.loaded = loaded.value
        self.s = ctypes.c_void_p(self.library.driver_session(self.at))
        self.report = Report()

    @staticmethod
    def _address(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def _sample(self, sample: np.ndarray) -> ctypes.c_void_p:
        """A sample as the program takes it; it is kept until the next."""
        self.given = np.ascontiguousarray(sample)
        if not self.firmware.by_rows:
            return self._address(self.given)
        read = ctypes.cast(self.library.residual_rows_from_memory, ctypes.c_void_p)
        self.image = Image(read, self._address(self.given))
        return ctypes.cast(ctypes.pointer(self.image), ctypes.c_void_p)

    def learn(self, sample: np.ndarray, label: int, lr: float = 0.05) -> tuple[int, np.ndarray]:
        out = np.full(CLASSES, np.nan, np.float32)
        status = self.library.tl_session_learn(
            self.s, self._sample(sample), int(label), ctypes.c_float(lr), self._address(out)
        )
        return status, out

    def learn_all(self, samples: np.ndarray, labels: np.ndarray, lr: float = 0.05) -> None:
        for sample, label in zip(samples, labels):
            assert self.learn(sample, label, lr)[0] in (OK, HELD_BACK)

    def hold(self, sample: np.ndarray, label: int) -> int:
        return int(self.library.tl_session_hold(self.s, self._sample(sample), int(label)))

    def rehearse(self, count: int, lr: float = 0.05) -> int:
        return int(self.library.tl_session_rehearse(self.s, count, ctypes.c_float(lr)))

    def predict(self, sample: np.ndarray) -> np.ndarray:
        out = np.empty(CLASSES, np.float32)
        self.library.tl_session_predict(self.s, self._sample(sample), self._address(out))
        return out

    def program_predict(self, sample: np.ndarray) -> np.ndarray:
        """The emitted program's own predict."""
        out = np.empty(CLASSES, np.float32)
        self.library.residual_predict(self.at, self._sample(sample), self._address(out))
        return out

    def accuracy(self, samples: np.ndarray, labels: np.ndarray) -> float:
        return float(np.mean([self.predict(x).argmax() == y for x, y in zip(samples, labels)]))

    def evaluate(self) -> tuple[int, ...]:
        return self.library.tl_session_evaluate(self.s).all()

    def judge(self) -> int:
        return int(self.library.tl_session_judge(self.s, ctypes.byref(self.report)))

    def commit(self) -> int:
        return int(self.library.tl_session_commit(self.s, ctypes.byref(self.report)))

    def roll_back(self) -> None:
        self.library.tl_session_roll_back(self.s)

    def state(self) -> bytes:
        out = np.zeros(self.firmware.program.bytes["state"], np.uint8)
        self.library.residual_get_state(self.at, self._address(out))
        return out.tobytes()

    def kept(self, held: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(labels, boundaries) of a reservoir."""
        size = self.firmware.predict_boundary if held else self.firmware.step_boundary
        labels, rows = np.zeros(4096, np.int32), np.zeros((4096, size), np.uint8)
        count = self.library.driver_kept(self.at, int(held), self._address(labels), self._address(rows))
        return labels[:count], rows[:count]

    def stored(self, held: bool = False) -> tuple[int, list[int]]:
        """Capacity of a reservoir and its own counts per class."""
        counts = np.zeros(CLASSES, np.uint32)
        capacity = self.library.driver_stored(self.at, int(held), self._address(counts))
        return int(capacity), counts.tolist()
