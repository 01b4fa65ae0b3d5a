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

LAST_OF_INTERFACE_1 = 8  # QEMU 9 wants plugins of interface version 2


def run_qemu(image: Image, qemu: Qemu, job: bytes, folder: Path, timeout_s: float) -> Run:
    """Run an image to its end in `folder`. Raises BackendError when QEMU fails or does not end in time."""
    (folder / "job.bin").write_bytes(job)
    (folder / "result.bin").unlink(missing_ok=True)
    (folder / "counts.txt").unlink(missing_ok=True)
    (folder / "functions.txt").write_text(function_table(image))
    ram = image.elf.address("tl_stack_limit"), image.elf.address("tl_context_end")
    plugin = counter_library("qemu.c", {"QEMU_API_VERSION": str(_interface(qemu.command))})
    arguments = f"table=functions.txt,result=counts.txt,fence={ram[0]:x}:{ram[1]:x}"
    command = [
        qemu.command, "-M", qemu.machine, "-display", "none", "-monitor", "none", "-serial", "none",
        "-semihosting-config", "enable=on,target=native", "-plugin", f"{plugin},{arguments}",
        *(("-bios", "none") if qemu.machine == "virt" else ()), "-kernel", str(image.elf.path.resolve()),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise BackendError(f"{qemu.machine} in QEMU did not finish in {timeout_s:g} s") from None
    console = (done.stdout + done.stderr).decode(errors="replace")
    found = folder / "counts.txt"
    if not found.is_file() or "total" not in (counts := found.read_text()):
        last = (console.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BackendError(f"{qemu.command} -M {qemu.machine} failed: {last}")
    result = folder / "result.bin"
    data = result.read_bytes() if result.is_file() else b""
    return Run(data, console, done.returncode, read_counts(counts, str(image.manifest["prefix"])))


def _interface(command: str) -> int:
    text = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.search(r"version (\d+)", text)
    return 1 if major is None or int(major[1]) <= LAST_OF_INTERFACE_1 else 2
