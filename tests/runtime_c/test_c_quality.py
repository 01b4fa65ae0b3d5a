"""store.c and session.c as C: no warnings, freestanding, nothing global, no libc but string.h, sanitizers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import trainlet
from tests.host.programs import built, network
from tests.runtime_c.build import C99, SANITIZE, SOURCES, TESTS, run
from trainlet.runtime.toolchain import compiler

ARM = shutil.which("arm-none-eabi-gcc")
FIRMWARE = Path(trainlet.__file__).parent / "device" / "firmware"


def compiled(folder, command, *flags):
    objects = []
    for source in ("store.c", "session.c"):
        objects.append(folder / source.replace(".c", ".o"))
        run([*command, *C99, *flags, "-c", SOURCES / source, "-o", objects[-1]])
    return objects


@pytest.mark.parametrize("level", ["-O0", "-Os", "-O3"])
def test_freestanding_without_warnings(level, tmp_path):
    compiled(tmp_path, compiler(), level, "-ffreestanding", "-Wcast-qual", "-Wpedantic")


@pytest.mark.skipif(ARM is None, reason="arm-none-eabi-gcc is not installed")
def test_cortex_m_without_warnings(tmp_path):
    ours = f"-I{FIRMWARE}"  # its string.h: the compiler may come without a libc
    compiled(tmp_path, [ARM], "-Os", "-ffreestanding", "-mcpu=cortex-m7", "-mthumb", "-Wpedantic", ours)


def test_no_writable_globals_and_no_libc_beyond_memory_moves(tmp_path):
    symbols = run(["nm", *compiled(tmp_path, compiler(), "-O2", "-ffreestanding", "-fno-stack-protector")])
    assert not re.findall(r"\s[BbDdCc]\s\S+$", symbols, re.M)
    outside = set(re.findall(r"\sU\s(\S+)$", symbols, re.M))
    public = set(re.findall(r"\sT\s(\S+)$", symbols, re.M))
    assert all(name.startswith(("tl_store_", "tl_session_")) for name in public)
    assert outside - public <= {"memcpy", "memset", "memmove", "memcmp", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_headers_are_cpp_too(tmp_path):
    (tmp_path / "a.cpp").write_text(
        '#include "session.h"\nint main() { return TL_STORE_SLOT_BYTES(1, 8) != 40; }\n'
    )
    run(["c++", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", tmp_path / "a.cpp", "-o", tmp_path / "a"])
    run([tmp_path / "a"])


def session_program(folder, *flags):
    """Output of session_main.c, built with the emitted network."""
    _, out = built(network("residual", True), folder, scheme="last:2", master="residual")
    for source in [*SOURCES.iterdir(), TESTS / "session_main.c"]:
        shutil.copy(source, out)
    sources = [*sorted(out.glob("*.c")), *sorted((out / "kernels").glob("*.c"))]
    include = [f"-I{out}", f"-I{out / 'kernels'}"]
    own = [p for p in sources if p.name in ("session_main.c", "session.c", "store.c")]
    run([*compiler(), *C99, "-fsyntax-only", *include, *own])
    flags = ("-std=c99", "-ffp-contract=off", "-DTL_USE_FMA=1", "-fno-math-errno", *flags)
    run([*compiler(), *flags, *include, *sources, "-lm", "-o", out / "session"])
    return run([out / "session"]).splitlines()


@pytest.mark.slow
def test_a_session_is_the_same_at_every_level_and_silent_under_sanitizers(tmp_path):
    lines = session_program(tmp_path / "fast", "-O2")
    assert session_program(tmp_path / "checked", "-O1", *SANITIZE) == lines
    first, second = ([line.split(" ", 1) for line in lines[at : at + 5]] for at in (0, 5))
    for boot in (first, second):
        verdicts = [words for _, words in boot]
        assert ["worse than before" in v and "not" not in v for v in verdicts] == [False] * 3 + [True, False]
        assert boot[3][0] == boot[2][0] != boot[4][0]
    assert second[0] == [first[4][0], "booted"]


def test_a_program_of_another_batch_does_not_compile(tmp_path):
    _, out = built(network("residual", True), tmp_path, scheme="last:2", batch=2)
    shutil.copy(TESTS / "session_driver.c", tmp_path)
    command = [*compiler(), "-std=c99", "-fsyntax-only", "-DSAMPLE=int8_t", f"-I{out}", f"-I{SOURCES}"]
    result = subprocess.run([*command, tmp_path / "session_driver.c"], capture_output=True, text=True)
    assert result.returncode != 0 and "needs_batch_1" in result.stderr
