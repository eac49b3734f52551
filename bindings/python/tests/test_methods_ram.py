"""ram: the library against its reference, and what becomes of changes that one or several models made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference.arrays import BF16, F32, F64, random_models
from reference.checks import (
    LARGE,
    SETTINGS,
    UNITS,
    check_no_change,
    check_threads,
    counts,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    changed,
    check_equal_models,
    check_method,
    check_permutation,
    check_task_vector,
    grid_models,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    """On a grid, so that no change is within rounding of the limit."""
    base, models = grid_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    for epsilon in (1e-5, 1.5 / 64):
        check_method("ram", models, base, epsilon=epsilon)
    base, models = random_models(np.random.default_rng(size), count, size, dtype)
    check_method("ram", models, base, epsilon=0.0, lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("ram", models, base, epsilon=0.0, dtype=dtype)


def test_own_and_shared_changes() -> None:
    """Alone: in full. Together: the mean of those that changed it. A change of exactly epsilon is none."""
    base = np.zeros(5)
    models = [
        np.array([1.0, 2.0, 0.25, 0.0, 4.0]),
        np.array([0.0, 4.0, 0.25, 0.0, -4.0]),
        np.array([0.0, 0, 3.0, 0, 1.0]),
    ]
    merged, report = merge("ram", models, base, epsilon=0.25)
    assert merged.tolist() == [1.0, 3.0, 3.0, 0.0, 1.0 / 3.0]
    assert report["unique"] == [0.2, 0.0, 0.2]
    assert report["shared"] == [0.4, 0.4, 0.2]


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_permutation("ram", seed, count, size, dtype, epsilon=0.0)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_with_its_limit(seed: int, count: int, size: int, exponent: int) -> None:
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("ram", models, base, epsilon=0.0625)
    scaled, _ = merge("ram", [model * scale for model in models], base * scale, epsilon=0.0625 * 2.0**exponent)
    assert np.array_equal(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("ram", seed, count, size, dtype)
    check_equal_models("ram", seed, count, size, dtype, epsilon=0.0)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("ram", models, base, epsilon=0.0)
    assert np.array_equal(changed("ram", base, models[0], epsilon=0.0), models[0].astype(F64) - base.astype(F64))


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("ram", models, base, epsilon=0.1)


def test_many_large() -> None:
    base, models = grid_models(np.random.default_rng(1), 40, LARGE, F32)
    check_method("ram", models, base)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("ram", models, base, epsilon=-1.0)
