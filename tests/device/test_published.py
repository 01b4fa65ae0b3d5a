"""What the published schemes cost on an emulated Cortex-M7: exact figures, held to 2%."""

import numpy as np
import pytest

from tests.device.programs import available
from tests.shared_files import shared
from trainlet import api
from trainlet.device import emulate

# scheme -> (RAM with stack, instructions of a step, of its forward part), measured with gcc 12.2 -O2
EXPECTED = {
    "mcunet-5fps:49kb": (132_536, 77_780_000, 52_040_000),
    "mcunet-5fps:99kb": (183_552, 89_420_000, 52_970_000),
    "mbv2-w0.35:99kb": (167_136, 77_600_000, 48_630_000),
    "proxyless-w0.3:98kb": (164_896, 76_760_000, 48_660_000),
}


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("scheme", EXPECTED)
def test_published_scheme_on_stm32f746(scheme, tmp_path):
    available("qemu", "stm32f746")
    model = shared(f"reference/models/{scheme.split(':')[0]}.json")
    settings = api.Settings(scheme=scheme, master="stochastic", classes=10)
    api.emit(model, settings, tmp_path, board="stm32f746")
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (2, 128, 128, 3)).astype(np.int8)
    report = emulate(tmp_path, "stm32f746", (x, np.array([1, 2], np.int32)), 2, lr=0.001, engine="qemu")
    assert report.difference is None
    ram, step, forward = EXPECTED[scheme]
    found = report.as_dict()["instructions"]
    assert report.memory.ram_bytes <= 1.02 * ram
    assert found["step"] <= 1.02 * step
    assert found["step_forward"] <= 1.02 * forward
