"""What the kernels have to compute, in numpy (int64, float64), and their structs for ctypes."""

import ctypes
from ctypes import c_float, c_int, c_int32, c_uint32, c_void_p
from dataclasses import dataclass

import numpy as np

f32 = np.float32
S8, F32_MASTER, F32 = 0, 1, 2
STORE, ACCUMULATE, SGD, MOMENTUM, ADAMW = range(5)
FP32, RESIDUAL, STOCHASTIC, NEAREST = range(4)
T_F32, T_S8, T_S32 = range(3)


class ConvShape(ctypes.Structure):
    _fields_ = [(name, c_int32) for name in "n h w c oh ow o kh kw sh sw pt pl dh dw groups".split()]


class Weights(ctypes.Structure):
    _fields_ = [
        ("kind_base", c_int), ("base", c_void_p), ("trained", c_void_p), ("kind_trained", c_int),
        ("channels", c_void_p), ("k", c_int32), ("zero", c_int32),
    ]  # fmt: skip


class Bias(ctypes.Structure):
    _fields_ = [("s32", c_void_p), ("f32", c_void_p)]


class GradX(ctypes.Structure):
    _fields_ = [("s8", c_void_p), ("f32", c_void_p), ("zero", c_int32), ("k", c_int32)]


class ChannelSlice(ctypes.Structure):
    _fields_ = [(name, c_int32) for name in ("positions", "channels", "first", "count")]


class Update(ctypes.Structure):
    _fields_ = (
        [(name, c_int) for name in ("rule", "master", "stored")]
        + [(name, c_void_p) for name in ("w", "fraction", "m", "v")]
        + [("row_len", c_int32), ("row_scale", c_void_p)]
        + [(name, c_float) for name in "lr momentum beta1 beta2 eps weight_decay bias1 bias2".split()]
        + [(name, c_uint32) for name in ("seed", "step", "stream", "first")]
    )


def pointer(array):
    return None if array is None else array.ctypes.data


def saturate(v):
    return np.clip(v, -128, 127).astype(np.int8)


def bits(flags) -> np.ndarray:
    """The mask of a boolean array: bit (i & 7) of byte i >> 3."""
    return np.packbits(np.asarray(flags).reshape(-1), bitorder="little")


def unbits(mask, shape):
    return np.unpackbits(mask, bitorder="little")[: int(np.prod(shape))].reshape(shape).astype(bool)


@dataclass
class RandomWeights:
    """Weights with a trained overlay: the struct for C, the effective values for numpy."""

    struct: Weights
    values: np.ndarray  # [o][kh][kw][c/g] (depthwise [o][kh][kw][1]), as read
    keep: tuple


def random_values(rng, kind, shape):
    if kind == S8:
        stored = rng.integers(-128, 128, shape, dtype=np.int8)
        return stored, stored.astype(np.float64)
    if kind == F32_MASTER:
        stored = rng.normal(0, 110, shape).astype(f32)
        return stored, np.clip(np.rint(stored), -32768, 32767).astype(np.float64)
    stored = rng.normal(0, 1, shape).astype(f32)
    return stored, stored.astype(np.float64)


def random_weights(rng, shape, kinds=(S8, F32_MASTER)) -> RandomWeights:
    s, depthwise = shape, shape.groups == shape.c == shape.o and shape.c > 1
    cg = s.c // s.groups
    kind_base, kind_trained = rng.choice(kinds), rng.choice(kinds)
    base, values = random_values(rng, kind_base, (s.o, s.kh, s.kw, cg))
    trained = channels = None
    k = 0
    if rng.random() < 0.6:
        extent = s.o if depthwise else cg
        k = int(rng.integers(1, extent + 1))
        channels = np.sort(rng.permutation(extent)[:k]).astype(np.uint16)
        overlay = (k, s.kh, s.kw, 1) if depthwise else (s.o, s.kh, s.kw, k)
        trained, trained_values = random_values(rng, kind_trained, overlay)
        if depthwise:
            values[channels] = trained_values
        else:
            values[..., channels] = trained_values
    struct = Weights(kind_base, pointer(base), pointer(trained), kind_trained, pointer(channels), k)
    return RandomWeights(struct, values, (base, trained, channels))


