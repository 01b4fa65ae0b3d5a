"""inspect, schemes, plan: commands that only look."""

from __future__ import annotations

from trainlet import api
from trainlet.cli import options as o
from trainlet.report import tables


def inspect(model: o.Model, as_json: o.AsJson = False) -> None:
    """Show a network: input, output, and the layers a scheme can name."""
    report = api.inspect(model)
    if as_json:
        return o.print_json(report)
    console = tables.console()
    console.print(tables.network_line(report), highlight=False)
    console.print(tables.layers_table(report))
    return None


def schemes(model: o.Model, as_json: o.AsJson = False) -> None:
    """List the update schemes by name that fit a network."""
    rows = api.schemes(model)
    if as_json:
        return o.print_json(rows)
    console = tables.console()
    console.print(tables.schemes_table(rows))
    console.print(tables.SCHEMES_NOTE, highlight=False)
    return None


def plan(
    model: o.Model,
    scheme: o.Scheme = "head",
    batch: o.Batch = 1,
    accumulate: o.Accumulate = 1,
    master: o.MasterOption = o.MASTER,
    optimizer: o.RuleOption = o.RULE,
    loss: o.LossOption = o.LOSS,
    classes: o.Classes = None,
    budget: o.Budget = None,
    seed: o.Seed = 0,
    input: o.InputOption = o.INPUT,  # noqa: A002  (the option's name)
    as_json: o.AsJson = False,
) -> None:
    """Plan a training program: RAM and flash to the byte, work, and what is alive at the peak."""
    settings = api.Settings(
        scheme=scheme, master=master, optimizer=optimizer, batch=batch, accumulate=accumulate > 1, loss=loss,
        classes=classes, seed=seed, budget_bytes=budget, input=input.value,
    )  # fmt: skip
    settings, choice = api.within_budget(model, settings)
    report = api.plan_report(api.plan(model, settings))
    if choice is not None:
        report["memory_choice"] = {**vars(choice), "text": choice.text}
    if as_json:
        return o.print_json(report)
    console = tables.console()
    console.print(tables.plan_table(report))
    console.print(tables.peak_table(report))
    if choice is not None:
        console.print(f"within the budget: {choice.text}", highlight=False)
    return None
