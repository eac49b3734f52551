"""magmax: the library against its reference, and which of several equal magnitudes wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import vectors
from reference.arrays import BF16, F16, F32, F64, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    MANY,
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
    check_contradiction,
    check_equal_models,
    check_method,
    check_scaling,
    check_task_vector,
    grid_models,
)


def _distinct(models: list[AnyArray], base: AnyArray) -> list[AnyArray]:
    """Models without two magnitudes of one element that differ, but by less than float32 can tell."""
    size = np.abs(np.stack([widen(model) - widen(base) for model in models]))
    ordered = np.sort(size, axis=0)
    near = (ordered[1:] > ordered[:-1]) & (ordered[1:] < ordered[:-1] * (1.0 + 2.0**-22))
    unclear = near.any(axis=0)
    return [np.where(unclear, base, model).astype(model.dtype) for model in models]


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    check_method("magmax", _distinct(models, base), base)
    check_method("magmax", _distinct(models, base), base, lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("magmax", models, base, dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    check_method("magmax", _distinct(models, base), base)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_last_of_equals_wins(dtype: np.dtype[Any], count: int) -> None:
    base, models = grid_models(np.random.default_rng(count), count, 1000, dtype, levels=1)
    merged, _ = check_method("magmax", models, base)
    expected = base.copy()
    for model in models:
        expected = np.where(model != base, model, expected)
    assert np.array_equal(merged, expected)


def test_two_of_one_magnitude() -> None:
    base = np.ones(3, np.float32)
    models = [base + np.array([0.5, -0.5, 0.25], np.float32), base + np.array([-0.5, 0.5, 0.125], np.float32)]
    assert merge("magmax", models, base)[0].tolist() == [0.5, 1.5, 1.25]
    assert merge("magmax", models[::-1], base)[0].tolist() == [1.5, 0.5, 1.25]


def test_every_element_is_one_of_the_models() -> None:
    for dtype in (F32, BF16, F16):
        base, models = random_models(np.random.default_rng(4), 4, 3000, dtype)
        merged, _ = merge("magmax", models, base)
        assert np.any(np.stack([merged == model for model in models]), axis=0).all()


def test_takes_no_weight() -> None:
    check_contradiction("magmax", "weight", weight=0.5)


def test_vectors() -> None:
    merged, _ = merge("magmax", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.MAGMAX, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    """F64 magnitudes are all different, and then the order of the models says nothing."""
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64)
    order = rng.permutation(count)
    assert same_bytes(merge("magmax", models, base)[0], merge("magmax", [models[i] for i in order], base)[0])


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("magmax", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("magmax", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("magmax", seed, count, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F64)
    check_task_vector("magmax", models, base, lambda_=0.25)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("magmax", models, base)
