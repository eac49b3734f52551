"""tsd_v2: the library against its reference, and the ratio that shortens every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import tsd_v2, vectors
from reference.arrays import BF16, F16, F32, F64, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    SETTINGS,
    UNITS,
    check_no_change,
    check_threads,
    counts,
    dtypes,
    inputs,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    sizes,
)
from reference.task_vector_checks import (
    NAME,
    check_equal_models,
    check_method,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)
from reference.tsd import filtered

AGGREGATES = ("adjacent", "cos", "angle")


def _check(models: list[AnyArray], base: AnyArray, *, dtype: np.dtype[Any] | None = None, **given: Any) -> None:
    """Every ratio may be off by the error of a cosine times dt/dc, at most K: what agrees has no negative cosine.

    A mean of angles turns an error of a cosine into one by 1 / sin, and by its root where vectors are parallel.
    """
    count = len(models)
    off = count * 3.0 * reduction(inputs(models, base), dtype or base.dtype)
    if given.get("aggregate") == "angle":
        plain = {key: value for key, value in given.items() if key not in ("aggregate", "lambda_")}
        f, _ = filtered(models, base, name=NAME, **plain)
        rows = f.reshape(count, -1, base.shape[-1] if base.ndim > 1 else max(base.size, 1))
        norms = np.linalg.norm(rows, axis=2)
        cosines = np.einsum("iru,jru->rij", rows, rows)
        cosines /= np.maximum(np.einsum("ir,jr->rij", norms, norms), 1e-300)
        pairs = cosines[(slice(None), *np.triu_indices(count, 1))]
        sines = np.sqrt(np.maximum(1.0 - pairs**2, 0.0))
        root = (8.0 * off) ** 0.5
        off = min(root, off / max(float(sines.min(initial=1.0)), 1e-300))
    check_method("tsd_v2", models, base, coefficients=off, dtype=dtype, **given)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("shape", [(48,), (12, 32), (8, 3, 3, 5), (5, 1, 20), (7, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_reference(aggregate: str, shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> None:
    base, models = random_models(np.random.default_rng(count), count, shape, dtype)
    _check(models, base, aggregate=aggregate)
    _check(models, base, aggregate=aggregate, density=0.6, weight=dyadic_weights(count, 1), lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    rows = [array.reshape(4, 16) for array in (base, *models)]
    _check(rows[1:], rows[0], dtype=dtype)


@pytest.mark.parametrize("shape", [(LARGE,), (3, LARGE), (22_000, 3)], ids=str)
def test_rows_and_units_of_work(shape: tuple[int, ...]) -> None:
    """Rows longer than a unit, rows across the borders of units, one row."""
    base, models = random_models(np.random.default_rng(1), 3, shape, F32)
    _check(models, base)


def test_even_votes_and_rows_of_zeros() -> None:
    base, models = grid_models(np.random.default_rng(2), 4, (60, 5), F32, levels=1)
    for model in models:
        model[7] = base[7]
    models[2][11] = base[11]
    _check(models, base, density=0.7)
    merged, _ = merge("tsd_v2", models, base)
    assert np.array_equal(merged[7], base[7])


def test_scalars_and_single_models_are_not_shortened() -> None:
    """Neither has an angle: t = 1, which leaves what tsd makes."""
    base, models = random_models(np.random.default_rng(3), 3, (), F64)
    merged, _ = merge("tsd_v2", models, base, density=1.0)
    assert float(merged) == pytest.approx(float(merge("tsd", models, base, density=1.0)[0]), rel=1e-15)
    base, models = random_models(np.random.default_rng(3), 1, (6, 5), F32)
    assert same_bytes(merge("tsd_v2", models, base, name=NAME)[0], merge("tsd", models, base, name=NAME)[0])


def test_ratio_of_a_row() -> None:
    """Two perpendicular task vectors give the base, parallel ones their mean, cosine 1/2 two thirds of the mean."""
    base = np.zeros((3, 2), np.float64)
    first = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    second = np.array([[0.0, 1.0], [2.0, 2.0], [0.5, 0.75**0.5]])
    merged, _ = merge("tsd_v2", [first, second], base, density=1.0)
    t = 2.0 * 0.5 / 1.5
    expected = np.array([[0.0, 0.0], [1.5, 1.5], [t * 0.75, t * 0.75**0.5]])
    np.testing.assert_allclose(merged, expected, rtol=0.0, atol=1e-14)


def test_neighbours_know_an_order() -> None:
    """adjacent sees two of three pairs; cos and angle see all, in any order."""
    base, models = random_models(np.random.default_rng(5), 3, (4, 50), F64)
    turned = [models[0], models[2], models[1]]
    for aggregate in ("cos", "angle"):
        one, _ = merge("tsd_v2", models, base, density=1.0, aggregate=aggregate)
        np.testing.assert_allclose(merge("tsd_v2", turned, base, density=1.0, aggregate=aggregate)[0], one, atol=1e-12)
    one, _ = merge("tsd_v2", models, base, density=1.0)
    assert np.abs(merge("tsd_v2", turned, base, density=1.0)[0] - one).max() > 1e-6
    assert same_bytes(one, merge("tsd_v2", models, base, density=1.0, aggregate="adjacent")[0])


def test_ratios_lie_between_zero_and_one() -> None:
    """What agrees has no negative scalar products, so that no row is lengthened or turned."""
    base, models = random_models(np.random.default_rng(6), 5, (30, 20), F64, common=0.0)
    shortened = widen(merge("tsd_v2", models, base, name=NAME)[0]) - base
    whole = widen(merge("tsd", models, base, name=NAME)[0]) - base
    kept = np.abs(whole) > 1e-9
    ratio = shortened[kept] / whole[kept]
    assert ratio.min() > -1e-6
    assert ratio.max() < 1.0 + 1e-6


def test_vectors() -> None:
    """The rows of TIES-SOUP's golden vector, each times its ratio."""
    merged, _ = merge("tsd_v2", list(vectors.MODELS), vectors.BASE, density=1.0)
    f, _ = filtered(list(vectors.MODELS), vectors.BASE, density=1.0)
    t = tsd_v2.ratios(f, (4, 3), "adjacent")
    np.testing.assert_allclose(merged, vectors.BASE + t[:, None] * vectors.TIES_SOUP, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("tsd_v2", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("tsd_v2", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, st.sampled_from([F32, F16, BF16]))
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    """t is 1 but for its last bits, which do not reach those of the model."""
    check_equal_models("tsd_v2", seed, count, size, dtype, density=1.0)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, (20, 10), F32)
    check_task_vector("tsd_v2", models, base, weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, (700, 301), dtype)
        check_threads("tsd_v2", models, base)
    base, models = random_models(np.random.default_rng(2), 3, UNITS, BF16)
    check_threads("tsd_v2", models, base)
