"""Running an image in Unicorn: exact memories, semihosting and fence by hooks, counts by a hook in C."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainlet.device.board import Board
from trainlet.device.build import Image
from trainlet.device.counting import counter_library, function_table, read_counts
from trainlet.device.engine import EXIT_FAULT, FLASH_FILE, Run
from trainlet.errors import BackendError

PAGE = 4096
CORE_REGISTERS = 0xE000E000
SYS_OPEN, SYS_CLOSE, SYS_WRITE0, SYS_WRITE, SYS_READ = 0x01, 0x02, 0x04, 0x05, 0x06
SYS_SEEK, SYS_EXIT = 0x0A, 0x20
FAILED = 0xFFFFFFFF
FIRST_NEW = 4  # the first fopen mode that does not want the file to exist
READ, WRITE, EXECUTE = 0, 1, 2  # tl_fault_kind of board.h
RISCV_RETURN = b"\x82\x80"
BKPT_AB, EBREAK = b"\xab\xbe", b"\x73\x00\x10\x00"


class Files:
    """The files of semihosting, in memory: name -> contents; job.bin, result.bin, flash.bin."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = {name: bytearray(data) for name, data in contents.items()}
        self.opened: list[str] = []
        self.position: list[int] = []

    def open(self, name: str, mode: int) -> int:
        """A handle, or -1. Modes as in fopen: 0 to 3 want a file that exists, 4 and up make it empty."""
        if mode < FIRST_NEW and name not in self.contents:
            return -1
        if mode >= FIRST_NEW:
            self.contents[name] = bytearray()
        self.opened.append(name)
        self.position.append(0)
        return len(self.opened)

    def seek(self, handle: int, to: int) -> None:
        self.position[handle - 1] = to

    def read(self, handle: int, size: int) -> bytes:
        at = self.position[handle - 1]
        part = bytes(self.contents[self.opened[handle - 1]][at : at + size])
        self.position[handle - 1] += len(part)
        return part

    def write(self, handle: int, data: bytes) -> None:
        at = self.position[handle - 1]
        self.contents[self.opened[handle - 1]][at : at + len(data)] = data
        self.position[handle - 1] += len(data)


