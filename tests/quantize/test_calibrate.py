from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.quantize.networks import Net, draw, plain
from trainlet.errors import DataError, ModelError
from trainlet.quantize.calibrate import Histogram, Range, calibrate

reals = st.floats(-1e4, 1e4, width=32)


@given(reals, reals)
def test_zero_is_represented_exactly_and_the_range_is_covered(a: float, b: float) -> None:
    lo, hi = min(a, b), max(a, b)
    quant = Range(lo, hi).quant()
    assert isinstance(quant.scale, float)
    assert -128 <= quant.zero_point <= 127
    step = quant.scale
    assert (-128 - quant.zero_point) * step <= min(lo, 0) + step
    assert (127 - quant.zero_point) * step >= max(hi, 0) - step


def test_positive_range_puts_zero_at_the_lowest_integer() -> None:
    assert Range(0.0, 5.1).quant().zero_point == -128
    assert Range(0.5, 5.1).quant().zero_point == -128
    assert Range(-5.1, 0.0).quant().zero_point == 127


def test_unit_interval_quantizes_pixels_to_pixel_minus_128() -> None:
    quant = Range(0.0, 1.0).quant()
    assert quant.zero_point == -128
    assert quant.scale == float(np.float32(1 / 255))


def test_range_of_nothing_but_zero_has_a_scale() -> None:
    assert Range(0.0, 0.0).quant().scale == 1
    assert Range(0.0, 1e-40).constant


def test_scales_are_exact_in_float32() -> None:
    scale = Range(-0.3, 1.7).quant().scale
    assert float(np.float32(scale)) == scale


def test_calibration_records_the_extremes_over_all_samples() -> None:
    graph, samples = plain(), draw(plain(), 7)
    ranges = calibrate(graph, samples, "minmax", 99.99)
    assert ranges["x"] == Range(float(samples.min()), float(samples.max()))
    assert ranges["stem/relu"].lo == 0
    assert ranges["dw/relu"].hi <= 6
    assert set(ranges) == {"x", *(v.name for n in graph.nodes for v in n.outputs)}


def test_percentile_ignores_an_outlier_and_stays_within_the_extremes() -> None:
    graph, samples = plain(), draw(plain(), 30)
    samples[3, 0, 0, 0] = 1000
    whole = calibrate(graph, samples, "minmax", 99.9)
    most = calibrate(graph, samples, "percentile", 99.9)
    assert whole["x"].hi == 1000
    assert most["x"].hi < 8
    for name, found in most.items():
        assert whole[name].lo <= found.lo <= found.hi <= whole[name].hi


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000))
def test_histogram_percentiles_agree_with_sorting(seed: int, spread: float) -> None:
    values = np.random.default_rng(seed).normal(0, spread, 20000).astype(np.float32)
    histogram = Histogram()
    for part in np.array_split(values, 5):
        histogram.add(part)
    found, bin_width = histogram.range(99.0), 2 * histogram.limit / len(histogram.counts)
    assert abs(found.hi - np.percentile(values, 99.0)) < 2 * bin_width + 0.02 * spread
    assert abs(found.lo - np.percentile(values, 1.0)) < 2 * bin_width + 0.02 * spread


def test_batches_larger_than_the_samples_left_are_filled_up() -> None:
    graph = Net((4, 6, 6, 3)).classify(Net((4, 6, 6, 3)).x)
    samples = draw(graph, 6)
    ranges = calibrate(graph, samples, "minmax", 99.99)
    assert ranges["x"] == Range(float(samples.min()), float(samples.max()))


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros((8, 3, 12, 12), np.float32), r"shape \(8, 3, 12, 12\), input x of net takes"),
        (np.float32(1), "shape"),
        (np.zeros((3, 12, 12, 3), np.float32), "3 calibration samples are too few"),
        (np.zeros((8, 12, 12, 3), complex), "complex128"),
        (np.array(["a"] * 8), "give real numbers"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        calibrate(plain(), samples, "minmax", 99.99)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named(bad: float) -> None:
    samples = draw(plain(), 8)
    samples[5, 1, 2, 0] = bad
    with pytest.raises(DataError, match="calibration sample 5 holds NaN or infinity"):
        calibrate(plain(), samples, "minmax", 99.99)


def test_a_layer_that_overflows_is_named() -> None:
    net = Net((1, 4, 4, 2))
    y = net.add("Mul", [net.x, net.x], name="square", source="net.onnx:/square")
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ModelError, match=r"layer net.onnx:/square gives NaN or infinity"),
    ):
        calibrate(net.classify(y), np.full((4, 4, 4, 2), 1e30, np.float32), "minmax", 99.99)


def test_unknown_methods_and_percentiles_are_refused() -> None:
    with pytest.raises(DataError, match="'entropy' is not one of minmax, percentile"):
        calibrate(plain(), draw(plain(), 4), "entropy", 99.99)
    with pytest.raises(DataError, match="percentile 30"):
        calibrate(plain(), draw(plain(), 4), "percentile", 30)
