"""Channels that are drawn anew every epoch: the same program, other tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import trainlet
from tests.choose.networks import mobile
from tests.choose.tasks import dataset
from tests.host.programs import network
from trainlet import api
from trainlet.adapt import adapted
from trainlet.errors import SchemeError
from trainlet.runtime.trainer import TrainConfig, Trainer
from trainlet.scheme import Channels, UpdateScheme, layers
from trainlet.scheme.scheme import read_scheme
from trainlet.train.redraw import drawn

EPOCHS, SEED = 5, 3


def weights(graph):
    """A dense weight in the middle, and the head's."""
    found = layers(graph)
    dense = [x for x in found if not x.depthwise and not x.is_head and x.channels >= 8]
    return dense[-1], found[-1]


def scheme(graph, channels) -> UpdateScheme:
    middle, head = weights(graph)
    return UpdateScheme("redrawn", {middle.weight.name: channels, head.weight.name: Channels(share=1.0)})


def trainer(graph, channels, master, epochs=EPOCHS) -> Trainer:
    host = api.build(graph, api.Settings(scheme(graph, channels), master, batch=8, seed=SEED))
    return Trainer(host, dataset(graph), TrainConfig(epochs, 0.05, seed=SEED))


def run(graph, channels, master="nearest"):
    found = trainer(graph, channels, master)
    found.run(measure=False)
    return found


def test_every_channel_has_its_turn_before_any_has_a_second():
    windows = [drawn(16, 4, SEED, 0, epoch) for epoch in range(8)]
    for four in (windows[:4], windows[4:]):
        assert sorted(chain(*four)) == list(range(16)) and all(list(w) == sorted(w) for w in four)
    assert windows[:4] != windows[4:]
    assert len({drawn(16, 4, seed, stream, 0) for seed in range(4) for stream in range(4)}) > 8
    assert all(len(drawn(10, 4, SEED, 0, epoch)) == 4 for epoch in range(5))  # two are left out in turn


