"""Plain Markdown tables, and where the reference networks are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT.parent / "shared" / "reference" / "models"
NETWORKS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with every column as wide as its widest cell; numbers to the right."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    numeric = [bool(cells) and all(row[i][:1].isdigit() for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True))
    return "\n".join([line(header), f"|{rule}|", *map(line, cells)])


def replace_between(document: str, name: str, text: str) -> str:
    """The document with `text` between its lines <!-- name --> and <!-- /name -->.

    Raises ValueError where it has no such lines.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if start not in document or end not in document:
        raise ValueError(f"no lines {start.strip()} and {end} to write between")
    before, rest = document.split(start, 1)
    return f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}"


def find_model(folder: Path, name: str) -> Path | None:
    """The network's file in `folder`, or None where it is not there."""
    path = folder / f"{name}.json"
    return path if path.is_file() else None
