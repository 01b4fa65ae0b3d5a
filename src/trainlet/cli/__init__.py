"""The command line: one command for each function of the API."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command in sys.argv and exit: 0, 1 with a line on stderr, 2 for wrong usage, 130 on Ctrl-C."""
    try:
        from trainlet.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("rich", "typer"):
            raise
        sys.exit("error: the command line needs typer and rich: pip install typer rich")
    app(prog_name="trainlet")
