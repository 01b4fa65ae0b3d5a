"""What is derived: nothing before the earliest trained parameter, and nothing that nobody needs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.train.networks import Net, case
from trainlet.errors import SchemeError, UnsupportedGradient
from trainlet.ir import Graph, Node, interpret
from trainlet.ir.ops import OPS
from trainlet.scheme import Selection, resolve_scheme, select
from trainlet.train import Optimizer, derive
from trainlet.train.adjoint import ADJOINTS

MSE = "mean-squared-error"


def chain() -> Graph:
    """Four Gemms with a Clip after each of the first three."""
    net = Net((2, 4))
    y = net.x
    for i in range(3):
        y = net.add("Clip", [net.operand(f"layer{i}", x=y)], {"lo": 0.0})
    return net.build([net.operand("head", 3, y)])


def step(graph: Graph, scheme: str | Selection) -> tuple[Node, ...]:
    selection = select(resolve_scheme(scheme, graph), graph) if isinstance(scheme, str) else scheme
    return derive(graph, selection, loss=MSE).functions["step"].nodes


def count(nodes: tuple[Node, ...], op: str) -> int:
    return sum(n.op == op for n in nodes)


def test_head_alone_differentiates_no_activation() -> None:
    nodes = step(chain(), "head")
    assert count(nodes, "ConvInputGrad") == count(nodes, "MaskGrad") == 0
    assert count(nodes, "ConvWeightGrad") == count(nodes, "BiasGrad") == 1


def test_head_alone_saves_no_mask() -> None:
    assert all(len(n.outputs) == 1 for n in step(chain(), "head") if n.op == "Clip")


@pytest.mark.parametrize("trained", [1, 2, 3])
def test_frozen_prefix_is_never_differentiated(trained: int) -> None:
    nodes = step(chain(), f"last:{trained}")
    assert count(nodes, "ConvWeightGrad") == trained + 1
    assert count(nodes, "ConvInputGrad") == count(nodes, "MaskGrad") == trained
    frozen = {f"net.onnx:/layer{i}" for i in range(3 - trained)}
    assert not [n for n in nodes if n.op.endswith("Grad") and n.source in frozen]


def test_bias_alone_needs_no_weight_gradient_and_no_input() -> None:
    nodes = step(chain(), Selection("biases", {}, frozenset({"layer1/bias"})))
    assert count(nodes, "ConvWeightGrad") == 0 and count(nodes, "BiasGrad") == 1
    read = {v.name for n in nodes if n.op.endswith("Grad") for v in n.operands()}
    assert not read & {"layer0", "layer1", "layer2"}


def test_branch_without_trained_parameters_is_not_differentiated() -> None:
    net = Net((2, 4))
    frozen, trained = net.add("Tanh", [net.operand("frozen")]), net.operand("trained")
    graph = net.scored(net.add("Mul", [frozen, trained]))
    selection = Selection("s", {"trained/weight": None}, frozenset())
    assert count(step(graph, selection), "TanhGrad") == 0


def test_parameter_that_does_not_reach_the_loss_is_refused() -> None:
    net = Net((2, 4))
    net.operand("lost")
    graph = net.scored(net.operand("used"))
    with pytest.raises(SchemeError, match="lost/weight|no trained parameter"):
        step(graph, Selection("s", {"lost/weight": None}, frozenset()))
    with pytest.raises(SchemeError, match="lost/weight"):
        step(graph, Selection("s", {"lost/weight": None, "used/weight": None}, frozenset()))


def test_missing_adjoint_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((2, 4))
    y = net.add("Tanh", [net.operand("a")], source="net.onnx:/up/Tanh")
    monkeypatch.delitem(ADJOINTS, "Tanh")
    with pytest.raises(UnsupportedGradient, match="Tanh at net.onnx:/up/Tanh"):
        step(net.scored(y), Selection("s", {"a/weight": None}, frozenset()))


def test_every_forward_op_has_an_adjoint() -> None:
    replaced = {
        "OverlayChannels",
        "RoundMaster",
        "TakeChannels",
        "QLinearConv",
        "StreamRows",
        "BatchNormalization",
    }
    derived = {"Update", "NextStep", "Fill", *replaced}
    forward = {n for n in OPS if "Grad" not in n} - derived
    assert forward - set(ADJOINTS) == set()


def test_predict_gives_the_logits_of_the_untrained_network() -> None:
    graph = chain()
    module = derive(graph, select(resolve_scheme("last:2", graph), graph), loss=MSE)
    x = {"x": np.ones((2, 4))}
    assert np.array_equal(
        interpret(module.functions["predict"], x).outputs[0], interpret(graph, x).outputs[0]
    )


def test_step_returns_the_loss_and_logits_from_before_its_update() -> None:
    given = case(chain())
    run = interpret(given.derive().functions["step"], given.feeds)
    expected = interpret(given.graph, {"x": given.feeds["x"]}).outputs[0]
    np.testing.assert_array_equal(run.outputs[1], expected)
    assert run.outputs[0][0] == pytest.approx(((expected - given.feeds["label"]) ** 2).mean(), rel=1e-6)


def test_frozen_parameters_are_constants_and_only_trained_ones_are_state() -> None:
    function = derive(chain(), Selection("s", {"layer2/weight": (1, 3)}, frozenset({"head/bias"})), loss=MSE)
    graph = function.functions["step"]
    assert set(graph.state) == set(graph.updates) == {"layer2/weight.trained", "head/bias.trained"}
    assert graph.state["layer2/weight.trained"].value.shape == (4, 2)
    assert "layer2/weight" in graph.constants and "head/bias" not in graph.constants


def test_batch_gradient_is_the_mean_over_its_samples() -> None:
    given = case(chain())
    whole = interpret(given.derive().functions["step"], given.feeds, real=np.float64)
    from trainlet.passes.rebatch import rebatch

    single = derive(rebatch(given.graph, 1), given.selection, loss=MSE).functions["step"]
    runs = [
        interpret(
            single, {k: v[i : i + 1] if k != "lr" else v for k, v in given.feeds.items()}, real=np.float64
        )
        for i in range(2)
    ]
    for name in (f"d_layer{i}/weight" for i in range(3)):
        np.testing.assert_allclose(whole.values[name], (runs[0].values[name] + runs[1].values[name]) / 2)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adamw"])
def test_accumulated_samples_make_the_batch_step(rule: str) -> None:
    from trainlet.passes.rebatch import rebatch

    given = case(chain())
    optimizer = Optimizer(rule, weight_decay=0.01)
    whole = interpret(given.derive(optimizer).functions["step"], given.feeds, real=np.float64).state
    module = derive(rebatch(given.graph, 1), given.selection, optimizer, MSE, accumulate=True)
    state: dict[str, np.ndarray] = {}
    for i in range(2):
        feeds = {k: v[i : i + 1] for k, v in given.feeds.items() if k != "lr"}
        state |= interpret(module.functions["accumulate"], feeds, state, real=np.float64).state
    rate = {"lr": given.feeds["lr"], "factor": np.array([0.5])}
    state |= interpret(module.functions["apply"], rate, state, real=np.float64).state
    for name, expected in whole.items():
        np.testing.assert_allclose(state[name], expected, rtol=1e-9, atol=1e-12)
    assert all((v == 0).all() for k, v in state.items() if k.endswith("grad_sum"))
    assert len([k for k in state if k.endswith("grad_sum")]) == len(module.parameters)
