"""The Armv7E-M bodies: the tests of the kernels they replace, the same bits, on this machine and emulated.

Here plain C stands in for the instructions; the assembly runs in QEMU where it and the cross gcc are
installed.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.kernels import reference as ref
from tests.kernels import test_convolutions as convolutions
from tests.kernels import test_fixed as fixed
from tests.kernels import test_losses as losses
from tests.kernels.conftest import KERNELS, SANITIZERS, WARNINGS, Kernels
from tests.kernels.drawing import scratch
from tests.kernels.reference import Bias, ConvShape, Weights, f32, pointer

DRIVER = Path(__file__).with_name("armv7em_driver.c")
FIRMWARE = KERNELS.parent / "device" / "firmware"  # brings what the programs need of libc
NARROW = ["-DTL_LANES=4"]
CORTEX = ["-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"]

test_int8_convolution_is_exact = convolutions.test_int8_convolution_is_exact
test_int8_over_its_own_operand = convolutions.test_depthwise_int8_convolution_over_its_own_operand
test_float_convolution = convolutions.test_float_convolution
test_fused_float_convolution = convolutions.test_fused_float_convolution
test_input_gradient = convolutions.test_input_gradient
test_input_gradient_over_its_own_operand = convolutions.test_input_gradient_over_its_own_operand
test_input_gradient_of_some_channels = convolutions.test_input_gradient_of_some_channels
test_masked_gradients_of_some_channels = convolutions.test_masked_gradients_of_some_channels
test_weight_gradient = convolutions.test_weight_gradient_of_the_updated_channels
test_bias_gradient = convolutions.test_bias_gradient
test_masked_gradients_may_be_in_place = convolutions.test_masked_gradients_may_be_in_place
test_asymmetric_weights = fixed.test_convolution_with_asymmetric_weights_is_exact
test_input_gradient_reads_centered_weights = fixed.test_input_gradient_reads_centered_weights
test_matrix_product = losses.test_matrix_product


def gathered(folder: Path, isa: Path | None) -> Path:
    """All kernels in one folder, as a program gets them: those of `isa` in place of the portable ones."""
    together = folder / (isa.name if isa else "portable")
    if not together.exists():
        together.mkdir()
        for source in (KERNELS / "include", KERNELS / "portable", *([isa] if isa else [])):
            for path in source.glob("*.[ch]"):
                shutil.copyfile(path, together / path.name)
    return together


def command(compiler: list[str], flags: list[str], kernels: Path, output: Path, *extra: str) -> list[str]:
    sources = sorted(map(str, kernels.glob("*.c")))
    return [*compiler, *WARNINGS, *flags, f"-I{kernels}", *sources, *extra, "-o", str(output)]


def libraries(folder: Path, builds: dict[str, tuple[Path | None, list[str]]]) -> Kernels:
    import ctypes

    loaded = {}
    for name, (isa, flags) in builds.items():
        output = folder / f"lib{name}.so"
        shared = [*NARROW, *flags, "-shared", "-fPIC"]
        subprocess.run(command(["cc"], shared, gathered(folder, isa), output), check=True)
        loaded[name] = ctypes.CDLL(str(output))
    return Kernels(loaded)


ARMV7EM = KERNELS / "armv7em"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Kernels:
    builds = {"portable": (None, ["-O2"]), "O2": (ARMV7EM, ["-O2"]), "O0": (ARMV7EM, ["-O0"])}
    return libraries(tmp_path_factory.mktemp("armv7em"), builds)


@pytest.fixture(scope="module")
def fused_kernels(tmp_path_factory) -> Kernels:
    if " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a processor with fused multiply-add")
    flags = ["-O2", "-mfma", "-DTL_USE_FMA=1"]
    return libraries(tmp_path_factory.mktemp("fused"), {"portable": (None, flags), "O2": (ARMV7EM, flags)})


def weights_of(rng, shape, k):
    """int8 weights with k channels trained, as stored on a device, and what has to stay alive."""
    base = rng.integers(-128, 128, shape, dtype=np.int8)
    if not k:
        return Weights(ref.S8, pointer(base)), base
    trained = rng.integers(-128, 128, (*shape[:3], k), dtype=np.int8)
    channels = np.sort(rng.choice(shape[3], k, replace=False)).astype(np.uint16)
    alive = (base, trained, channels)
    return Weights(ref.S8, pointer(base), pointer(trained), ref.S8, pointer(channels), k), alive


@pytest.mark.parametrize(
    ("h", "c", "o", "kernel", "stride", "k"),
    [
        (17, 3, 16, 3, 2, 0),
        (9, 48, 20, 1, 1, 11),
        (4, 576, 33, 1, 1, 0),
        (6, 130, 9, 1, 1, 65),
        (5, 40, 12, 3, 1, 7),
    ],
)
def test_layers_of_a_network_agree(kernels, h, c, o, kernel, stride, k):
    rng = np.random.default_rng(c)
    out, pad = (h - 1) // stride + 1, kernel // 2
    s = ConvShape(1, h, h, c, out, out, o, kernel, kernel, stride, stride, pad, pad, 1, 1, 1)
    w, _alive = weights_of(rng, (o, kernel, kernel, c), k)
    x = rng.integers(-128, 128, (h, h, c), dtype=np.int8)
    check_forward_and_back(kernels, rng, "tl_conv", s, x, w, 4096)


@pytest.mark.parametrize(
    ("h", "c", "kernel", "stride"),
    [(11, 18, 7, 1), (9, 24, 5, 2), (8, 5, 3, 1), (13, 3, 7, 2), (10, 6, 9, 1)],
)
def test_depthwise_layers_of_a_network_agree(kernels, h, c, kernel, stride):
    rng = np.random.default_rng(c)
    out, pad = (h - 1) // stride + 1, kernel // 2
    s = ConvShape(1, h, h, c, out, out, c, kernel, kernel, stride, stride, pad, pad, 1, 1, c)
    w, _alive = weights_of(rng, (c, kernel, kernel, 1), 0)
    x = rng.integers(-128, 128, (h, h, c), dtype=np.int8)
    check_forward_and_back(kernels, rng, "tl_depthwise", s, x, w, 64 * kernel * kernel)


def check_forward_and_back(kernels, rng, name, s, x, w, scratch_bytes):
    shape = (s.oh, s.ow, s.o)
    bias, scale = rng.integers(-9000, 9000, s.o, dtype=np.int32), rng.uniform(1e-4, 9e-3, s.o).astype(f32)
    y, mask = np.zeros(shape, np.int8), np.zeros((s.oh * s.ow * s.o + 7) // 8, np.uint8)
    b, work = Bias(pointer(bias), None), scratch(scratch_bytes)
    kernels.call(f"{name}_s8", s, x, -7, w, b, scale, 5, y, mask, work, out=[y, mask])
    dy, dx = rng.normal(0, 1, shape).astype(f32), np.zeros(x.shape, f32)
    kernels.call(f"{name}_input_grad", s, dy, w, dx, 0, work, out=[dx])


def test_a_bias_that_is_not_a_number_saturates_the_same(kernels):
    bias = np.array([np.nan, np.inf, -np.inf, 1.0], f32)
    s = ConvShape(1, 1, 3, 4, 1, 3, 4, 1, 1, 1, 1, 0, 0, 1, 1, 1)
    w, x = np.ones((4, 4), np.int8), np.arange(12, dtype=np.int8)
    y, mask, scale = np.zeros(12, np.int8), np.zeros(2, np.uint8), np.ones(4, f32)
    b, weights = Bias(None, pointer(bias)), Weights(ref.S8, pointer(w))
    kernels.call("tl_conv_s8", s, x, 0, weights, b, scale, 3, y, mask, scratch(4096), out=[y, mask])


def test_the_bodies_are_clean_under_the_sanitizers(tmp_path):
    run(tmp_path, ARMV7EM, SANITIZERS)


def test_the_assembly_gives_the_same_bits_as_the_portable_c(tmp_path):
    if not shutil.which("arm-none-eabi-gcc") or not shutil.which("qemu-system-arm"):
        pytest.skip("needs arm-none-eabi-gcc and qemu-system-arm")
    for fma in ("-DTL_USE_FMA=1", "-DTL_USE_FMA=0"):
        host = run(tmp_path, None, ["-O2", "-fno-math-errno", fma])
        assert host.count("\n") > 50
        assert emulate(tmp_path, ["-O2", fma]) == host
        assert emulate(tmp_path, ["-O0", fma]) == host


def run(folder: Path, isa: Path | None, flags: list[str]) -> str:
    output = folder / "driver"
    kernels = gathered(folder, isa)
    subprocess.run(command(["cc"], [*NARROW, *flags], kernels, output, str(DRIVER), "-lm"), check=True)
    return subprocess.run([str(output)], check=True, capture_output=True, text=True).stdout


def emulate(folder: Path, flags: list[str]) -> str:
    """What the driver prints on an emulated Cortex-M7."""
    output, kernels = folder / "driver.elf", gathered(folder, ARMV7EM)
    link = ["-nostartfiles", "-Wl,--section-start=.vectors=0,-Ttext=0x400,-Tdata=0x20000000,-ereset"]
    flags = [*CORTEX, "-fno-math-errno", "-ffreestanding", *flags, f"-I{FIRMWARE}", *link, "-nostdlib"]
    sources = (str(DRIVER), str(FIRMWARE / "memory.c"), "-lgcc")
    subprocess.run(command(["arm-none-eabi-gcc"], flags, kernels, output, *sources), check=True)
    machine = ["qemu-system-arm", "-M", "mps2-an500", "-nographic", "-monitor", "none", "-serial", "none"]
    options = ["-semihosting-config", "enable=on,target=native", "-kernel", str(output)]
    return subprocess.run([*machine, *options], check=True, capture_output=True, text=True, timeout=60).stdout
