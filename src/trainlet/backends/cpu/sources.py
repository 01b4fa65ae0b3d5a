"""Which kernel files a program needs: those that define what it calls, and what these call in turn."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_DEFINED = re.compile(r"^(?!static|typedef|enum|struct|#)[A-Za-z][\w ]*[ *](tl_\w+)\(", re.MULTILINE)
_NAMED = re.compile(r"\btl_\w+")
# What names functions without calling them: comments and prototypes.
_IDLE = re.compile(r"/\*.*?\*/|^[A-Za-z][\w ]*[ *]tl_\w+\([^;{]*\);", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r'^\s*#include "(tl_\w+\.h)"', re.MULTILINE)


@cache
def _texts(folder: Path) -> dict[str, tuple[Path, str]]:
    """File name -> (path, contents) of every kernel and header this backend may use."""
    parts = ("include/*.h", "portable/*.c", "cpu/*.[ch]")
    return {p.name: (p, p.read_text()) for part in parts for p in sorted(folder.glob(part))}


def kernel_files(folder: Path, program: str) -> list[Path]:
    """Files below `folder` that the C text `program` needs, headers included."""
    texts = _texts(folder)
    bodies = {file: text for file, (_, text) in texts.items() if file.endswith(".c")}
    home = {name: file for file, text in bodies.items() for name in _DEFINED.findall(text)}
    found: dict[str, None] = {"cpu_check.c": None}
    queue = [program, texts["cpu_check.c"][1]]
    while queue:
        text = _IDLE.sub("", queue.pop())
        wanted = [home[name] for name in _NAMED.findall(text) if name in home]
        for file in (*wanted, *(h for h in _INCLUDED.findall(text) if h in texts)):
            if file not in found:
                found[file] = None
                queue.append(texts[file][1])
    return [texts[file][0] for file in sorted(found)]
