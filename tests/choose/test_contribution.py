"""An analysis as a file: what goes in comes out, and another network's or task's is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.host.programs import network
from trainlet.choose.contribution import Contributions, Estimate, LayerInfo, data_id, model_id, read
from trainlet.data import Dataset, Samples
from trainlet.data.transform import InputTransform
from trainlet.errors import AnalysisError
from trainlet.ir import Tensor
from trainlet.passes.rebatch import rebatch


def estimate(gain: float, error: float = 0.01) -> Estimate:
    return Estimate(gain, gain - 1.6449 * error, gain + 1.6449 * error, 1, 4.0)


def contributions(graph, data, weights=None, biases=None) -> Contributions:
    gains = {(("conv1/weight"), s): estimate(g) for s, g in (weights or {0.5: 0.02, 1.0: 0.03}).items()}
    layers = tuple(
        LayerInfo(i, i, f"conv{i + 1}/weight", f"conv{i + 1}/bias", "block", "conv", 8, 64) for i in range(4)
    )
    return Contributions(
        graph.name, model_id(graph), data_id(data), {"batch": 8}, estimate(0.7),
        biases or {1: estimate(0.02), 2: estimate(0.05)}, gains, {"conv1/weight": 2}, layers,
        {"conv1/weight": np.array([0.5, 1.25e-9])}, {"conv1/bias": 3.0}, {"spearman": 0.5},
    )  # fmt: skip


def dataset(graph, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = Samples(rng.normal(0, 1, (20, *graph.inputs[0].shape[1:])).astype(np.float32), InputTransform("f32"))
    y = (np.arange(20) % 5).astype(np.int32)
    return Dataset(x, y, x, y, (), "")


def test_what_is_written_is_read_again(tmp_path):
    graph = network("residual", True)
    made = contributions(graph, dataset(graph))
    made.write(tmp_path / "a.json")
    found = read(tmp_path / "a.json", graph, dataset(graph))
    assert found.weights == made.weights and found.biases == made.biases and found.layers == made.layers
    assert found.head_accuracy == made.head_accuracy and found.settings == made.settings
    np.testing.assert_array_equal(found.fisher["conv1/weight"], made.fisher["conv1/weight"])
    assert found.to_json() == made.to_json()


def test_another_networks_analysis_is_refused(tmp_path):
    graph = network("residual", True)
    contributions(graph, dataset(graph)).write(tmp_path / "a.json")
    name = next(k for k, t in graph.constants.items() if t.value.dtype == "s8")
    old = graph.constants[name]
    changed = replace(graph, constants={**graph.constants, name: Tensor(old.value, old.data ^ 1)})
    with pytest.raises(AnalysisError, match="analysis of residual"):
        read(tmp_path / "a.json", changed)
    with pytest.raises(AnalysisError, match="wave"):
        read(tmp_path / "a.json", network("wave", True))


def test_another_tasks_analysis_is_refused(tmp_path):
    graph = network("residual", True)
    contributions(graph, dataset(graph)).write(tmp_path / "a.json")
    with pytest.raises(AnalysisError, match="other training data"):
        read(tmp_path / "a.json", graph, dataset(graph, 1))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "trainlet-analysis-0"}'])
def test_a_file_that_is_no_analysis_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AnalysisError, match="not an analysis"):
        read(tmp_path / "a.json")


def test_the_batch_a_graph_stands_for_does_not_change_its_identity():
    graph = network("residual", True)
    assert model_id(rebatch(graph, 4)) == model_id(graph)


def test_gain_passes_through_clean_measurements_and_grows_from_nothing():
    graph = network("residual", True)
    found = contributions(graph, dataset(graph), {0.25: 0.02, 0.5: 0.03, 1.0: 0.035})
    assert found.gain("conv1/weight", 0.5) == pytest.approx(0.03)
    assert found.gain("conv1/weight", 0.125) == pytest.approx(0.01)
    assert found.gain("conv1/weight", 2**-0.5) == pytest.approx(0.0325)
    assert found.gain("conv1/weight", 0) == 0 and found.gain("conv2/weight", 0.5) == 0


def test_a_dent_in_the_gains_is_smoothed_and_a_loss_stays_a_loss():
    graph = network("residual", True)
    dented = contributions(graph, dataset(graph), {0.25: 0.02, 0.5: 0.01, 1.0: 0.03})
    gains = [dented.gain("conv1/weight", s) for s in (0.25, 0.5, 1.0)]
    assert gains[0] < gains[1] < gains[2]
    worse = contributions(graph, dataset(graph), {0.25: -0.02, 0.5: -0.04, 1.0: -0.08})
    assert worse.gain("conv1/weight", 1.0) == pytest.approx(-0.08)


def test_bias_gain_rises_then_falls_and_is_nothing_for_no_bias():
    graph = network("residual", True)
    biases = {1: estimate(0.03), 2: estimate(0.02), 3: estimate(0.06), 4: estimate(0.01)}
    found = contributions(graph, dataset(graph), biases=biases)
    assert found.bias_gain(0) == 0
    assert found.bias_gain(1) == found.bias_gain(2) == pytest.approx(0.025)
    assert found.bias_gain(3) == pytest.approx(0.06) and found.bias_gain(4) == pytest.approx(0.01)
    with pytest.raises(AnalysisError, match="5 biases"):
        found.bias_gain(5)


def test_unknown_weight_and_share_are_errors():
    graph = network("residual", True)
    found = contributions(graph, dataset(graph))
    with pytest.raises(AnalysisError, match="no weight"):
        found.gain("conv9/weight", 0.5)
    with pytest.raises(AnalysisError, match="outside"):
        found.gain("conv1/weight", 1.5)
