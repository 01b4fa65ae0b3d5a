"""Texts with @KEYS@ to fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent


def fill(name: str, values: Mapping[str, object]) -> str:
    """The template file `name` with its keys replaced; a KeyError names a key without a value."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text)
