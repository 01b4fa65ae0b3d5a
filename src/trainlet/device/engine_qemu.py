"""Running an image in QEMU, with our plugin in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from trainlet.device.board import Qemu
from trainlet.device.build import Image
from trainlet.device.counting import counter_library, function_table, read_counts
from trainlet.device.engine import Run
from trainlet.errors import BackendError

NO_COUNTS = "total 0 0 0 0"
LAST_OF_INTERFACE_1 = 8  # QEMU 9 wants plugins of interface version 2


def run_qemu(
    image: Image, qemu: Qemu, job: bytes, folder: Path, timeout_s: float, counted: bool = True
) -> Run:
    """Run an image to its end in `folder`. Raises BackendError when QEMU fails or does not end in time.

    counted: with the plugin, which takes most of the time; without it there are no counts and no second
    fence.
    """
    (folder / "job.bin").write_bytes(job)
    (folder / "result.bin").unlink(missing_ok=True)
    (folder / "counts.txt").unlink(missing_ok=True)
    (folder / "functions.txt").write_text(function_table(image))
    command = [
        qemu.command, "-M", qemu.machine, "-display", "none", "-monitor", "none", "-serial", "none",
        "-semihosting-config", "enable=on,target=native", *(_plugin(image, qemu, folder) if counted else ()),
        *(("-bios", "none") if qemu.machine == "virt" else ()), "-kernel", str(image.elf.path.resolve()),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise BackendError(f"{qemu.machine} in QEMU did not finish in {timeout_s:g} s") from None
    console = (done.stdout + done.stderr).decode(errors="replace")
    counts = _counts(folder / "counts.txt") if counted else NO_COUNTS
    if counts is None:
        last = (console.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BackendError(f"{qemu.command} -M {qemu.machine} failed: {last}")
    result = folder / "result.bin"
    data = result.read_bytes() if result.is_file() else b""
    return Run(data, console, done.returncode, read_counts(counts, str(image.manifest["prefix"])))


def _plugin(image: Image, qemu: Qemu, folder: Path) -> tuple[str, str]:
    """The options that load the counter; its files go to `folder`."""
    ram = image.elf.address("tl_stack_limit"), image.elf.address("tl_context_end")
    origin, code = image.code
    (folder / "code.bin").write_bytes(code)
    plugin = counter_library("qemu.c", {"QEMU_API_VERSION": str(_interface(qemu.command))})
    files = "table=functions.txt,result=counts.txt,code=code.bin"
    numbers = f"origin={origin:x},thumb={int(image.elf.thumb)},fence={ram[0]:x}:{ram[1]:x}"
    return "-plugin", f"{plugin},{files},{numbers}"


def _counts(path: Path) -> str | None:
    """What the plugin wrote, None where it did not come to its end."""
    text = path.read_text() if path.is_file() else ""
    return text if "total" in text else None


def _interface(command: str) -> int:
    text = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.search(r"version (\d+)", text)
    return 1 if major is None or int(major[1]) <= LAST_OF_INTERFACE_1 else 2