@pytest.mark.parametrize("master", ["nearest", "residual", "stochastic", "fp32"])
def test_the_program_draws_what_is_said_and_keeps_what_was_learned(master):
    graph = network("residual", True)
    name, total = weights(graph)[0].weight.name, weights(graph)[0].channels
    host = trainer(graph, Channels(share=0.25, redraw=True), master).host
    host.init()
    factory = np.array(graph.constants[name].data)
    for epoch in range(6):
        if epoch:
            host.redraw(epoch)
        now = tuple(host.tensor(f"{name}.channels").tolist())
        assert now == drawn(total, total // 4, SEED, 0, epoch)
        learned = factory[..., list(now)] + epoch + 1
        before = factory[..., list(now)]
        assert (np.rint(host.tensor(f"{name}.trained")) == before).all()
        host.tensor(f"{name}.trained")[...] = learned = np.clip(learned, -128, 127)
        factory[..., list(now)] = learned
    host.redraw(6)
    got = np.array(host.tensor(f"{name}.base"))
    assert (got == factory).all()


def test_it_trains_as_the_whole_weight_would_if_the_other_channels_were_put_back():
    """Without a residue, an int8 step to the nearest is a function of the weight and its gradient alone."""
    graph = network("residual", True)
    middle = weights(graph)[0]
    name = middle.weight.name
    redrawn = run(graph, Channels(share=0.25, redraw=True))

    class PutBack(Trainer):
        def _update(self, indices, lr):
            before = self.host.tensor(f"{name}.trained").copy()
            result = super()._update(indices, lr)
            now = list(drawn(middle.channels, middle.channels // 4, SEED, 0, self.epoch))
            before[..., now] = self.host.tensor(f"{name}.trained")[..., now]
            self.host.tensor(f"{name}.trained")[...] = before
            return result

    plain = trainer(graph, Channels(share=1.0), "nearest")
    whole = PutBack(plain.host, plain.data, plain.config)
    whole.run(measure=False)
    assert redrawn.result.loss_per_epoch == whole.result.loss_per_epoch
    module = api.derive(graph, api.Settings(scheme(graph, Channels(share=0.25, redraw=True)), "nearest"))
    after = adapted(graph, module.parameters, redrawn.host.tensors())
    assert (after.constants[name].data == whole.host.tensor(f"{name}.trained")).all()
    changed = (after.constants[name].data != graph.constants[name].data).any((0, 1, 2))
    assert changed.sum() > middle.channels // 4  # more than one epoch's channels have learned


@pytest.mark.parametrize("master", ["nearest", "residual"])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(master, tmp_path: Path):
    graph, channels = network("residual", True), Channels(share=0.5, redraw=True)
    straight = run(graph, channels, master)
    first = trainer(graph, channels, master)
    first.config = TrainConfig(EPOCHS, 0.05, seed=SEED)

    def stop(progress):
        if progress.epoch_ended and progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop, checkpoint=tmp_path / "c.npz", measure=False)
    second = trainer(graph, channels, master)
    second.resume(tmp_path / "c.npz")
    second.run(measure=False)
    assert second.host.region("state").tobytes() == straight.host.region("state").tobytes()


def test_a_checkpoint_gives_the_network_that_was_trained(tmp_path: Path):
    graph = network("residual", True)
    name = weights(graph)[0].weight.name
    settings = api.Settings(scheme(graph, Channels(share=0.25, redraw=True)), "nearest", batch=8, seed=SEED)
    path = tmp_path / "c.npz"
    api.train(graph, dataset(graph), settings, 3, 0.05, seed=SEED, checkpoint=path)
    _, restored, state = api.restore(graph, path)
    assert restored.scheme.weights[name] == Channels(count=state[f"{name}.channels"].size, redraw=True)
    whole, now = state[f"{name}.base"].copy(), list(state[f"{name}.channels"])
    whole[..., now] = state[f"{name}.trained"]
    assert (api.adapted_graph(graph, path).constants[name].data == whole).all()
    assert (whole != graph.constants[name].data).any((0, 1, 2)).sum() > len(now)
    host = api.build(graph, replace(restored, batch=1))
    host.restore(state)
    x = dataset(graph).x_test.batch(np.arange(4))
    plain = api.build(api.adapted_graph(graph, path), api.Settings("head", "nearest"))
    assert (host.predict(x) == plain.predict(x)).all()


def test_a_compiled_program_redraws_as_it_fits():
    graph = network("residual", False)
    middle = weights(graph)[0]
    program = trainlet.compile(
        graph, scheme=scheme(graph, Channels(share=0.25, redraw=True)), batch=4, seed=SEED
    )
    x = np.random.default_rng(0).normal(size=(8, *graph.inputs[0].shape[1:])).astype(np.float32)
    program.fit((x, np.arange(8) % 5), epochs=3, lr=0.01)
    table = program.host.tensor(f"{middle.weight.name}.channels").tolist()
    assert table == list(drawn(middle.channels, middle.channels // 4, SEED, 0, 2))
    base = program.host.tensor(f"{middle.weight.name}.base")
    assert (base != graph.constants[middle.weight.name].data).any((0, 1, 2)).sum() == middle.channels // 2


def test_the_plan_counts_the_whole_weight():
    graph = network("residual", True)
    middle = weights(graph)[0]
    fixed, redrawn = (
        api.plan(graph, api.Settings(scheme(graph, Channels(share=0.25, redraw=r)))).bytes["state"]
        for r in (False, True)
    )
    table = 2 * (middle.channels // 4)
    assert redrawn - fixed >= middle.weight.bytes + table


def test_a_float_network_and_its_kernels_redraw_too():
    graph = network("residual", False)
    middle = weights(graph)[0]
    settings = api.Settings(scheme(graph, Channels(share=0.25, redraw=True)), seed=SEED)
    for backend in ("c99", "cpu"):
        program = trainlet.compile(graph, scheme=settings.scheme, batch=4, seed=SEED, backend=backend)
        program.host.init()
        table = f"{middle.weight.name}.channels"
        before = program.host.tensor(table).tolist()
        program.host.redraw(1)
        assert before == list(drawn(middle.channels, middle.channels // 4, SEED, 0, 0))
        assert program.host.tensor(table).tolist() == list(
            drawn(middle.channels, middle.channels // 4, SEED, 0, 1)
        )


def test_the_scheme_file_says_it_and_refuses_what_makes_no_sense(tmp_path: Path):
    graph = network("residual", True)
    path = tmp_path / "s.json"
    path.write_text(scheme(graph, Channels(share=0.25, redraw=True)).to_json())
    assert read_scheme(path).weights[weights(graph)[0].weight.name] == Channels(share=0.25, redraw=True)
    path.write_text('{"weights": {"w": {"indices": [1], "redraw": true}}}')
    with pytest.raises(SchemeError, match="follow no other rule"):
        read_scheme(path)


def test_channels_of_a_depthwise_weight_are_not_redrawn():
    graph = mobile(1)
    name = next(x.weight.name for x in layers(graph) if x.depthwise)
    wanted = UpdateScheme("s", {name: Channels(share=0.25, redraw=True)})
    with pytest.raises(SchemeError, match="depthwise convolution cannot be redrawn"):
        api.plan(graph, api.Settings(wanted))
