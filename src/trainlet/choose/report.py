"""The one-page report of a search: what was chosen and why, and the front it lies on. HTML, Markdown, PNG,
JSON.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainlet.choose.request import Chosen, Point, in_words
from trainlet.errors import OutputError
from trainlet.output import check_writable

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child{text-align:left}tr.chosen{background:#eef6ee;font-weight:600}"
    "img{max-width:100%}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
)


def write_report(chosen: Chosen, folder: Path) -> list[Path]:
    """index.html (with the picture inside), report.md, report.json, and front.png where matplotlib is
    there.
    """
    check_writable(folder / "index.html")
    picture = draw_front(chosen, folder / "front.png")
    parts = {
        "report.md": markdown(chosen),
        "index.html": page(chosen, picture),
        "report.json": json.dumps(as_dict(chosen), indent=1) + "\n",
    }
    for name, text in parts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {folder / name}: {error.strerror or error}") from None
    return [folder / name for name in parts] + ([picture] if picture else [])


def columns(chosen: Chosen) -> list[tuple[str, Any]]:
    """Title and cell of each column of the table of schemes."""
    found: list[tuple[str, Any]] = [
        ("scheme", lambda p: p.name),
        ("RAM, bytes", lambda p: f"{p.ram_bytes:,}"),
        ("analytic, bytes", lambda p: f"{p.analytic_bytes:,}"),
        ("MACs a step", lambda p: f"{p.macs / 1e6:.1f} M"),
    ]
    if any(p.step_ms is not None for p in chosen.points):
        found.append(("step, ms", lambda p: "" if p.step_ms is None else f"{p.step_ms:,.1f}"))
    found.append(("predicted gain", lambda p: f"{100 * p.gain:+.1f} points"))
    if chosen.confirmed:
        found.append(("validation", lambda p: "" if p.accuracy is None else f"{p.accuracy:.1%}"))
    return found


def headline(chosen: Chosen) -> list[str]:
    """What was chosen and why, a sentence each."""
    found, request = chosen.found, chosen.request
    budget = f"{request.budget_bytes:,} bytes " + (
        "of RAM" if request.options.cost == "planned" else "analytic"
    )
    lines = [
        f"Beside the head, train {in_words(chosen.space, found.choice)}.",
        f"RAM {found.ram_bytes:,} bytes as planned ({found.analytic_bytes:,} analytic), budget {budget}.",
        f"How the proposal was found ({request.options.method}): {found.proof}.",
        f"Predicted gain over the head alone: {100 * found.value:+.1f} points "
        f"(a sum of measured gains; the head alone had {chosen.analysis.head_accuracy.gain:.1%}).",
    ]
    if found.rounds:
        estimated, planned = found.rounds[-1]
        off = abs(estimated - planned) / planned
        lines.append(f"The estimate of the proposal was {estimated:,} bytes, {off:.2%} off its plan.")
    if chosen.confirmed:
        best = max(chosen.confirmed, key=lambda c: c.accuracy)
        taken = next(c for c in chosen.confirmed if chosen.space.choice(c.candidate.scheme) == found.choice)
        lines.append(
            f"Compared by real trainings of {request.confirm_epochs} epochs on validation samples: "
            f"{taken.candidate.name} reached {taken.accuracy:.1%}, the best was {best.candidate.name} with "
            f"{best.accuracy:.1%}. Of what is equal within one standard error the smallest is taken."
        )
    else:
        lines.append("Candidates were not compared by real trainings (--confirm-epochs 0).")
    return lines


def table(chosen: Chosen) -> tuple[list[str], list[tuple[bool, list[str]]]]:
    """Titles; and of each scheme whether it is the chosen one, and its cells."""
    shown = columns(chosen)
    rows = [(_is_chosen(chosen, p), [cell(p) for _, cell in shown]) for p in chosen.points]
    return [title for title, _ in shown], rows


def _is_chosen(chosen: Chosen, p: Point) -> bool:
    same = p.ram_bytes == chosen.found.ram_bytes and p.gain == chosen.found.value
    return same and p.analytic_bytes == chosen.found.analytic_bytes


def markdown(chosen: Chosen) -> str:
    titles, rows = table(chosen)
    lines = [f"# What to train of {chosen.model}", "", *(f"- {line}" for line in headline(chosen)), ""]
    lines += [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}"]
    for is_chosen, cells in rows:
        name = f"**{cells[0]}** (chosen)" if is_chosen and cells[0] != "chosen" else cells[0]
        lines.append(f"| {' | '.join([name, *cells[1:]])} |")
    return "\n".join([*lines, "", *_layers(chosen), "", _note(chosen), ""])


def _layers(chosen: Chosen) -> list[str]:
    """The trained layers, a row each."""
    choice, n = chosen.found.choice, len(chosen.space.body)
    lines = ["| layer | trained channels | of | bias |", "|---|---:|---:|---|"]
    for i, x in enumerate(chosen.space.body):
        bias = i >= n - choice.biases and x.bias is not None
        if bias or choice.counts[i]:
            name = x.weight.name
            lines.append(f"| {name} | {choice.counts[i]} | {x.channels} | {'trained' if bias else ''} |")
    return lines


def _note(chosen: Chosen) -> str:
    spent = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in chosen.seconds.items())
    return (
        "Predicted gains of schemes far from what was measured one by one (last:K, for example) are sums "
        "that overlap: read them as an order. Gains come from the analysis of this network and task. "
        f"Time: {spent}."
    )


def page(chosen: Chosen, picture: Path | None) -> str:
    """The report as one HTML file that needs no other."""
    titles, rows = table(chosen)
    head = "".join(f"<th>{html.escape(t)}</th>" for t in titles)
    body = "".join(
        f'<tr class="{"chosen" if is_chosen else ""}">{_cells(cells)}</tr>' for is_chosen, cells in rows
    )
    image = ""
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img alt="accuracy against memory" src="data:image/png;base64,{data}">'
    sentences = "".join(f"<li>{html.escape(line)}</li>" for line in headline(chosen))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(chosen.model)}</title>'
        f"<style>{STYLE}</style><h1>What to train of {html.escape(chosen.model)}</h1>"
        f"<ul>{sentences}</ul>{image}"
        f"<h2>Schemes</h2><table><tr>{head}</tr>{body}</table><h2>Trained layers</h2>"
        f"{_html_table(_layers(chosen))}<p>{html.escape(_note(chosen))}</p></html>\n"
    )


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{html.escape(c)}</td>" for c in cells)


def _html_table(lines: Sequence[str]) -> str:
    rows = [[html.escape(c.strip()) for c in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{c}</th>" for c in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows[2:])
    return f"<table><tr>{head}</tr>{body}</table>"


def as_dict(chosen: Chosen) -> dict[str, Any]:
    """`search --json`, and report.json."""
    found, request = chosen.found, chosen.request
    return {
        "model": chosen.model,
        "budget_bytes": request.budget_bytes,
        "cost": request.options.cost,
        "method": request.options.method,
        "rule": request.rule,
        "biases": found.choice.biases,
        "channels": {
            x.weight.name: c for x, c in zip(chosen.space.body, found.choice.counts, strict=True) if c
        },
        "ram_bytes": found.ram_bytes,
        "analytic_bytes": found.analytic_bytes,
        "predicted_gain": float(found.value),
        "proof": found.proof,
        "rounds": [list(r) for r in found.rounds],
        "lr": chosen.lr,
        "confirmed": [
            {"name": c.candidate.name, "accuracy": c.accuracy, "lr": c.lr, "ram_bytes": c.candidate.ram_bytes}
            for c in chosen.confirmed
        ],
        "points": [p.__dict__ for p in chosen.points],
        "seconds": dict(chosen.seconds),
    }  # fmt: skip


def draw_front(chosen: Chosen, path: Path) -> Path | None:
    """Predicted and validated accuracy against planned RAM; None without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return None
    base = 100 * chosen.analysis.head_accuracy.gain
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for p in chosen.points:
        chosen_here = _is_chosen(chosen, p)
        kind = "o" if chosen_here else "s" if p.name.startswith(("head", "bias", "last")) else "D"
        colour = "#2a7f3f" if chosen_here else "#888888" if kind == "s" else "#3465a4"
        x = p.ram_bytes / 1024
        axes.plot(x, base + 100 * p.gain, kind, color=colour, markersize=10 if chosen_here else 6)
        label = f"{p.name} (chosen)" if chosen_here and p.name != "chosen" else p.name
        axes.annotate(label, (x, base + 100 * p.gain), textcoords="offset points", xytext=(6, 4), fontsize=8)
        if p.accuracy is not None:
            axes.plot(x, 100 * p.accuracy, "x", color="#c0392b", markersize=8)
    if chosen.request.options.cost == "planned":
        axes.axvline(chosen.request.budget_bytes / 1024, color="#c0392b", linestyle="--", linewidth=1)
    axes.set_xlabel("planned RAM of training, KiB (dashed: the budget)")
    axes.set_ylabel("accuracy, %: predicted; x: trained, on validation samples")
    axes.set_title(f"{chosen.model}: what training costs and gains")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