@dataclass
class _Machine:
    """A core with its memories, its files, and how its run ended."""

    uc: Any
    image: Image
    thumb: bool
    files: Files
    console: str = ""
    exit_code: int | None = None
    fault: tuple[int, int, int] | None = None  # kind, address, pc

    def __post_init__(self) -> None:
        from unicorn import arm_const, riscv_const

        a, r = arm_const, riscv_const
        thumb = (a.UC_ARM_REG_R0, a.UC_ARM_REG_R1, a.UC_ARM_REG_R2, a.UC_ARM_REG_R3)
        riscv = (r.UC_RISCV_REG_A0, r.UC_RISCV_REG_A1, r.UC_RISCV_REG_A2, r.UC_RISCV_REG_A3)
        self.arguments = thumb if self.thumb else riscv
        self.pc = a.UC_ARM_REG_PC if self.thumb else r.UC_RISCV_REG_PC
        self.sp = a.UC_ARM_REG_SP if self.thumb else r.UC_RISCV_REG_SP

    def words(self, at: int, count: int) -> list[int]:
        raw = bytes(self.uc.mem_read(at, 4 * count))
        return [int.from_bytes(raw[4 * i : 4 * i + 4], "little") for i in range(count)]

    def text(self, at: int) -> str:
        found = bytearray()
        while byte := bytes(self.uc.mem_read(at + len(found), 1)):
            if byte == b"\0":
                break
            found += byte
        return found.decode(errors="replace")

    def interrupt(self, uc: Any, number: int, data: object) -> None:
        """Semihosting arrives as a breakpoint; any other exception ends the run."""
        pc = uc.reg_read(self.pc)
        if self.thumb and bytes(uc.mem_read(pc, 2)) == BKPT_AB:
            self.semihosting()
            uc.reg_write(self.pc, pc + 2 | 1)
        else:
            self.console += f"fault: exception {number} of the core, by the instruction at {pc:#010x}\n"
            self.exit_code = EXIT_FAULT
            uc.emu_stop()

    def semihosting(self) -> None:
        uc = self.uc
        operation, block = (uc.reg_read(r) for r in self.arguments[:2])
        answer = 0
        if operation == SYS_WRITE0:
            self.console += self.text(block)
        elif operation == SYS_OPEN:
            name, mode, length = self.words(block, 3)
            answer = self.files.open(bytes(uc.mem_read(name, length)).decode(), mode)
        elif operation == SYS_SEEK:
            self.files.seek(*self.words(block, 2))
        elif operation == SYS_READ:
            handle, to, size = self.words(block, 3)
            part = self.files.read(handle, size)
            uc.mem_write(to, part)
            answer = size - len(part)
        elif operation == SYS_WRITE:
            handle, start, size = self.words(block, 3)
            self.files.write(handle, bytes(uc.mem_read(start, size)))
        elif operation == SYS_EXIT:
            self.exit_code = self.words(block, 2)[1]
            uc.emu_stop()
            return
        elif operation != SYS_CLOSE:
            answer = FAILED
        uc.reg_write(self.arguments[0], answer & FAILED)

    def forbidden(self, uc: Any, access: int, address: int, size: int, value: int, data: object) -> bool:
        """An access that no memory allows, or one behind the context."""
        import unicorn as u

        if self.fault is None:
            writes = (u.UC_MEM_WRITE, u.UC_MEM_WRITE_UNMAPPED, u.UC_MEM_WRITE_PROT)
            fetches = (u.UC_MEM_FETCH_UNMAPPED, u.UC_MEM_FETCH_PROT)
            kind = WRITE if access in writes else EXECUTE if access in fetches else READ
            self.fault = kind, address, uc.reg_read(self.pc)
            uc.emu_stop()
        return False

    def report_fault(self) -> None:
        """Let the firmware say in its own words what happened, from a fresh stack."""
        assert self.fault is not None
        elf = self.image.elf
        for register, value in zip(self.arguments, (*self.fault, 0), strict=True):
            self.uc.reg_write(register, value)
        self.uc.reg_write(self.sp, elf.address("tl_stack_top"))
        self.run(elf.address("tl_fault"), 10)

    def run(self, start: int, timeout_s: float) -> None:
        """From an address until the exit, a fault, or the end of the time."""
        end = time.monotonic() + timeout_s
        at: int | None = start
        while at is not None and (left := end - time.monotonic()) > 0:
            at = self._run_on(at, left)

    def _run_on(self, start: int, timeout_s: float) -> int | None:
        """Where to go on. Unicorn takes RISC-V's ebreak for an invalid instruction and stops."""
        import unicorn as u

        try:
            self.uc.emu_start(start | self.thumb, FAILED, timeout=int(timeout_s * 1e6))
        except u.UcError as error:
            at = self.uc.reg_read(self.pc)
            if not self.thumb and bytes(self.uc.mem_read(at, 4)) == EBREAK:
                self.semihosting()
                return None if self.exit_code is not None else at + 4
            if self.fault is None:
                raise BackendError(f"Unicorn stopped at {at:#x}: {error}") from None
        return None


def run_unicorn(
    image: Image,
    board: Board,
    job: bytes,
    folder: Path,
    timeout_s: float,
    prepare: Callable[[Any], None] = lambda uc: None,
) -> Run:
    """Run an image to its end; counts, and flash.bin where there is one, are files in `folder`.

    Raises BackendError where Unicorn fails.

    prepare: may add hooks of its own to the core.
    """
    import unicorn as u

    flash = folder / FLASH_FILE
    files = Files({"job.bin": job} | ({FLASH_FILE: flash.read_bytes()} if flash.is_file() else {}))
    machine = _Machine(_core(board), image, board.isa == "thumb", files)
    uc, elf = machine.uc, image.elf
    _memories(uc, image, board)
    uc.hook_add(u.UC_HOOK_INTR, machine.interrupt)
    uc.hook_add(u.UC_HOOK_MEM_INVALID, machine.forbidden)
    fence = elf.address("tl_context_end")
    if fence < _page_up(fence):  # the rest of the last page; behind it nothing is mapped
        uc.hook_add(u.UC_HOOK_MEM_WRITE, machine.forbidden, begin=fence, end=_page_up(fence) - 1)
    prepare(uc)
    counter = _Counter(machine, folder)
    started = time.monotonic()
    start = elf.entry
    if machine.thumb:  # as the core does
        stack, start = machine.words(image.place.vectors or image.place.flash, 2)
        uc.reg_write(machine.sp, stack)
    machine.run(start, timeout_s)
    counter.close()
    if machine.exit_code is None and machine.fault is not None:
        machine.report_fault()
    if machine.exit_code is None:
        waited = time.monotonic() - started
        raise BackendError(f"{board.name} in Unicorn did not finish in {waited:.0f} s")
    if FLASH_FILE in files.contents:
        flash.write_bytes(files.contents[FLASH_FILE])
    counts = read_counts((folder / "counts.txt").read_text(), str(image.manifest["prefix"]))
    return Run(bytes(files.contents.get("result.bin", b"")), machine.console, machine.exit_code, counts)


