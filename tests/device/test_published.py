"""What the published schemes cost on an emulated Cortex-M7: exact figures, held to 2%."""

import numpy as np
import pytest

from tests.device.programs import available
from tests.shared_files import shared
from trainlet import api
from trainlet.device import emulate

# scheme, where the image is -> (RAM with stack, instructions of a step, of its forward part), with gcc 12.2 -O3
EXPECTED = {
    ("mcunet-5fps:49kb", "arena"): (118_568, 76_840_000, 52_320_000),
    ("mcunet-5fps:99kb", "arena"): (159_800, 88_140_000, 53_300_000),
    ("mbv2-w0.35:99kb", "arena"): (154_280, 76_430_000, 48_860_000),
    ("proxyless-w0.3:98kb", "arena"): (164_340, 75_760_000, 48_720_000),
    ("mcunet-5fps:49kb", "rows"): (80_672, 79_710_000, 53_370_000),
    ("mcunet-5fps:99kb", "rows"): (132_184, 90_830_000, 53_820_000),
    ("mbv2-w0.35:99kb", "rows"): (123_712, 78_290_000, 49_300_000),
    ("proxyless-w0.3:98kb", "rows"): (125_224, 76_760_000, 49_300_000),
}
# The goals: bytes by where the image is, of the 49 KB scheme and of the others.
LIMITS = {"arena": (140 * 1024, 180 * 1024), "rows": (105 * 1024, 140 * 1024)}


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "where"), EXPECTED)
def test_published_scheme_on_stm32f746(scheme, where, tmp_path):
    available("qemu", "stm32f746")
    model = shared(f"reference/models/{scheme.split(':')[0]}.json")
    settings = api.Settings(scheme=scheme, master="stochastic", classes=10, input=where)
    api.emit(model, settings, tmp_path, board="stm32f746")
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (2, 128, 128, 3)).astype(np.int8)
    report = emulate(tmp_path, "stm32f746", (x, np.array([1, 2], np.int32)), 2, lr=0.001, engine="qemu")
    assert report.difference is None
    ram, step, forward = EXPECTED[scheme, where]
    found = report.as_dict()["instructions"]
    assert report.memory.ram_bytes <= 1.02 * ram <= LIMITS[where][scheme != "mcunet-5fps:49kb"]
    assert found["step"] <= 1.02 * step
    assert found["step_forward"] <= 1.02 * forward