def taps(s, x):
    """For each tap: ky, kx, row and column of x under each output position, whether inside, x there or 0."""
    oy, ox = np.arange(s.oh), np.arange(s.ow)
    for ky in range(s.kh):
        for kx in range(s.kw):
            iy, ix = oy * s.sh + ky * s.dh - s.pt, ox * s.sw + kx * s.dw - s.pl
            valid = ((iy >= 0) & (iy < s.h))[:, None] & ((ix >= 0) & (ix < s.w))[None, :]
            rows, cols = np.clip(iy, 0, s.h - 1)[:, None], np.clip(ix, 0, s.w - 1)[None, :]
            yield ky, kx, rows, cols, valid, x[:, rows, cols] * valid[None, :, :, None]


def conv(s, x, w):
    """x [n,h,w,c] centred, w [o,kh,kw,c/g] -> [n,oh,ow,o] in the dtype of x."""
    g = s.groups
    wg = w.reshape(g, s.o // g, s.kh, s.kw, s.c // g).astype(x.dtype)
    y = np.zeros((s.n, s.oh, s.ow, g, s.o // g), x.dtype)
    for ky, kx, _, _, _, under in taps(s, x):
        y += np.einsum("nyxgc,goc->nyxgo", under.reshape(s.n, s.oh, s.ow, g, -1), wg[:, :, ky, kx])
    return y.reshape(s.n, s.oh, s.ow, s.o)


def conv_input_grad(s, dy, w):
    g = s.groups
    wg = w.reshape(g, s.o // g, s.kh, s.kw, s.c // g)
    dx = np.zeros((s.n, s.h, s.w, s.c))
    for ky, kx, rows, cols, valid, _ in taps(s, dx):
        part = np.einsum(
            "nyxgo,goc->nyxgc", dy.reshape(s.n, s.oh, s.ow, g, -1).astype(float), wg[:, :, ky, kx]
        )
        np.add.at(dx, (slice(None), rows, cols), part.reshape(s.n, s.oh, s.ow, s.c) * valid[None, :, :, None])
    return dx


def conv_weight_grad(s, x, dy):
    """x [n,h,w,k] centred -> [o,kh,kw,k/g]."""
    g, k = s.groups, x.shape[3]
    dw = np.zeros((g, s.o // g, s.kh, s.kw, k // g))
    for ky, kx, _, _, _, under in taps(s, x.astype(float)):
        dw[:, :, ky, kx] = np.einsum(
            "nyxgo,nyxgc->goc", dy.reshape(s.n, s.oh, s.ow, g, -1).astype(float),
            under.reshape(s.n, s.oh, s.ow, g, k // g),
        )  # fmt: skip
    return dw.reshape(s.o, s.kh, s.kw, k // g)


def requantize(acc, bias, scale, y_zero):
    """The value before the clamp, in fp32."""
    t = (acc.astype(f32) + bias.astype(f32)) * scale.astype(f32)
    return np.rint(t).astype(f32) + f32(y_zero)


def mix(x):
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def uniform(seed, step, stream, index):
    with np.errstate(over="ignore"):
        seed, step, stream = (np.array([v], np.uint32) for v in (seed, step, stream))
        key = mix(mix(mix(seed + np.uint32(0x9E3779B9)) + step) + stream)
        i = np.asarray(index, np.uint32)
        r = mix(mix(key + i * np.uint32(0x9E3779B9)) + (key ^ np.uint32(0x6A09E667)))
    return (r >> np.uint32(8)).astype(f32) * f32(2.0**-24)


def stored_step(stored, master, w, fraction, step, u):
    """New (w, fraction) after the step, fp32 where the kernel is fp32."""
    step = step.astype(f32)
    if stored == T_F32:
        return w - step, fraction
    if master == RESIDUAL:
        fine = w.astype(np.int64) * 256 + fraction
        d = np.floor((step * f32(256)).astype(f32) + u)
        lo, hi = (-32768, 32639) if stored == T_S8 else (-(2**39), 2**39 - 129)
        fine = np.clip(fine - np.clip(d, -1e15, 1e15).astype(np.int64), lo, hi)
        new = (fine + 128) >> 8
        return new.astype(w.dtype), (fine - new * 256).astype(np.int8)
    if stored == T_S8:
        v = w.astype(f32) - step
        return saturate(np.rint(v) if master == NEAREST else w.astype(f32) + np.floor(u - step)), fraction
    d = np.rint(step) if master == NEAREST else np.floor(step + u)
    new = w.astype(np.int64) - np.clip(d, -1e15, 1e15).astype(np.int64)
    return np.clip(new, -(2**31), 2**31 - 1).astype(np.int32), fraction


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
