"""RAM of a choice in microseconds: live bytes of probed plans, added up layer by layer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

import trainlet
from trainlet import api
from trainlet.choose.probe import Profile, parameter_bytes, probe, state_bytes, units
from trainlet.choose.space import Choice, Space
from trainlet.scheme import select
from trainlet.train.parameters import Optimizer, parameters

PROBED_SHARES = (0.125, 0.5)
BLOCK = 2  # layers to either side that may share a block with a weight
REACH = 3  # layers that a weight's probe trains before it: a block, whose skip connection carries a gradient


class MemoryModel:
    """Planned RAM of any choice, estimated.

    The arena is the largest sum of live bytes over the units (layers, forward and backward) of the network:
    those of the plan that trains biases down to the first trained layer, and for each trained weight what a
    plan with that weight has more. Both come from the planner, on first use. State is exact.
    """

    def __init__(
        self,
        space: Space,
        settings: api.Settings,
        for_board: bool,
        cache: Path | None = None,
        redraw: bool = False,
    ) -> None:
        self.space, self.settings, self.for_board, self.redraw = space, settings, for_board, redraw
        self._cache = None if cache is None else cache / f"probes-{self._key()}.json"
        self._stored: dict[str, dict] = _read(self._cache)
        self._profiles: dict[Choice, Profile] = {}
        self._added: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray, int]] = {}
        names = units(space.graph)
        self._unit = [names.index(x.node.source) for x in space.body]
        self._bias_state, self._weight_state, self._fixed_state = self._states()

    def estimate(self, choice: Choice) -> int:
        """Bytes of arena + state + scratch."""
        first = choice.first()
        live, scratch = self.base(first).live.reshape(-1), self.base(first).scratch_bytes
        state, own = self._fixed_state + self._bias_state[choice.biases], np.zeros(len(live))
        for i, count in enumerate(choice.counts):
            if count:
                kept, extra, needed = self.added(i, count, first)
                live, own, scratch = live + kept, np.maximum(own, extra), max(scratch, needed)
                state += self.weight_state(i, count)
        return int(max((live + own).max(), self.predict_bytes)) + int(state) + scratch

    def base(self, first: int) -> Profile:
        """The plan that trains every bias from layer `first` on, and no weight but the head's."""
        n = len(self.space.body)
        return self.profile(Choice(n - first, (0,) * n))

    def added(self, layer: int, count: int, first: int) -> tuple[np.ndarray, np.ndarray, int]:
        """What `count` channels of a weight add to the plan of base(first): live bytes (2 x units, twice),
        and the scratch that they need, 0 where it is no more than the others'.

        First what is kept from the forward to the backward pass: it adds up over weights. Then what the
        layer's own backward step takes beyond that, as it can no longer overwrite its operand or go through
        its block by groups of channels: of weights that share a block the largest counts.
        """
        key = (layer, count, first)
        if key not in self._added:
            kept, own, scratch = self._alone(layer, count, max(first, layer - REACH))
            base = self.base(first).live.reshape(-1)
            self._added[key] = kept, np.maximum(own + base[-1] - base, 0.0), scratch
        return self._added[key]

    def _alone(self, layer: int, count: int, first: int) -> tuple[np.ndarray, np.ndarray, int]:
        """What is kept; in steps that take more, live bytes beside that and what is alive at the loss; and
        scratch.

        Linear in the channels between and beyond two probed counts; a whole weight is probed by itself,
        since it keeps its layer's input instead of a copy of some channels.
        """
        low, high = (self.space.count(layer, share) for share in PROBED_SHARES)
        if count == self.space.body[layer].channels or low in (0, high):
            added, live, scratch = self._difference(layer, count, first)
        else:
            (a, live_a, need_a), (b, live_b, need_b) = (
                self._difference(layer, c, first) for c in (low, high)
            )
            scratch = max(need_a, need_b)
            part = (count - low) / (high - low)
            added, live = a + (b - a) * part, live_a + (live_b - live_a) * part
        at, total = self._unit, len(added) // 2
        units_ = np.arange(len(added)) % total
        kept = np.minimum(added, max(0.0, float(added[-1])))  # at the loss nothing else of it is alive
        kept[units_ < at[layer]] = 0  # before its layer runs, and after its gradient is known
        near = at[max(0, layer - BLOCK)], at[min(len(at) - 1, layer + BLOCK)]
        own = (added > kept) & (units_ >= near[0]) & (units_ <= near[1])
        return kept, np.where(own, live - kept - self.base(first).live[1, -1], -np.inf), scratch

    def state(self, biases: int) -> int:
        """State bytes of the head and the last `biases` biases."""
        return self._fixed_state + self._bias_state[biases]

    def weight_state(self, layer: int, count: int) -> int:
        """State bytes of `count` channels of a weight; where they are redrawn, of the whole weight and of
        their table beside them.
        """
        unit, x = self._weight_state[layer], self.space.body[layer]
        beside = [x.weight.bytes, 2 * count] if self.redraw and count < x.channels and not x.depthwise else []
        return state_bytes([*(size * count for size in unit), *beside])

    def profile(self, choice: Choice) -> Profile:
        """The probed plan of a choice, kept."""
        if choice not in self._profiles:
            self._profiles[choice] = self._load(choice)
        return self._profiles[choice]

    def with_weight(self, layer: int, count: int, first: int) -> tuple[Profile, Profile]:
        """The plan that trains `count` channels of a weight beside base(first), and base(first)."""
        n = len(self.space.body)
        counts = tuple(count if i == layer else 0 for i in range(n))
        return self.profile(Choice(n - first, counts)), self.base(first)

    def _difference(self, layer: int, count: int, first: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Live bytes beyond those without the weight, live bytes, and scratch where that is more."""
        found, without = self.with_weight(layer, count, first)
        scratch = found.scratch_bytes if found.scratch_bytes > without.scratch_bytes else 0
        added = found.live - without.live
        added[0, : self._unit[layer]] = (
            0  # there passes lower what they must: a lower peak elsewhere moves it
        )
        return added.reshape(-1), found.live.reshape(-1), scratch

    def _states(self) -> tuple[list[int], list[list[int]], int]:
        """State bytes of the last k biases for every k; bytes a channel of each weight's tensors; the
        rest.
        """
        n, s = len(self.space.body), self.settings
        optimizer = Optimizer(s.optimizer, s.master)
        everything = Choice(n, tuple(x.channels for x in self.space.body))
        found = parameters(
            self.space.graph, select(self.space.scheme(everything, "everything"), self.space.graph), optimizer
        )
        by_name = {p.name: p for p in found}
        biases = [0]
        for x in reversed(self.space.body):
            here = by_name.get(x.bias.name) if x.bias is not None else None
            biases.append(biases[-1] + (parameter_bytes(here) if here is not None else 0))
        weights = [
            [t.value.bytes // x.channels for t in by_name[x.weight.name].tensors.values()]
            for x in self.space.body
        ]
        return biases, weights, self.base(n).state_bytes

    @property
    def predict_bytes(self) -> int:
        """The arena of inference, which no choice changes."""
        return self.base(len(self.space.body)).predict_bytes

    def _load(self, choice: Choice) -> Profile:
        key = f"{choice.biases}:{','.join(map(str, choice.counts))}"
        if key not in self._stored:
            scheme, predict = self.space.scheme(choice, "probe"), not any(choice.counts) and not choice.biases
            found = probe(self.space.graph, self.settings, scheme, self.for_board, predict)
            self._stored[key] = {
                k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.__dict__.items()
            }
        raw = self._stored[key]
        return Profile(**{**raw, "live": np.array(raw["live"]), "work": np.array(raw["work"])})

    def save(self) -> None:
        """Keep the probes for the next search on the same network."""
        if self._cache is not None:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            partial = self._cache.with_suffix(".partial")
            partial.write_text(json.dumps(self._stored))
            partial.replace(self._cache)

    def _key(self) -> str:
        """Changes with the network, the settings and the compiler's own source."""
        from trainlet.ir.text import print_graph

        state = hashlib.sha256(print_graph(self.space.graph).encode())
        state.update(repr(sorted(asdict(replace(self.settings, scheme="", seed=0)).items())).encode())
        state.update(str(self.for_board).encode())
        root = Path(trainlet.__file__).parent
        for folder in ("ir", "passes", "plan", "train", "backends", "scheme"):
            for file in sorted((root / folder).rglob("*.py")):
                state.update(file.read_bytes())
        return state.hexdigest()[:24]


def _read(path: Path | None) -> dict[str, dict]:
    if path is None or not path.is_file():
        return {}
    return dict(json.loads(path.read_text()))
