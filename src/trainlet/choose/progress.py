"""The progress of an analysis in lines: what a phase will take once a run of it ended, and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainlet.choose.analyze import AnalysisProgress, Watch


def lines(say: Callable[[str], None], clock: Callable[[], float] = time.perf_counter) -> Watch:
    """A watch that says two lines a phase; one where nothing had to be run."""
    started: dict[str, tuple[float, int]] = {}
    estimated: set[str] = set()

    def watch(p: AnalysisProgress) -> None:
        if p.phase not in started:
            started[p.phase] = clock(), p.done
        begun, before = started[p.phase]
        ran = p.done - before
        if p.done == p.total:
            if p.total:
                kept = f", {p.reused} of them kept from before" if p.reused else ""
                say(f"{p.phase}: {p.total} runs in {clock() - begun:.0f} s{kept}")
            del started[p.phase]
            estimated.discard(p.phase)
        elif ran > 0 and p.phase not in estimated:
            estimated.add(p.phase)
            left = (clock() - begun) / ran * (p.total - p.done)
            say(f"{p.phase}: {p.total} runs, about {left:.0f} s to go")

    return watch
