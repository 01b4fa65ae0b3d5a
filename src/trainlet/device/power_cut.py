"""Power cuts on an emulated board: training that saves its state is cut, booted again, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.device import firmware
from trainlet.device.board import Board, board
from trainlet.device.build import Image, build_firmware, read_manifest
from trainlet.device.emulate import Job, Outcome, make_job, program_sources, run_host_saving, run_image
from trainlet.device.engine import EXIT_POWER_CUT, FLASH_FILE, choose_engine
from trainlet.errors import BackendError, DataError

if TYPE_CHECKING:
    from trainlet.data import Dataset
    from trainlet.plan.program import Program

# What a cut leaves of the operation it interrupts, in the order of keep.h.
TEARS = ("nothing", "first half", "second half", "some bits", "garbage", "complete")
HEADER_BYTES = 28  # TL_STORE_HEADER_BYTES
STORE_OK, STORE_EMPTY = 0, 1  # tl_store_status


@dataclass
class PowerCutReport:
    """What became of training runs whose power was cut once.

    operations: erases and programmed units of a run. After a cut and a boot the record is the one from before
    the interrupted save (`old`; the factory state before the first) or the new one (`new`). `lost`: an
    older one, or none; `corrupt`: a state that was never saved; `different`: the run then ended in other
    bits than the uninterrupted one. `first_failure`: in words, "" if there is none.
    """

    program: str
    board: str
    engine: str
    compiler: str
    steps: int
    save_every: int
    state_bytes: int
    program_unit: int
    operations: int
    cuts: tuple[int, ...]
    boots: int = 0
    old: int = 0
    new: int = 0
    lost: int = 0
    corrupt: int = 0
    different: int = 0
    first_failure: str = ""
    steps_done_again: int = 0
    tears: tuple[str, ...] = field(default=TEARS)

    @property
    def passed(self) -> bool:
        """Whether none was lost, nothing corrupt was accepted, and all runs ended in the same bits."""
        return self.lost == self.corrupt == self.different == 0

    def as_dict(self) -> dict[str, Any]:
        """`emulate --power-cuts --json`."""
        return {**vars(self), "cuts": list(self.cuts), "tears": list(self.tears), "passed": self.passed}

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        saves = self.steps // self.save_every
        ended = (
            "the bits of an uninterrupted run" if self.different == 0 else f"OTHER BITS in {self.different}"
        )
        return [
            f"{self.program} on {self.board} ({self.engine}, {self.compiler}), power cut while it saves",
            f"  {self.steps} steps, {saves} saves of {self.state_bytes:,} bytes in units of "
            f"{self.program_unit}: {self.operations:,} flash operations",
            f"  cut in {len(self.cuts)}, each torn in {len(self.tears)} ways: {', '.join(self.tears)}",
            f"  {self.boots} boots: old record {self.old}, new record {self.new}, lost {self.lost}, "
            f"corrupt {self.corrupt}; at most {self.steps_done_again} steps done again",
            f"  every run ended in {ended}" if self.passed else f"  FAILED: {self.first_failure}",
        ]


@dataclass(frozen=True)
class Boot:
    """What a boot sent: status of the load, steps behind it, the state it began with, then the training."""

    status: int
    first: int
    begun: np.ndarray
    losses: np.ndarray
    logits: np.ndarray
    state: np.ndarray
    operations: int


def power_cuts(
    program: str | Path | Program,
    on: str | Path | Board,
    data: str | Path | Dataset | tuple[np.ndarray, np.ndarray],
    steps: int,
    cuts: int | Sequence[int],
    *,
    save_every: int = 1,
    lr: float = 0.01,
    calls_per_update: int = 1,
    engine: str = "auto",
    compiler: str = "auto",
    timeout_s: float = 600,
) -> PowerCutReport:
    """Train on an emulated board, saving every `save_every` steps, with power cuts in flash operations.

    cuts: numbers of the operations, or how many of them, evenly spaced. Each is torn in every way of TEARS;
    the board boots again from the flash that is left, resumes, and must end in the bits of the
    uninterrupted run. The rest as `emulate`. Raises DataError where nothing would be saved, or not behind
    an update.
    """
    part = board(on)
    chosen = choose_engine(part, engine)
    place = firmware.on_machine(part) if chosen == "qemu" else firmware.on_part(part)
    with TemporaryDirectory(prefix="trainlet-") as scratch:
        folder, offsets = program_sources(program, Path(scratch) / "program")
        manifest = read_manifest(folder)
        _check(manifest, steps, save_every, calls_per_update)
        job = replace(make_job(manifest, data, steps, lr, calls_per_update), save_every=save_every)
        work = Path(scratch) / "run"
        image = build_firmware(folder, part, work, place, compiler, offsets, keeps=True)
        bench = Bench(image, part, chosen, work, timeout_s, job)
        return bench.sweep(*run_host_saving(folder, part, job), cuts)


def _check(manifest: dict[str, Any], steps: int, save_every: int, calls_per_update: int) -> None:
    if not 1 <= save_every <= steps:
        raise DataError(f"a save every {save_every} steps of {steps} saves nothing: give 1 to {steps}")
    if save_every % calls_per_update:
        raise DataError(
            f"a save every {save_every} steps would lose half-summed gradients: give a multiple of the "
            f"{calls_per_update} calls of an update"
        )
    if manifest["bytes"]["state"] == 0:
        raise DataError("this program trains nothing: there is no state to save")


@dataclass
class Bench:
    """A board with its firmware, power supply and flash."""

    image: Image
    part: Board
    engine: str
    folder: Path
    timeout_s: float
    job: Job

    @property
    def state_bytes(self) -> int:
        return int(self.image.manifest["bytes"]["state"])

    @property
    def operations_of_a_save(self) -> int:
        """An erase, the units of the payload, those of the header."""
        unit = self.part.program_unit
        return 1 + -(-self.state_bytes // unit) + -(-HEADER_BYTES // unit)

    def erase(self) -> None:
        slot = (self.operations_of_a_save - 1) * self.part.program_unit
        (self.folder / FLASH_FILE).write_bytes(b"\xff" * (2 * slot))

    def boot(self, cut_at: int | None = None, tear: int = 0) -> Boot | None:
        """One boot; None where its power was cut."""
        job = self.job if cut_at is None else replace(self.job, cut_at=cut_at, tear=tear)
        run = run_image(self.image, self.part, self.engine, job, self.folder, self.timeout_s, counted=False)
        return None if run.exit_code == EXIT_POWER_CUT else self.decode(run.result)

    def decode(self, result: bytes) -> Boot:
        m, size = self.image.manifest, self.state_bytes
        outputs = int(m["output"]["shape"][-1])
        width = int(m["batch"]) * outputs
        status, first = np.frombuffer(result, np.uint32, 2).tolist()
        at = 8 + size + 4 * outputs
        count = len(self.job.lr) - first
        if len(result) != at + 4 * (1 + width) * count + size + 8:
            raise BackendError(f"the board sent {len(result)} bytes of results after a boot at step {first}")
        rows = np.frombuffer(result, np.float32, count * (1 + width), at).reshape(count, 1 + width)
        state = np.frombuffer(result, np.uint8, size, len(result) - size - 8)
        operations = int.from_bytes(result[-4:], "little")
        begun = np.frombuffer(result, np.uint8, size, 8)
        return Boot(status, first, begun, rows[:, 0], rows[:, 1:], state, operations)

    def sweep(self, host: Outcome, saved: list[np.ndarray], cuts: int | Sequence[int]) -> PowerCutReport:
        self.erase()
        whole = self.boot()
        assert whole is not None
        chosen = _evenly(cuts, whole.operations) if isinstance(cuts, int) else tuple(cuts)
        report = PowerCutReport(
            str(self.image.manifest["name"]), self.part.name, self.engine, self.image.compiler.kind,
            len(self.job.lr), self.job.save_every, self.state_bytes, self.part.program_unit, whole.operations,
            chosen,
        )  # fmt: skip
        if what := _difference(whole, host):
            report.different, report.first_failure = 1, f"without a cut: {what}"
        for cut in chosen:
            for tear in range(len(TEARS)):
                self.erase()
                if self.boot(cut, tear) is not None:
                    raise DataError(f"there is no flash operation {cut}: the run has {whole.operations}")
                self._judge(report, cut, tear, host, saved)
        return report

    def _judge(
        self, report: PowerCutReport, cut: int, tear: int, host: Outcome, saved: list[np.ndarray]
    ) -> None:
        """Boot from what a cut left, let it finish, and count what it was."""
        again = self.boot()
        assert again is not None
        report.boots += 2
        before = cut // self.operations_of_a_save
        record, failure = again.first // self.job.save_every, ""
        if again.status not in (STORE_OK, STORE_EMPTY) or record not in (before, before + 1):
            report.lost += 1
            failure = f"record {record} instead of {before} or {before + 1}, store status {again.status}"
        elif again.begun.tobytes() != saved[record].tobytes():
            report.corrupt += 1
            failure = f"record {record} holds what was never saved"
        elif record == before:
            report.old += 1
        else:
            report.new += 1
        if what := _difference(again, host):
            report.different += 1
            failure = failure or what
        # The step under way when the save was cut, and those before it back to the record.
        done = (before + 1) * self.job.save_every
        report.steps_done_again = max(report.steps_done_again, done - again.first)
        if failure and not report.first_failure:
            report.first_failure = f"operation {cut}, torn ({TEARS[tear]}): {failure}"


def _evenly(count: int, operations: int) -> tuple[int, ...]:
    """So many of the operations, the first and the last among them."""
    return tuple(map(int, np.unique(np.linspace(0, operations - 1, count).astype(int))))


def _difference(boot: Boot, host: Outcome) -> str:
    """The first difference in bits from the uninterrupted run on this machine, "" if there is none."""
    for i, loss in enumerate(boot.losses):
        step = boot.first + i
        if loss.tobytes() != host.losses[step].tobytes():
            return f"the loss of step {step + 1} is {loss!r} on the board, {host.losses[step]!r} here"
        if boot.logits[i].tobytes() != host.logits[step].tobytes():
            return f"the outputs of step {step + 1} differ"
    return "" if boot.state.tobytes() == host.state.tobytes() else "the trained state differs"
