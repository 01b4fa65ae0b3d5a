from __future__ import annotations

import numpy as np
import pytest

from trainlet.data import InputTransform
from trainlet.errors import DataError
from trainlet.ir import Quant, Value
from trainlet.quantize.samples import quantize_array

PIXELS = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(3, -1)
REFERENCE = Value("x", "s8", (1, 256, 1, 3), Quant(0.00784313725490196, 0))
UNIT = Value("x", "s8", (1, 256, 1, 3), Quant(float(np.float32(1 / 255)), -128))
FLOAT = Value("x", "f32", (1, 256, 1, 3))


@pytest.mark.parametrize("value", [REFERENCE, UNIT])
def test_pixels_become_pixel_minus_128(value: Value) -> None:
    got = InputTransform.of(value)(PIXELS)
    assert got.dtype == np.int8
    assert (got == PIXELS.astype(int) - 128).all()


def test_float_input_gets_normalized_pixels() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = InputTransform.of(FLOAT, mean, std)(PIXELS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (PIXELS / 255 - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(InputTransform.of(FLOAT)(PIXELS), PIXELS / 255, rtol=1e-6)


def test_int8_input_gets_normalized_pixels_quantized() -> None:
    quant = Quant(float(np.float32(0.02)), 3)
    value = Value("x", "s8", (1, 256, 1, 3), quant)
    real = ((PIXELS / 255 - 0.5) / 0.25).astype(np.float32)
    assert (InputTransform.of(value, 0.5, 0.25)(PIXELS) == quantize_array(real, quant)).all()


def test_reference_network_with_a_mean_is_quantized_like_any_other() -> None:
    got = InputTransform.of(REFERENCE, 0.5, 0.5)(PIXELS)
    assert np.abs(got - (PIXELS.astype(int) - 127.5)).max() <= 0.501


def test_numbers_other_than_pixels_are_real_and_int8_is_quantized_already() -> None:
    real = np.linspace(-0.5, 0.4, 10)
    assert InputTransform.of(FLOAT)(real).dtype == np.float32
    assert (InputTransform.of(REFERENCE)(real) == quantize_array(real, Quant(2 / 255, 0))).all()
    assert (InputTransform.of(FLOAT)(np.array([-3, 300], np.int16)) == [-3.0, 300.0]).all()
    stored = np.array([-128, 5], np.int8)
    assert InputTransform.of(REFERENCE)(stored) is stored


@pytest.mark.parametrize(
    ("value", "mean", "std", "sentence"),
    [
        (FLOAT, (0.1, 0.2), None, "mean has 2 numbers, input x 3 channels"),
        (FLOAT, None, (1.0, 0.0, 1.0), "std 0 is not positive"),
        (FLOAT, np.nan, None, "mean nan is not finite"),
        (Value("x", "s32", (1, 4)), None, None, "input x is s32"),
        (Value("x", "s8", (1, 4)), None, None, "input x is s8"),
    ],
)
def test_what_does_not_fit_is_refused(value: Value, mean: object, std: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        InputTransform.of(value, mean, std)  # type: ignore[arg-type]
