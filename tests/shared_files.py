"""Reference files that are too large for the repository; they lie in `shared/` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(relative: str) -> Path:
    """The reference file or folder `shared/<relative>`.

    Where it is missing the test is skipped; under CI (environment variable CI) it fails instead.
    """
    path = SHARED / relative
    if not path.exists():
        message = f"needs shared/{relative} beside the checkout"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
