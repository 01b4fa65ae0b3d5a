"""The best choice under additive gains: for each depth a grouped knapsack, solved to optimality.

Lin et al. (arXiv:2206.15472, section 3.2) maximise the same sum by evolution. For a fixed
first trained layer every cost is linear in which option of each weight, and how many biases, are taken, so an
integer program (HiGHS) finds the optimum and proves it; depths that cannot beat the best one found, by their
linear relaxation, are not solved.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainlet.choose.gains import Gains
from trainlet.choose.limits import BIASES, Limit, allowed, binding, joint_system
from trainlet.choose.space import Choice, Space
from trainlet.errors import SchemeError

Options = Callable[[int], Sequence[int]]
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Solution:
    """The optimum: `value` its summed units, `solved` integer programs out of `considered` depths."""

    choice: Choice
    value: float
    solved: int
    considered: int


def solve(
    space: Space,
    gains: Gains,
    limits: list[Limit],
    options: Options | None = None,
    depths: Sequence[int] | None = None,
    prefer_less: float = 1e-7,
) -> Solution | None:
    """The choice of largest gain within the limits; None where not even the head fits.

    options(layer): counts that may be taken (default: the shares 1/8, 1/4, 1/2, 1). depths: how many of the
    last layers may be trained, each considered. prefer_less: taken off for each option, so that of equal
    choices the smaller is found.
    """
    best: Solution | None = None
    considered = list(range(len(space.body) + 1)) if depths is None else list(depths)
    programs = [_program(space, gains, limits, k, options or space.options, prefer_less) for k in considered]
    bounds = [(p.relaxed(), p) for p in programs if p is not None]
    solved = 0
    for bound, program in sorted(bounds, key=lambda b: -b[0]):
        if best is not None and bound <= best.value + TOLERANCE:
            break
        solved += 1
        choice = program.solve()
        if choice is not None and not allowed(limits, choice):  # cheap only as part of a deeper pass
            choice = program.reaching().solve()
        if choice is not None and allowed(limits, choice) and (best is None or gains(choice) > best.value):
            best = Solution(choice, gains(choice), solved, len(considered))
    if best is None:
        return None
    return Solution(best.choice, best.value, solved, len(considered))


@dataclass(frozen=True)
class _Program:
    """max gain . x,  rows . x <= slack,  at most one option of each layer,  x binary."""

    layers: int
    depth: int
    constant: float
    options: list[tuple[int, int]]
    gain: np.ndarray
    rows: np.ndarray
    slack: np.ndarray

    def relaxed(self) -> float:
        """Upper bound of the value: x anywhere in [0, 1]."""
        return self._run(False)[1]

    def reaching(self) -> _Program:
        """With one more row: the first of the last `depth` layers is trained."""
        first = self.layers - self.depth
        here = [layer == first or (layer, count) == (BIASES, self.depth) for layer, count in self.options]
        rows, slack = np.vstack([self.rows, -np.array(here, float)]), np.append(self.slack, -1.0)
        return replace(self, rows=rows, slack=slack)

    def solve(self) -> Choice | None:
        taken, _ = self._run(True)
        if taken is None:
            return None
        counts, biases = [0] * self.layers, 0
        for (layer, count), x in zip(self.options, taken, strict=True):
            if x > 0.5 and layer == BIASES:
                biases = count
            elif x > 0.5:
                counts[layer] = count
        return Choice(biases, tuple(counts))

    def _run(self, integer: bool) -> tuple[np.ndarray | None, float]:
        if not self.options:
            return np.zeros(0), self.constant
        h = _solver(self._model(integer))
        h.run()
        if h.getModelStatus() != _highs().HighsModelStatus.kOptimal:
            return None, -np.inf
        return np.array(h.getSolution().col_value), self.constant - h.getInfo().objective_function_value

    def _model(self, integer: bool) -> Any:
        """The program in HiGHS's form: columns are options, rows first the costs, then one for each layer."""
        highs = _highs()
        layers = np.array([at for at, _ in self.options])
        one_each = (np.unique(layers)[:, None] == layers).astype(float)
        matrix = np.concatenate([self.rows, one_each])
        lp = highs.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.options), len(matrix)
        lp.col_cost_ = -self.gain
        lp.col_lower_, lp.col_upper_ = np.zeros(len(self.gain)), np.ones(len(self.gain))
        lp.row_lower_ = np.full(len(matrix), -highs.kHighsInf)
        lp.row_upper_ = np.concatenate([self.slack, np.ones(len(one_each))])
        lp.a_matrix_.format_ = highs.MatrixFormat.kRowwise
        row, column = np.nonzero(matrix)
        lp.a_matrix_.start_ = np.searchsorted(row, np.arange(len(matrix) + 1))
        lp.a_matrix_.index_, lp.a_matrix_.value_ = column, matrix[row, column]
        if integer:
            lp.integrality_ = [highs.HighsVarType.kInteger] * len(self.gain)
        return lp


def _program(
    space: Space, gains: Gains, limits: list[Limit], depth: int, options: Options, prefer_less: float
) -> _Program | None:
    """The knapsack among the last `depth` layers; None where a backward pass so deep is too much."""
    n = len(space.body)
    first = n - depth
    if any((limit.system(first, [])[1] < 0).any() for limit in limits):
        return None
    found = [(i, c) for i in range(first, n) for c in options(i) if gains.weight(i, c) > prefer_less]
    found += [(BIASES, k) for k in range(1, depth + 1) if gains.biases[k] > prefer_less]
    rows, slack = joint_system(limits, first, found)
    fits = [j for j in range(len(found)) if (rows[:, j] <= slack).all()]
    found, rows = [found[j] for j in fits], rows[:, fits]
    rows, slack = binding(rows, slack)
    worth = [float(gains.biases[c]) if i == BIASES else gains.weight(i, c) for i, c in found]
    gain = np.array(worth) - prefer_less
    return _Program(n, depth, float(gains.biases[0]), found, gain, rows, slack)


def _highs() -> Any:
    try:
        import highspy
    except ImportError:
        raise SchemeError("the exact search needs a package: pip install 'trainlet[search]'") from None
    return highspy


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing reaches the process's stdout, from C either."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _solver(model: Any) -> Any:
    with _quiet():  # it greets on stdout, before there is an option to set
        h = _highs().Highs()
    h.setOptionValue("output_flag", False)
    h.setOptionValue("threads", 1)
    h.setOptionValue("mip_allow_restart", False)  # HiGHS 1.16 never came back from one, past its time limit
    h.setOptionValue("mip_rel_gap", 0.0)
    h.setOptionValue("mip_abs_gap", TOLERANCE)
    h.setOptionValue("mip_feasibility_tolerance", 1e-9)
    h.setOptionValue("primal_feasibility_tolerance", 1e-9)
    h.passModel(model)
    return h
