"""Passes as text: a graph goes in, a graph comes out."""

from __future__ import annotations

from collections.abc import Callable

from trainlet.ir import Graph, verify
from trainlet.ir.text import parse_graph, print_graph


def after(change: Callable[[Graph], Graph], text: str) -> str:
    """What `change` makes of the graph in `text`; contents that the text leaves out are zeros."""
    return print_graph(verify(change(parse_graph(text, shapes_only=True))))


def assert_becomes(change: Callable[[Graph], Graph], before: str, expected: str) -> None:
    assert after(change, before) == print_graph(parse_graph(expected, shapes_only=True))


def assert_stays(change: Callable[[Graph], Graph], text: str) -> None:
    assert_becomes(change, text, text)
