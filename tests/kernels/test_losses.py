"""Matrix products, softmax, losses and their gradients."""

import numpy as np
import pytest

from tests.kernels.drawing import CONV_SCRATCH, close, scratch
from tests.kernels.reference import f32, sigmoid


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (5, 7, 9), (16, 300, 33), (3, 64, 16)])
def test_matrix_product(kernels, trans_a, trans_b, m, k, n):
    rng = np.random.default_rng(m)
    a = rng.normal(0, 1, (3, k, m) if trans_a else (3, m, k)).astype(f32)
    b = rng.normal(0, 1, (n, k) if trans_b else (k, n)).astype(f32)
    y = np.full((3, m, n), np.nan, f32)
    work = scratch(CONV_SCRATCH)
    kernels.call("tl_matmul_f32", 3, m, k, n, trans_a, trans_b, a, m * k, b, 0, y, m * n, work, out=[y])
    close(y, (a.swapaxes(1, 2) if trans_a else a).astype(float) @ (b.T if trans_b else b).astype(float))


# ---------------------------------------------------------------------------------------------------- losses


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("n,classes", [(1, 2), (4, 10), (3, 1)])
def test_softmax_and_its_cross_entropy(kernels, n, classes):
    rng = np.random.default_rng(n)
    z = rng.normal(0, 5, (n, classes)).astype(f32)
    label = rng.integers(0, classes, n).astype(np.int32)
    p, loss, dz, dy, dx = (
        softmax(z.astype(float)),
        np.zeros(1, f32),
        z.copy(),
        z[::-1].copy(),
        np.zeros_like(z),
    )
    y = np.zeros_like(z)
    kernels.call("tl_softmax_f32", z, n, classes, y, out=[y])
    close(y, p)
    kernels.call("tl_softmax_grad_f32", y, dy, n, classes, dx, out=[dx])
    np.testing.assert_allclose(dx, p * (dy - (dy * p).sum(1, keepdims=True)), atol=5e-6)
    kernels.call("tl_softmax_cross_entropy", z, label, n, classes, loss, out=[loss])
    np.testing.assert_allclose(loss[0], -np.log(p[np.arange(n), label]).mean(), rtol=1e-5, atol=1e-6)
    kernels.call("tl_softmax_cross_entropy_grad", dz, label, n, classes, dz, out=[dz])
    close(dz, (p - np.eye(classes)[label]) / n)


def test_sigmoid_cross_entropy_and_mean_square(kernels):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 5, (4, 6)).astype(f32)
    t = rng.random((4, 6)).astype(f32)
    loss, dz = np.zeros(1, f32), np.zeros_like(z)
    kernels.call("tl_sigmoid_cross_entropy", z, t, 4, 6, loss, out=[loss])
    close(loss, [(np.logaddexp(0, z.astype(float)) - z * t).sum() / 4])
    kernels.call("tl_sigmoid_cross_entropy_grad", z, t, 4, 6, dz, out=[dz])
    close(dz, (sigmoid(z.astype(float)) - t) / 4)
    kernels.call("tl_mse", z, t, 24, loss, out=[loss])
    close(loss, [((z.astype(float) - t) ** 2).mean()])
    kernels.call("tl_mse_grad", z, t, 24, dz, out=[dz])
    close(dz, 2 * (z.astype(float) - t) / 24)


# ----------------------------------------------------------------------------------------------------- shape
