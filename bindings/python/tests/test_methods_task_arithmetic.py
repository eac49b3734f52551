"""task_arithmetic: the library against its reference, and what a sum of task vectors has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import task_arithmetic
from reference.arrays import BF16, F32, F64, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    MANY,
    SETTINGS,
    UNITS,
    check_no_change,
    check_reference,
    check_threads,
    counts,
    dtypes,
    inputs,
    merge,
    mixed_models,
    mixtures,
    seeds,
    shapes_and_types,
    sizes,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types())
@pytest.mark.parametrize("normalize", [True, False])
def test_reference(count: int, size: int, dtype: np.dtype[Any], normalize: bool) -> None:
    rng = np.random.default_rng(count * 1000 + size)
    base, models = random_models(rng, count, size, dtype)
    weight = (rng.uniform(0.2, 1.0, count) / count).tolist()
    given = {"weight": weight, "normalize": normalize}
    merged, report = merge("task_arithmetic", models, base, lambda_=0.7, **given)
    expected = task_arithmetic.merge(models, base, lambda_=0.7, **given)
    check_reference(merged, expected, models, base)
    assert merged.dtype == dtype
    total = np.sum(weight) if normalize else 1.0
    assert report["coefficients"] == pytest.approx(0.7 * np.array(weight) / total, rel=1e-14)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    merged, _ = merge("task_arithmetic", models, base, weight=0.3, dtype=dtype)
    assert merged.dtype == (dtype or base.dtype)
    check_reference(merged, task_arithmetic.merge(models, base, weight=0.3), models, base)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    merged, _ = merge("task_arithmetic", models, base, weight=0.01)
    check_reference(merged, task_arithmetic.merge(models, base, weight=0.01), models, base)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    """Order changes nothing but roundings of the arithmetic: both orders are one rounding from the same value."""
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, dtype)
    weight = rng.uniform(-1.0, 1.0, count)
    order = rng.permutation(count)
    expected = task_arithmetic.merge(models, base, weight=weight.tolist())
    for chosen in (np.arange(count), order):
        merged, _ = merge("task_arithmetic", [models[i] for i in chosen], base, weight=weight[chosen].tolist())
        check_reference(merged, expected, models, base, weight=1.0 + float(np.abs(weight).sum()))


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("task_arithmetic", models, base, weight=0.4)
    scaled, _ = merge("task_arithmetic", [model * scale for model in models], base * scale, weight=0.4)
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("task_arithmetic", seed, count, size, dtype, weight=0.3)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_of_weight_one_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge("task_arithmetic", models, base)
    assert same_bytes(merged, models[0])


@SETTINGS
@given(seeds, sizes)
def test_opposite_task_vectors_cancel(seed: int, size: int) -> None:
    """On a grid of binary fractions base + d and base - d are exact, and so is what cancels."""
    rng = np.random.default_rng(seed)
    base = rng.integers(-512, 512, size).astype(np.float32) / 64
    delta = rng.integers(-64, 64, size).astype(np.float32) / 64
    merged, _ = merge("task_arithmetic", [base + delta, base - delta], base)
    assert np.array_equal(merged, base)


@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_task_vector(dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, dtype)
    vector, _ = merge("task_arithmetic", models, base, weight=0.5, output="task_vector", dtype=F64)
    expected = task_arithmetic.merge(models, base, weight=0.5) - widen(base)
    np.testing.assert_allclose(vector, expected, rtol=0.0, atol=1e-14)


def test_weights_that_cancel_are_not_normalised() -> None:
    base, models = random_models(np.random.default_rng(4), 2, 30)
    merged, _ = merge("task_arithmetic", models, base, weight=[1.0, -1.0], normalize=True)
    expected = task_arithmetic.merge(models, base, weight=[1.0, -1.0], normalize=True)
    check_reference(merged, expected, models, base, weight=2.0)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("task_arithmetic", models, base, weight=[0.2, 0.3, 0.5])


def test_the_result_lies_between_inputs_where_weights_are_convex() -> None:
    base, models = random_models(np.random.default_rng(3), 4, 1000, BF16)
    merged, _ = merge("task_arithmetic", models, base, weight=0.25)
    values = np.stack([widen(array) for array in inputs(models, base)])
    assert np.all(widen(merged) >= values.min(axis=0))
    assert np.all(widen(merged) <= values.max(axis=0))


def test_parameters_that_mergekit_takes_and_ignores() -> None:
    base, models = random_models(np.random.default_rng(12), 3, 100, F32)
    plain, _ = merge("task_arithmetic", models, base, weight=0.5)
    for ignored in ({"density": [0.5, 0.2, 1.0]}, {"rescale": True}, {"int8_mask": True}):
        assert same_bytes(merge("task_arithmetic", models, base, weight=0.5, **ignored)[0], plain)
