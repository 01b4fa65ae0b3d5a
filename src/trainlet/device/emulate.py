"""Training on an emulated board, and the same training on this machine beside it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.device import firmware
from trainlet.device.board import Board, board
from trainlet.device.build import Image, build_firmware, read_manifest
from trainlet.device.engine import EXIT_FAULT, EXIT_POWER_CUT, Run, choose_engine
from trainlet.device.report import EmulationReport, memory_use, merge_updates
from trainlet.errors import BackendError, DataError
from trainlet.runtime.host import HostProgram
from trainlet.runtime.toolchain import FLAGS

if TYPE_CHECKING:
    from trainlet.data import Dataset
    from trainlet.plan.program import Program


NEVER = 0xFFFFFFFF  # a flash operation that does not come


class FaultError(BackendError):
    """The program touched memory that it must not touch; the message says which, and where in the code."""


@dataclass(frozen=True)
class Job:
    """What is trained: step i takes samples[i] and labels[i], a batch each, at learning rate lr[i].

    An update follows every `calls_per_update` training calls, where the program accumulates gradients.
    save_every, cut_at, tear: of a firmware that keeps its state (keep.h).
    """

    samples: np.ndarray
    labels: np.ndarray
    lr: np.ndarray
    calls_per_update: int
    seed: int
    save_every: int = 0
    cut_at: int = NEVER
    tear: int = 0

    def encode(self) -> bytes:
        """job.bin of main.c."""
        numbers = self.calls_per_update, self.seed, self.save_every, self.cut_at, self.tear
        head = struct.pack("<6I", len(self.lr), *numbers)
        steps = (
            lr.tobytes() + y.tobytes() + x.tobytes()
            for lr, y, x in zip(self.lr, self.labels, self.samples, strict=True)
        )
        return b"".join([head, self.samples[0, :1].tobytes(), *steps])


@dataclass(frozen=True)
class Outcome:
    """What training left behind. outputs: of the first sample before training."""

    outputs: np.ndarray
    losses: np.ndarray
    logits: np.ndarray
    state: np.ndarray


def emulate(
    program: str | Path | Program,
    on: str | Path | Board,
    data: str | Path | Dataset | tuple[np.ndarray, np.ndarray],
    steps: int,
    *,
    lr: float = 0.01,
    calls_per_update: int = 1,
    engine: str = "auto",
    compiler: str = "auto",
    output: str | Path | None = None,
    timeout_s: float = 600,
) -> EmulationReport:
    """Train an emitted program for `steps` calls on an emulated board and on this machine, and compare.

    program: a folder that `compile` wrote, or a planned program. on: a board by name, or the path of a .toml.
    data: anything `train` takes, or (samples, labels) as the network takes them; taken in order, again from
    the start where they run out. output: a folder for the firmware, its linker script and its results.
    engine: qemu, unicorn or auto; compiler: gcc, zig or auto.

    Raises FaultError when the program leaves its memory, BudgetError when the board is too small, and
    BackendError when a compiler or emulator is missing, saying what to install.
    """
    part = board(on)
    chosen = choose_engine(part, engine)
    place = firmware.on_machine(part) if chosen == "qemu" else firmware.on_part(part)
    with TemporaryDirectory(prefix="trainlet-") as scratch:
        folder, offsets = program_sources(program, Path(scratch) / "program")
        work = Path(scratch) / "run" if output is None else Path(output).resolve()
        manifest = read_manifest(folder)
        job = make_job(manifest, data, steps, lr, calls_per_update)
        image = build_firmware(folder, part, work, place, compiler, offsets)
        run = run_image(image, part, chosen, job, work, timeout_s)
        device, stack_bytes = decode(run.result, manifest, steps)
        difference = compare(run_host(folder, part, job), device, manifest)
    counts, train = run.counts, str(manifest["training_function"])
    predict = next(r for r in counts.regions if r.name == "predict")
    return EmulationReport(
        str(manifest["name"]),
        part,
        chosen,
        image.compiler.kind,
        tuple(map(float, device.losses)),
        difference,
        memory_use(image, part, stack_bytes),
        predict,
        merge_updates(counts, train),
        counts.total,
    )


def program_sources(program: str | Path | Program, folder: Path) -> tuple[Path, dict[str, int] | None]:
    """The folder of a program's sources, and where in its arena samples arrive, as far as that is known."""
    if isinstance(program, str | Path):
        found = Path(program)
        functions = read_manifest(found)["functions"]
        offsets = {k: f["input_offset"] for k, f in functions.items() if f.get("input_offset") is not None}
        return found, offsets or None
    from trainlet.backends.c99 import write_sources

    if program.sample != "arena":
        return write_sources(program, folder), None
    functions = {k: f for k, f in program.functions.items() if k != "apply"}
    places = {k: f.locations[f.graph.inputs[0].name] for k, f in functions.items()}
    return write_sources(program, folder), {k: place.offset for k, place in places.items()}


