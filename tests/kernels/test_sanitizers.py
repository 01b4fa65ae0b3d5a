"""All other tests of this folder once more, under the address and undefined-behaviour sanitizers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(bool(os.environ.get("TL_SANITIZE")), reason="is what runs the others")
def test_everything_runs_clean_under_the_sanitizers():
    libasan = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(libasan).exists():
        pytest.skip("no libasan")
    environment = dict(os.environ, TL_SANITIZE="1", LD_PRELOAD=libasan, ASAN_OPTIONS="detect_leaks=0")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent),
    ]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
