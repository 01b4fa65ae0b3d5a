"""The reference network, trained by its published 49 KB scheme on the board that the publication used."""

import numpy as np
import pytest

from tests.device.programs import available
from tests.shared_files import shared
from trainlet.api import Settings, load_dataset, plan
from trainlet.device import emulate
from trainlet.frontends import load


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("master", ["stochastic", "fp32"])
def test_mcunet_trains_within_256_kb_and_computes_the_bits_of_the_host(master, tmp_path):
    available("qemu", "stm32f746")
    graph = load(shared("reference/models/mcunet-5fps.json"))
    data = load_dataset(graph, shared("data/cifar10/cifar10.npz"), classes=10)
    program = plan(graph, Settings(scheme="mcunet-5fps:49kb", master=master, classes=10))
    report = emulate(program, "stm32f746", data, 3, engine="qemu")
    assert report.identical, report.difference
    assert np.isfinite(report.losses).all() and report.losses[0] == pytest.approx(np.log(10), abs=1.5)
    memory = report.memory
    assert memory.ram_bytes <= 256 << 10 and memory.flash_bytes <= 1 << 20
    assert program.ram_bytes <= memory.ram_bytes <= program.ram_bytes + 4096
    assert memory.stack_bytes <= 3072
