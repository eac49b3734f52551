"""Spectral methods share the work on one matrix among threads; the bits do not depend on how many there are."""

from __future__ import annotations

import numpy as np
import pytest

import stockpot as sp

SHAPES = [(420, 430), (430, 1200), (1200, 410)]
METHODS = ["iso_c", "tsvm", "iso_cts", "scale_svd"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_threads_do_not_change_bits(method: str, shape: tuple[int, int]) -> None:
    """Matrices large enough to be cut into parts; three models, so that two are decomposed at once, and then one."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal(shape, np.float32)
    models = [base + np.float32(0.01) * rng.standard_normal(shape, np.float32) for _ in range(3)]
    options = {"num_iters": 2} if method == "scale_svd" else {}
    results = [
        np.asarray(sp.merge_tensors(method, models, base, threads=threads, **options)) for threads in (1, 2, 2, 5)
    ]
    for other in results[1:]:
        assert other.tobytes() == results[0].tobytes()
    assert not np.array_equal(results[0], base)