def make_job(manifest: Mapping[str, Any], data: Any, steps: int, lr: float, calls_per_update: int) -> Job:
    """Batches for `steps` training calls, in order. Raises DataError where data do not fit the program."""
    if steps < 1:
        raise DataError(f"{steps} steps: give a positive number")
    if calls_per_update < 1 or (calls_per_update > 1 and manifest["training_function"] == "step"):
        raise DataError(
            f"{calls_per_update} calls per update: this program updates at every step; "
            "compile it with --accumulate"
        )
    x, y = _arrays(manifest, data)
    batch, entry = int(manifest["batch"]), manifest["label"]
    rows = np.arange(steps * batch) % len(y)
    samples = np.ascontiguousarray(x[rows]).reshape(steps, batch, *manifest["input"]["shape"][1:])
    kind = np.int32 if entry["dtype"] == "s32" else np.float32
    labels = np.ascontiguousarray(y[rows], kind).reshape(steps, *entry["shape"])
    classes = int(manifest["output"]["shape"][-1])
    if kind is np.int32 and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels lie in {labels.min()}..{labels.max()}, the network has classes 0..{classes - 1}"
        )
    seed = int(manifest["optimizer"]["seed"])
    return Job(samples, labels, np.full(steps, lr, np.float32), calls_per_update, seed)


def _arrays(manifest: Mapping[str, Any], data: Any) -> tuple[Any, np.ndarray]:
    if isinstance(data, str | Path):
        from trainlet.data import load_data
        from trainlet.ir import Quant, Value

        x = manifest["input"]
        quant = None if x["quant"] is None else Quant(x["quant"]["scale"], x["quant"]["zero_point"])
        classify = manifest["loss"] == "softmax-cross-entropy"
        classes = manifest["output"]["shape"][-1] if classify else None
        data = load_data(data, input=Value(x["name"], x["dtype"], tuple(x["shape"]), quant), classes=classes)
    if not isinstance(data, tuple):
        return data.x_train, data.y_train
    samples, labels = data
    shape, dtype = manifest["input"]["shape"][1:], manifest["input"]["dtype"]
    wanted = np.int8 if dtype == "s8" else np.float32
    if list(samples.shape[1:]) != shape or samples.dtype != wanted or len(samples) != len(labels):
        raise DataError(
            f"samples are {samples.dtype}{list(samples.shape)} with {len(labels)} labels, the program takes "
            f"{np.dtype(wanted)}{['M', *shape]} and as many labels"
        )
    if len(labels) == 0:
        raise DataError("there are no samples")
    return samples, labels


def run_image(
    image: Image, part: Board, engine: str, job: Job, folder: Path, timeout_s: float, counted: bool = True
) -> Run:
    """Run a firmware to its end, or until its power is cut. Raises FaultError in words when it faulted.

    counted: QEMU is several times faster without.
    """
    if engine == "qemu":
        from trainlet.device.engine_qemu import run_qemu

        assert part.qemu is not None
        run = run_qemu(image, part.qemu, job.encode(), folder, timeout_s, counted)
    else:
        from trainlet.device.engine_unicorn import run_unicorn

        run = run_unicorn(image, part, job.encode(), folder, timeout_s)
    if run.exit_code == EXIT_FAULT:
        raise FaultError(_fault(run, image, part))
    if run.counts.store is not None:
        at, pc = run.counts.store
        first, end = (image.elf.address(name) for name in ("tl_stack_limit", "tl_context_end"))
        where = f"outside the program's RAM ({first:#010x} to {end:#010x}), by {_function(image, pc)}"
        raise FaultError(f"{part.name}: fault: write to {at:#010x}, {where}")
    if run.exit_code not in (0, EXIT_POWER_CUT):
        last = (run.console.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"the firmware stopped with exit code {run.exit_code}: {last}")
    return run


