"""linear: the library against its reference, and what a weighted average has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import linear
from reference.arrays import BF16, F32, F64, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    MANY,
    SETTINGS,
    UNITS,
    check_identical,
    check_reference,
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


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types())
@pytest.mark.parametrize("normalize", [True, False])
def test_reference(count: int, size: int, dtype: np.dtype[Any], normalize: bool) -> None:
    rng = np.random.default_rng(count * 1000 + size)
    _, models = random_models(rng, count, size, dtype)
    weight = rng.uniform(0.2, 1.0, count).tolist()
    merged, report = merge("linear", models, weight=weight, normalize=normalize)
    expected = linear.merge(models, weight=weight, normalize=normalize)
    bound = 1.0 if normalize else float(np.sum(weight))
    check_reference(merged, expected, models, None, weight=bound)
    assert merged.dtype == dtype
    total = np.sum(weight) if normalize else 1.0
    assert report["weights"] == pytest.approx(np.array(weight) / total, rel=1e-14)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    merged, _ = merge("linear", [base, *models], weight=[1, 2, 3, 4], dtype=dtype)
    assert merged.dtype == (dtype or base.dtype)
    check_reference(merged, linear.merge([base, *models], weight=[1, 2, 3, 4]), [base, *models], None)


def test_many_large() -> None:
    _, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    merged, _ = merge("linear", models)
    check_reference(merged, linear.merge(models), models, None)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    """Order changes nothing but roundings of the arithmetic: both orders are one rounding from the same value."""
    rng = np.random.default_rng(seed)
    _, models = random_models(rng, count, size, dtype)
    weight = rng.uniform(-1.0, 2.0, count)
    order = rng.permutation(count)
    expected = linear.merge(models, weight=weight.tolist(), normalize=False)
    for chosen in (np.arange(count), order):
        merged, _ = merge("linear", [models[i] for i in chosen], weight=weight[chosen].tolist(), normalize=False)
        check_reference(merged, expected, models, None, weight=float(np.abs(weight).sum()))


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    _, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("linear", models)
    scaled, _ = merge("linear", [model * scale for model in models])
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("linear", seed, count, size, dtype, with_base=False)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_opposite_models_cancel_exactly(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    _, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge("linear", [model, -model])
    assert not np.any(widen(merged))


def test_threads() -> None:
    for dtype in (F32, BF16):
        _, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("linear", models, weight=[0.2, 0.3, 0.5])


def test_weights_that_sum_to_zero_are_refused() -> None:
    _, models = random_models(np.random.default_rng(4), 2, 5)
    with pytest.raises(sp.ParameterError, match="sum to 0"):
        sp.merge_tensors("linear", models, weight=[1.0, -1.0])
    merged, _ = merge("linear", models, weight=[1.0, -1.0], normalize=False)
    check_reference(merged, widen(models[0]) - widen(models[1]), models, None)


def test_one_weight_for_all() -> None:
    _, models = random_models(np.random.default_rng(5), 3, 20)
    merged, _ = merge("linear", models, weight=0.5, normalize=False)
    check_reference(merged, linear.merge(models, weight=0.5, normalize=False), models, None)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("linear", models, weight=[1.0, 2.0])
