"""karcher: the library against its reference, and what a mean on the sphere has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

import stockpot as sp
from reference import karcher
from reference.arrays import BF16, F32, F64, AnyArray, random_models, same_bytes, widen
from reference.checks import (
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
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)

CONVERGED: dict[str, Any] = {"max_iter": 60, "tol": 1e-9}
"""So near the mean that where each stops makes no difference."""


def _check(models: list[AnyArray], dtype: np.dtype[Any] | None = None, **given: Any) -> dict[str, Any]:
    """The library against the reference: coefficients are norms and cosines, with an error g each.

    Around the mean an iteration is a contraction by at least two at these angles, which doubles the error of one.
    """
    merged, report = merge("karcher", models, dtype=dtype, **given)
    expected, _ = karcher.merge(models, **given)
    largest = float(np.max(np.abs(report.get("coefficients", [1.0]))))
    slack = (16.0 * reduction(models, merged.dtype) + 4.0 * given.get("tol", 1e-5)) * max(1.0, largest)
    zero = np.zeros_like(widen(models[0]))
    check_reference(merged, expected, [zero, *models], None, coefficients=slack, weight=2.0 * max(1.0, largest))
    return report


@pytest.mark.parametrize(("count", "size", "dtype"), [case for case in shapes_and_types() if case.values[1] > 1])
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    _, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype, spread=0.5)
    _check(models, **CONVERGED)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check([base, *models], dtype=dtype, **CONVERGED)


def test_two_meet_in_the_middle_of_their_arc() -> None:
    angle = 2.0
    pair = [np.array([3.0, 0.0]), np.array([np.cos(angle), np.sin(angle)])]
    merged, report = merge("karcher", pair, **CONVERGED)
    np.testing.assert_allclose(merged, [2.0 * np.cos(1.0), 2.0 * np.sin(1.0)], rtol=1e-12)
    assert report["step"] < 1e-9


def test_the_mean_is_stationary() -> None:
    """The mean of the logarithms at the mean is zero, which the start is not."""
    rng = np.random.default_rng(4)
    models = [rng.standard_normal(40) + 0.5 for _ in range(5)]
    merged, report = merge("karcher", models, **CONVERGED)
    mean = merged / np.linalg.norm(merged)
    units = [model / np.linalg.norm(model) for model in models]
    angles = [np.arccos(unit @ mean) for unit in units]
    pull = sum(a / np.sin(a) * (u - np.cos(a) * mean) for a, u in zip(angles, units, strict=True))
    assert float(np.linalg.norm(pull)) < 1e-7
    assert report["iterations"] > 2
    first, _ = merge("karcher", models, max_iter=0)
    assert not np.allclose(first, merged, rtol=1e-3)


def test_iterations_are_counted_and_limited() -> None:
    rng = np.random.default_rng(5)
    models = [rng.standard_normal(40) + 0.5 for _ in range(5)]
    for limit in (0, 1, 3):
        _, report = merge("karcher", models, max_iter=limit, tol=0.0)
        assert report["iterations"] == limit
    _check(models, max_iter=3, tol=1e-12)


def test_zero_vectors() -> None:
    """They count in the mean length; nothing but zeros stays as it is."""
    model = np.random.default_rng(6).standard_normal(30)
    merged, _ = merge("karcher", [np.zeros(30), model, model.copy()])
    np.testing.assert_allclose(merged, 2.0 / 3.0 * model, rtol=1e-13)
    zeros = np.array([0.0, -0.0, 0.0], np.float32)
    for compat in ("none", "mergekit"):
        assert not merge("karcher", [zeros, zeros.copy()], compat=compat)[0].any()
    assert same_bytes(merge("karcher", [zeros, zeros.copy()])[0], zeros)


def test_opposite_vectors_have_no_mean() -> None:
    """Any is as good as another: the first, as far as both are long."""
    model = np.random.default_rng(7).standard_normal(30)
    merged, _ = merge("karcher", [model, -model])
    np.testing.assert_allclose(merged, model, rtol=1e-12)


def test_sizes_do_not_matter_but_for_the_tool() -> None:
    """mergekit gives zeros where no norm is above tol."""
    _, models = random_models(np.random.default_rng(8), 3, 64, F32)
    merged, _ = merge("karcher", models)
    tiny = [model * np.float32(2.0**-60) for model in models]
    assert same_bytes(merge("karcher", tiny)[0], merged * np.float32(2.0**-60))
    assert not merge("karcher", tiny, compat="mergekit")[0].any()


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("karcher", seed, count, size, dtype, with_base=False)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    _, models = random_models(rng, count, size + 1, F64, spread=0.3)
    first, _ = merge("karcher", models, **CONVERGED)
    second, _ = merge("karcher", [models[i] for i in rng.permutation(count)], **CONVERGED)
    scale = np.sum(np.abs(np.stack(models)), axis=0)
    assert np.all(np.abs(first - second) <= 1e-8 * scale)


def test_one_model_is_copied() -> None:
    _, models = random_models(np.random.default_rng(9), 1, 64, BF16)
    assert same_bytes(merge("karcher", models)[0], models[0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        _, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("karcher", models)


def test_refusals() -> None:
    _, models = random_models(np.random.default_rng(6), 2, 10, F32)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("karcher", models, max_iter=-1)
