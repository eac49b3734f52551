"""arcee_fusion: the library against its reference, and what the importance has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import arcee_fusion
from reference.arrays import BF16, F32, F64, FLOAT_TYPES, AnyArray, random_models, widen
from reference.checks import (
    SETTINGS,
    UNITS,
    check_no_change,
    check_threads,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    seeds,
    sizes,
)
from reference.task_vector_checks import check_method, check_task_vector, grid_models

SHAPES = [(1,), (7,), (1000,), (40, 33), (33, 40), (1, 500), (500, 1), (6, 5, 3, 3), (), (301, 700)]


def _pair(seed: int, shape: int | tuple[int, ...], dtype: np.dtype[Any] = F32) -> tuple[AnyArray, list[AnyArray]]:
    return random_models(np.random.default_rng(seed), 1, shape, dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_reference(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    base, models = _pair(sum(shape), shape, dtype)
    _, report = check_method("arcee_fusion", models, base)
    assert report["kept"] == pytest.approx(np.mean(arcee_fusion.mask(models[0], base) & (models[0] != base)))


@pytest.mark.parametrize("scale", [2.0**-8, 1.0, 16.0])
def test_small_and_large_changes(scale: float) -> None:
    """Divergences from where first-order terms would cancel all digits, to probabilities at the floor of 1e-8."""
    base, models = _pair(3, (50, 60), F64)
    model = base + scale * (models[0] - base)
    _, report = check_method("arcee_fusion", [model], base)
    expected = arcee_fusion.divergence(widen(model), widen(base)).mean()
    assert report["divergence"] == pytest.approx(expected, rel=1e-9)
    assert report["threshold"] == pytest.approx(arcee_fusion.threshold(arcee_fusion.importances(model, base)), rel=1e-9)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types[:2])
    check_method("arcee_fusion", models, base, dtype=dtype)


def test_the_largest_changes_stay() -> None:
    """In a vector the divergence is one number: what stays are the largest changes, as they are."""
    base = np.zeros(100)
    model = np.linspace(0.1, 1.0, 100) ** 8
    merged, report = merge("arcee_fusion", [model], base)
    kept = merged != 0.0
    assert np.array_equal(merged[kept], model[kept])
    assert kept[report["kept"] < np.linspace(1.0, 0.01, 100)].sum() == 0 or kept[-1]
    assert model[kept].min() > model[~kept].max()
    expected = np.median(np.sort(model)[49:50]) + 1.5 * (np.sort(model)[74] - np.sort(model)[24])
    assert np.array_equal(kept, model.astype(np.float32) >= np.float32(expected))


def test_rows_that_only_shift_have_no_importance() -> None:
    """A constant added to a row moves no probability."""
    rng = np.random.default_rng(4)
    base = rng.standard_normal((8, 64))
    model = base.copy()
    model[:7] += rng.standard_normal((7, 64)) * 0.1
    model[7] += 5.0
    merged, _ = merge("arcee_fusion", [model], base)
    assert np.array_equal(merged[7], base[7])


def test_nothing_stands_out() -> None:
    """Rows of one element have no divergence: all importances are 0, and so is the threshold, which they reach."""
    base, models = _pair(5, (50, 1))
    assert np.array_equal(merge("arcee_fusion", models, base)[0], models[0])


def test_quartiles_are_exact_beyond_a_million_elements() -> None:
    """mergekit samples them there; the result is the same every time, and the reference's."""
    base, models = _pair(6, (1100, 1000))
    check_method("arcee_fusion", models, base)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("arcee_fusion", seed, 1, size, dtype)


@SETTINGS
@given(seeds, sizes, st.sampled_from([F32, F64, BF16]))
def test_every_element_is_one_of_both(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    base, (model,) = grid_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge("arcee_fusion", [model], base)
    assert np.all((merged == base) | (merged == model))


def test_task_vector() -> None:
    base, models = _pair(8, (20, 30))
    check_task_vector("arcee_fusion", models, base, lambda_=0.5)


def test_threads() -> None:
    for dtype in (F32, F64, BF16):
        for shape in ((UNITS,), (701, 300)):
            base, models = _pair(2, shape, dtype)
            check_threads("arcee_fusion", models, base)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.MethodError):
        sp.merge_tensors("arcee_fusion", models, base)
