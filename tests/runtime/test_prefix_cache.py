"""Later epochs start behind the frozen prefix: with the same bits, or with an error that is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trainlet
from tests.host.programs import NETWORKS, samples
from trainlet.errors import DataError
from trainlet.runtime.prefix_cache import CacheOptions, PrefixCache, prefix_cache

GRAPH = NETWORKS["residual"]()
X, Y = samples(GRAPH, 32), (np.arange(32) * 7 % 5).astype(np.int64)


def fit(cache: object, batch: int = 4, backend: str = "cpu") -> tuple[list[float], bytes, str]:
    program = trainlet.compile(GRAPH, scheme="last:3", batch=batch, backend=backend)
    result = program.fit((X, Y), epochs=3, lr=0.05, cache=cache)  # type: ignore[arg-type]
    return result.loss, program.host.region("state").tobytes(), result.cache


@pytest.mark.parametrize("batch,backend", [(1, "c99"), (4, "c99"), (4, "cpu")])
def test_full_precision_keeps_every_bit(batch: int, backend: str, tmp_path: Path) -> None:
    plain = fit(None, batch, backend)
    for cache in ("auto", tmp_path / "kept.bin", CacheOptions(tmp_path / "other.bin")):
        cached = fit(cache, batch, backend)
        assert cached[:2] == plain[:2]
        assert "skipped for 64 of 96 samples" in cached[2] and "exact" in cached[2]
    assert (tmp_path / "kept.bin").stat().st_size == 32 * 2000


@pytest.mark.parametrize("precision,share,error", [("fp16", 2, 2**-11), ("int8", 4, 0.5 / 127)])
def test_fewer_bits_cost_an_error_that_is_stated(precision: str, share: int, error: float) -> None:
    host = trainlet.compile(GRAPH, scheme="last:3", batch=4).host
    exact = PrefixCache.bytes_needed(host, "step", 32)
    cache, _ = prefix_cache(host, "step", 32, CacheOptions(precision=precision))
    assert exact is not None and cache is not None
    assert exact / share <= cache.bytes <= exact / share + 32 * 8
    rows = np.arange(4)
    true = host.prefix("step", X[:4]).view(np.float32).copy()
    kept = cache.get(rows, lambda i: X[i]).view(np.float32)
    assert 0 < cache.worst_error <= 1.001 * error
    assert np.abs(true - kept).max() <= cache.worst_error * np.abs(true).max() * 1.001
    loss, _, text = fit(CacheOptions(precision=precision))
    assert f"({precision}, largest relative error" in text
    np.testing.assert_allclose(loss, fit(None)[0], rtol=0.02)


def test_a_cache_above_its_limit_is_not_begun() -> None:
    loss, _, text = fit(CacheOptions(limit_bytes=63_999))
    assert text == "no cache: it would take 64,000 bytes, the limit is 63,999"
    assert loss == fit(None)[0]


def test_a_scheme_without_a_frozen_prefix_has_no_cache() -> None:
    program = trainlet.compile(GRAPH, scheme="full", batch=4)
    assert "freezes nothing" in program.fit((X, Y), epochs=1).cache


def test_a_split_batch_is_remembered_part_by_part() -> None:
    def run(cache: str | None) -> list[float]:
        program = trainlet.compile(GRAPH, scheme="last:3", batch=8, budget=24_000, backend="c99")
        assert program.calls > 1
        return program.fit((X, Y), epochs=3, lr=0.05, cache=cache).loss

    assert run("auto") == run(None)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="precision 'fp8' is none of fp32, fp16, int8"):
        CacheOptions(precision="fp8")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep activations in"):
        fit(tmp_path / "file" / "below")
