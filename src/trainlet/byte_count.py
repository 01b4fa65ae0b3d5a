"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

from trainlet.errors import BudgetError

UNITS = {"": 1, "B": 1, "KB": 1024, "KIB": 1024, "K": 1024, "MB": 1024**2, "MIB": 1024**2, "M": 1024**2}


def byte_count(text: str) -> int:
    """Bytes in "256KB", "1.5MB" or "262144"; K is 1024, as memories of microcontrollers are counted.

    Raises BudgetError for anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise BudgetError(f"{text!r} is no number of bytes; write 262144, 256KB or 1MB")
    return int(float(match[1]) * UNITS[match[2].upper()])
