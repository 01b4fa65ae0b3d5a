"""The Python API, with the names of the command line: load, inspect, schemes, plan, emit, train, …"""

from __future__ import annotations

from trainlet.api.networks import adapted_graph, convert, export, inspect, quantize, restore, schemes
from trainlet.api.programs import build, derive, emit, plan, plan_report, prepare, within_budget
from trainlet.api.runs import analyze, evaluate, is_program, train, train_report
from trainlet.api.samples import classes_of, fit_settings, load_dataset
from trainlet.api.settings import INPUTS, MASTERS, Settings, checkpoint_meta, settings_of
from trainlet.frontends import load, load_with_origin

__all__ = [
    "INPUTS",
    "MASTERS",
    "Settings",
    "adapted_graph",
    "analyze",
    "build",
    "checkpoint_meta",
    "classes_of",
    "convert",
    "derive",
    "emit",
    "evaluate",
    "export",
    "fit_settings",
    "inspect",
    "is_program",
    "load",
    "load_dataset",
    "load_with_origin",
    "plan",
    "plan_report",
    "prepare",
    "quantize",
    "restore",
    "schemes",
    "settings_of",
    "train",
    "train_report",
    "within_budget",
]
