"""breadcrumbs_ties: the library against its reference, and what becomes of outliers and small changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference.arrays import BF16, F16, F32, F64, random_models, same_bytes, widen
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
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    ADVERSARIAL,
    adversarial,
    changed,
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)

METHOD = "breadcrumbs_ties"


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size, positive=True)
    check_method(METHOD, models, base, density=0.6, gamma=0.1, weight=weight)
    check_method(METHOD, models, base, density=0.9, gamma=0.3, normalize=True)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_equal_magnitudes(levels: int, count: int, dtype: np.dtype[Any]) -> None:
    """Both cuts go through runs of equal magnitudes, across chunks and cells: the lowest indices rank first."""
    for size in (50, 3000, LARGE):
        base, models = grid_models(np.random.default_rng(size + levels), count, size, dtype, levels)
        check_method(METHOD, models, base, density=0.5, gamma=0.2, weight=0.5)
        check_method(METHOD, models, base, density=0.05, gamma=0.6, weight=0.5)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_magnitudes_that_are_hard_to_rank(kind: str, dtype: np.dtype[Any]) -> None:
    model = adversarial(kind, 2000, dtype)
    for density, gamma in ((0.5, 0.25), (0.01, 0.01), (0.999, 0.5)):
        check_method(METHOD, [model], np.zeros_like(model), density=density, gamma=gamma)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method(METHOD, models, base, density=[0.3, 0.5, 0.9], gamma=[0.0, 0.1, 0.2], dtype=dtype)


@pytest.mark.parametrize("rescale", ["l1", "inverse"])
def test_rescale(rescale: str) -> None:
    base, models = random_models(np.random.default_rng(4), 3, 600, F32)
    slack = 20.0 * reduction([*models, base], F32)
    given = {"density": 0.5, "gamma": 0.1, "rescale": rescale}
    _, report = check_method(METHOD, models, base, coefficients=slack, **given)
    assert all(factor > 1.0 for factor in report["rescale"])


def test_what_goes() -> None:
    """Of ten: the two largest and the five smallest; the density holds where both do not fit."""
    base = np.zeros(10)
    model = np.array([3.0, -1.0, 10.0, 2.0, -9.0, 4.0, 0.5, 8.0, -7.0, 6.0])
    for density, gamma, kept in ((0.3, 0.2, [7, 8, 9]), (0.9, 0.2, [0, 1, 3, 4, 5, 6, 7, 8, 9]), (0.3, 0.0, [2, 4, 7])):
        vector = changed(METHOD, base, model, density=density, gamma=gamma)
        assert np.flatnonzero(vector).tolist() == kept
        assert np.array_equal(vector[kept], model[kept])
    _, report = merge(METHOD, [model], base, density=0.3, gamma=0.2)
    assert report["thresholds"] == [6.0]
    assert report["outlier_thresholds"] == [9.0]
    assert report["kept"] == [0.3]
    assert same_bytes(merge(METHOD, [model], base, gamma=0.5)[0], model)


def test_small_tensors_keep_their_changes() -> None:
    """Fewer than 1 / gamma elements: no outlier goes. Less than one element to keep: one stays; in mergekit none."""
    base = np.zeros(5)
    model = np.array([1.0, -4.0, 3.0, 2.0, 5.0])
    assert np.flatnonzero(changed(METHOD, base, model, density=0.7)).tolist() == [1, 2, 4]
    assert np.flatnonzero(changed(METHOD, base, model, density=0.1)).tolist() == [4]
    assert not changed(METHOD, base, model, density=0.1, compat="mergekit").any()
    assert not changed(METHOD, base, model, density=0.0).any()


def test_int8_mask_changes_nothing() -> None:
    base, models = random_models(np.random.default_rng(5), 2, 400, F32)
    plain, _ = merge(METHOD, models, base, density=0.5)
    assert same_bytes(merge(METHOD, models, base, density=0.5, int8_mask=True)[0], plain)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    given: dict[str, Any] = {"density": 0.5, "gamma": 0.1, "weight": dyadic_weights(count, seed, positive=True)}
    check_permutation(METHOD, seed, count, size, dtype, per_model=("weight",), **given)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling(METHOD, seed, count, size, exponent, density=0.5, gamma=0.1)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change(METHOD, seed, count, size, dtype, density=0.5, gamma=0.1)
    check_equal_models(METHOD, seed, 1, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    vector = check_task_vector(METHOD, models, base, density=0.5, gamma=0.1, weight=[0.5, 1.0, 2.0])
    assert widen(vector).any()


def test_threads() -> None:
    for dtype in (F32, F64, BF16):
        base, models = grid_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads(METHOD, models, base, density=0.3, gamma=0.1, rescale=True)


def test_many_models() -> None:
    base, models = random_models(np.random.default_rng(9), 20, 3000, BF16)
    check_method(METHOD, models, base, density=0.5, gamma=0.1, weight=0.0625)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.ParameterError, match="gamma"):
        sp.merge_tensors(METHOD, models, base, gamma=1.5)