def _fault(run: Run, image: Image, part: Board) -> str:
    """The firmware's words, completed with the names of constants and functions."""
    lines = [line for line in run.console.splitlines() if line.startswith("fault:")]
    text = lines[-1] if lines else "fault"
    if found := re.search(r" (0x[0-9a-f]{8}), in flash", text):
        constant = image.elf.at(int(found[1], 16), "object")
        text = text.replace("in flash", f"in {constant.name} in flash" if constant else "in flash")
    if found := re.search(r"by the instruction at (0x[0-9a-f]{8})", text):
        text = text.replace(found[0], f"by {_function(image, int(found[1], 16))}")
    if run.counts.open_in is not None:
        entry, kernel = run.counts.open_in
        text += f", during {entry}" + (f" in {kernel}" if kernel != "-" else "")
    return f"{part.name}: {text}"


def _function(image: Image, pc: int) -> str:
    symbol = image.elf.at(pc, "func")
    return f"{symbol.name} (at {pc:#010x})" if symbol else f"the instruction at {pc:#010x}"


def decode(result: bytes, manifest: Mapping[str, Any], steps: int) -> tuple[Outcome, int]:
    """result.bin of main.c, and the bytes of stack that were used."""
    outputs, batch = int(manifest["output"]["shape"][-1]), int(manifest["batch"])
    width, state_bytes = batch * outputs, int(manifest["bytes"]["state"])
    expected = 4 * outputs + steps * 4 * (1 + width) + state_bytes + 4
    if len(result) != expected:
        raise BackendError(f"the board sent {len(result)} bytes of results, {expected} were expected")
    first = np.frombuffer(result, np.float32, outputs)
    rows = np.frombuffer(result, np.float32, steps * (1 + width), 4 * outputs).reshape(steps, 1 + width)
    state = np.frombuffer(result, np.uint8, state_bytes, expected - state_bytes - 4)
    return Outcome(first, rows[:, 0], rows[:, 1:], state), int.from_bytes(result[-4:], "little")


def run_host(folder: Path, part: Board, job: Job) -> Outcome:
    """The same training here, with fused multiply-adds exactly where the board has them."""
    return run_host_saving(folder, part, job)[0]


def run_host_saving(folder: Path, part: Board, job: Job) -> tuple[Outcome, list[np.ndarray]]:
    """`run_host`, and the state as it begins and after every `save_every` steps."""
    flags = [f for f in FLAGS if not f.startswith("-DTL_USE_FMA")]
    host = HostProgram(folder, (*flags, f"-DTL_USE_FMA={int(part.fma)}"))
    host.init(job.seed)
    saved = [host.region("state").copy()]
    outputs = host.predict(job.samples[0, :1])[0]
    losses, logits = [], []
    for i, (x, y, lr) in enumerate(zip(job.samples, job.labels, job.lr, strict=True)):
        accumulates = host.training_function == "accumulate"
        losses.append(host.accumulate(x, y) if accumulates else host.step(x, y, float(lr)))
        logits.append(host.logits().reshape(-1))
        if accumulates and (i + 1) % job.calls_per_update == 0:
            host.apply(float(lr))
        if job.save_every and (i + 1) % job.save_every == 0:
            saved.append(host.region("state").copy())
    state = host.region("state").copy()
    return Outcome(outputs, np.array(losses, np.float32), np.array(logits), state), saved


def compare(host: Outcome, device: Outcome, manifest: Mapping[str, Any]) -> str | None:
    """The first difference in bits between two runs, in words; None if there is none."""
    if host.outputs.tobytes() != device.outputs.tobytes():
        return f"outputs of the first sample: {_first(device.outputs, host.outputs)}"
    for i in range(len(host.losses)):
        for what, ours, theirs in (
            ("outputs", device.logits[i], host.logits[i]),
            ("loss", device.losses[i : i + 1], host.losses[i : i + 1]),
        ):
            if ours.tobytes() != theirs.tobytes():
                return f"{what} of step {i + 1}: {_first(ours, theirs)}"
    from trainlet.ir.graph import DTYPES

    for entry in manifest["state"]:
        at, end = entry["offset"], entry["offset"] + entry["bytes"]
        dtype = DTYPES[entry["dtype"]][0]
        ours, theirs = device.state[at:end].view(dtype), host.state[at:end].view(dtype)
        if ours.tobytes() != theirs.tobytes():
            return f"{entry['name']} after training: {_first(ours, theirs)}"
    return None


def _first(ours: np.ndarray, theirs: np.ndarray) -> str:
    different = np.flatnonzero(
        ours.view(np.uint8).reshape(ours.size, -1) != theirs.view(np.uint8).reshape(ours.size, -1)
    )
    rows = np.unique(different // ours.itemsize)
    i = int(rows[0])
    return f"element {i} is {ours[i]!r} on the board, {theirs[i]!r} here; {len(rows)} of {ours.size} differ"