def _core(board: Board) -> Any:
    import unicorn as u
    from unicorn import arm_const, riscv_const

    assert board.unicorn is not None
    if board.isa == "riscv32":
        uc = u.Uc(u.UC_ARCH_RISCV, u.UC_MODE_RISCV32)
        uc.ctl_set_cpu_model(riscv_const.UC_CPU_RISCV32_ANY)
        return uc
    uc = u.Uc(u.UC_ARCH_ARM, u.UC_MODE_THUMB | u.UC_MODE_MCLASS)
    name = board.unicorn.cpu.upper().replace("-", "_")
    uc.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_{name}"))
    return uc


def _page_up(address: int) -> int:
    return -(-address // PAGE) * PAGE


def _memories(uc: Any, image: Image, board: Board) -> None:
    import unicorn as u

    place = image.place
    uc.mem_map(place.flash, _page_up(board.flash.budget_bytes), u.UC_PROT_READ | u.UC_PROT_EXEC)
    end = image.elf.address("tl_context_end")
    uc.mem_map(place.ram, _page_up(end) - place.ram, u.UC_PROT_READ | u.UC_PROT_WRITE)
    if place.vectors is not None:
        uc.mem_map(place.vectors, PAGE, u.UC_PROT_READ | u.UC_PROT_EXEC)
    if board.isa == "thumb":
        uc.mem_map(CORE_REGISTERS, PAGE)
    for segment in image.elf.segments:
        uc.mem_write(segment.address, segment.data)
    if board.isa == "riscv32":
        # Unicorn does not tell which address RISC-V's protection forbids: leave the fence to maps and hooks.
        uc.mem_write(image.elf.address("tl_fence_raise"), RISCV_RETURN)


class _Counter:
    """The block hook of unicorn.c, a C function since blocks run by the million; it counts until closed."""

    def __init__(self, machine: _Machine, folder: Path) -> None:
        image, self.uc = machine.image, machine.uc
        table, result = folder / "functions.txt", folder / "counts.txt"
        table.write_text(function_table(image))
        origin, code = image.code
        size = len(code)
        self.code = ctypes.create_string_buffer(code, size)
        # A copy, because its counters are the library's own variables: each run starts from a fresh load.
        with TemporaryDirectory(prefix="trainlet-") as place:
            fresh = shutil.copy(counter_library("unicorn.c"), place)
            self.library = ctypes.CDLL(fresh)
        words = ctypes.c_uint32(origin), ctypes.c_uint32(size), int(machine.thumb)
        if self.library.hook_open(str(table).encode(), str(result).encode(), self.code, *words):
            raise BackendError(f"the instruction counter cannot write to {folder}")
        self.handle = self._register()

    def _register(self) -> ctypes.c_size_t:
        import unicorn as u
        from unicorn.unicorn_py3.unicorn import uclib

        handle = ctypes.c_size_t()
        callback = ctypes.cast(self.library.hook_block, ctypes.c_void_p)
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        uclib.uc_hook_add(self.uc._uch, ctypes.byref(handle), u.UC_HOOK_BLOCK, callback, None, *everywhere)
        return handle

    def close(self) -> None:
        from unicorn.unicorn_py3.unicorn import uclib

        uclib.uc_hook_del(self.uc._uch, self.handle)
        self.library.hook_close()
