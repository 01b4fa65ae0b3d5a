"""Reports of the API as tables in a terminal. Needs rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Report = Mapping[str, Any]
WIDE = 200  # columns where nobody looks: in a file or pipe a cell is not folded
SCHEMES_NOTE = "any K up to the largest shown; analytic bytes leave out the forward working set and gradients"


def console() -> Console:
    """Where tables go: stdout."""
    out = Console()
    return out if out.is_terminal else Console(width=WIDE)


def _table(title: str | None, **columns: str) -> Table:
    """A table with these columns; the value says on which side a column is aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, side in columns.items():
        title = name.replace("_", " ")
        if side == "right":
            table.add_column(title, justify="right", no_wrap=True)
        else:
            table.add_column(title, overflow="fold")
    return table


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def network_line(report: Report) -> str:
    """One line about an inspected network."""
    x, y = report["input"], report["output"]
    return (
        f"{report['model']}: {x['name']} {x['dtype']} {_shape(x['shape'])} -> {y['name']} {y['dtype']} "
        f"{_shape(y['shape'])}, {report['parameters']:,} parameters"
    )


def layers_table(report: Report) -> Table:
    """The trainable layers of `inspect`."""
    table = _table(
        None, index="right", op="left", weight="left", bias="left", shape="right", type="left",
        channels="right", input_bytes="right", MACs="right",
    )  # fmt: skip
    for row in report["layers"]:
        kind = " depthwise" if row["depthwise"] else " head" if row["head"] else ""
        table.add_row(
            str(row["index"]), row["op"] + kind, row["weight"], row["bias"] or "-", _shape(row["shape"]),
            row["dtype"], str(row["channels"]), f"{row['input_bytes']:,}", f"{row['macs']:,}",
        )  # fmt: skip
    return table


def schemes_table(rows: Sequence[Report]) -> Table:
    """The rows of `schemes`."""
    table = _table(
        None, scheme="left", weights="right", biases="right", trained_elements="right", analytic_bytes="right"
    )
    table.caption = (
        "bias-only:K and last:K take any K up to the largest shown. Analytic bytes: no working memory"
    )
    table.caption_justify = "left"
    for row in rows:
        numbers = (row[k] for k in ("weights", "biases", "trained_elements", "analytic_bytes"))
        table.add_row(row["name"], *(f"{n:,}" for n in numbers))
    return table


def plan_table(report: Report) -> Table:
    """Bytes by memory, and work."""
    ram, macs = report["ram_bytes"], report["macs"]
    title = (
        f"{report['model']}, scheme {report['scheme']}, master {report['master']}, batch {report['batch']}"
    )
    table = _table(title, memory="left", bytes="right", what="left")
    bound = f"activations and gradients; lower bound {report['lower_bound_bytes']:,}"
    table.add_row("RAM: arena", f"{ram['arena']:,}", bound)
    for name, saved in report["saved_bytes"].items():
        table.add_row("", f"-{saved:,}", f"saved by {name}")
    table.add_row("RAM: state", f"{ram['state']:,}", "trained tensors, optimizer")
    table.add_row("RAM: scratch", f"{ram['scratch']:,}", "of the largest kernel")
    table.add_row("RAM: total", f"{ram['total']:,}", "")
    if report["input"]["where"] == "caller":
        table.add_row("input", f"{report['input']['caller_bytes']:,}", "the caller's, beside that RAM")
    elif report["input"]["where"] == "rows":
        table.add_row("input", "by rows", "never whole in memory")
    table.add_row("flash", f"{report['flash_bytes']:,}", "weights and constants")
    work = f"{macs['forward']:,} forward, {macs['backward']:,} backward"
    table.add_row("MACs", f"{macs['forward'] + macs['backward']:,}", work)
    return table


def peak_table(report: Report) -> Table:
    """What is alive when the arena is fullest."""
    table = _table("\nalive at the peak", tensor="left", bytes="right")
    for row in report["peak_live"]:
        table.add_row(row["name"], f"{row['bytes']:,}")
    return table


def training_table(report: Report) -> Table:
    """What a training run did."""
    accuracy, ram = report["accuracy"], report["ram_bytes"]
    table = _table(None, result="left", value="right")
    table.show_header = False
    if report["new_head"]:
        table.add_row("new head", f"{report['new_head']} classes")
    for when in ("before", "after"):
        table.add_row(f"{report['metric']} {when}", f"{accuracy[when]:.4f}")
    if report["loss_per_epoch"]:
        table.add_row("loss of the last epoch", f"{report['loss_per_epoch'][-1]:.4f}")
    table.add_row("arena peak, measured", f"{report['peak_bytes']:,} bytes")
    table.add_row("RAM, planned", f"{ram['total']:,} bytes")
    table.add_row("time", f"{report['seconds']:.1f} s")
    return table


def front_table(chosen: Any) -> Table:
    """The schemes that `search` compared; the chosen one is marked."""
    from trainlet.choose.report import table

    titles, rows = table(chosen)
    shown = _table("\nschemes", **{t: "left" if i == 0 else "right" for i, t in enumerate(titles)})
    for is_chosen, cells in rows:
        marked = is_chosen and cells[0] != "chosen"
        shown.add_row(f"{cells[0]} (chosen)" if marked else cells[0], *cells[1:])
    return shown
