"""ties_soup: the library against its reference, and votes by count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import vectors
from reference.arrays import BF16, F16, F32, F64, random_models, same_bytes
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
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    check_method("ties_soup", models, base)
    check_method("ties_soup", models, base, weight=dyadic_weights(count, size), lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("ties_soup", models, base, dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    check_method("ties_soup", models, base)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
def test_even_votes_give_the_base(count: int, dtype: np.dtype[Any]) -> None:
    """Zeros do not vote; where as many are positive as negative, nothing is merged."""
    base, models = grid_models(np.random.default_rng(count), count, 2000, dtype, levels=2)
    merged, _ = check_method("ties_soup", models, base)
    signs = np.sum([np.sign(model.astype(float) - base.astype(float)) for model in models], axis=0)
    assert (signs == 0).sum() > 100
    assert np.array_equal(merged[signs == 0], base[signs == 0])


def test_two_opposed_models() -> None:
    """By count neither wins, whichever is larger; by mass the larger would."""
    base = np.array([1.0, 1.0, 1.0], np.float32)
    models = [base + np.array([0.5, 0.5, 0.0], np.float32), base - np.array([0.125, 1.0, 0.25], np.float32)]
    assert merge("ties_soup", models, base)[0].tolist() == [1.0, 1.0, 0.75]
    assert merge("ties", models, base)[0].tolist() == [1.5, 0.0, 0.75]


def test_weights_scale_and_turn() -> None:
    """The divisor is the sum of the weights of those that agree; a negative weight votes against its task vector."""
    base = np.zeros(2, np.float32)
    models = [np.array([1.0, 1.0], np.float32), np.array([2.0, -2.0], np.float32)]
    merged, _ = merge("ties_soup", models, base, weight=[1.0, 3.0])
    assert merged.tolist() == [1.75, 0.0]
    merged, _ = merge("ties_soup", models, base, weight=[1.0, -0.5])
    assert merged.tolist() == [0.0, 4.0]


def test_is_ties_with_other_settings() -> None:
    base, models = random_models(np.random.default_rng(3), 5, 1000, F32)
    soup, _ = merge("ties_soup", models, base)
    assert same_bytes(soup, merge("ties", models, base, elect="count", zero_sign="drop")[0])


def test_vectors() -> None:
    merged, _ = merge("ties_soup", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.TIES_SOUP, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    weight = dyadic_weights(count, seed)
    check_permutation("ties_soup", seed, count, size, dtype, per_model=("weight",), weight=weight)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("ties_soup", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("ties_soup", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("ties_soup", seed, count, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("ties_soup", models, base, weight=[0.5, 1.0, 2.0], lambda_=0.25)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("ties_soup", models, base)
