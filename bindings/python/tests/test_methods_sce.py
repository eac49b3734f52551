"""sce: the library against its reference, and what selection, weights and signs have to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import sce, task_vectors
from reference.arrays import BF16, F32, F64, AnyArray, random_models, same_bytes
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
from reference.task_vector_checks import check_method, check_scaling, check_task_vector, grid_models


def _check(models: list[AnyArray], base: AnyArray, **given: Any) -> dict[str, Any]:
    """A weight is a sum of squares over a sum of them: an error g of each moves the mean by 2 g of the spread."""
    slack = 4.0 * reduction([*models, base], given.get("dtype") or base.dtype)
    _, report = check_method("sce", models, base, coefficients=slack, **given)
    return report


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    """Without ties of the vote, which rounding would break."""
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    for share in (1.0, 0.5):
        _check(models, base, select_topk=share)


@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_equal_variances(dtype: np.dtype[Any]) -> None:
    """The threshold goes through a run of equal variances, across chunks and cells: the lowest indices are chosen."""
    for size in (50, 3000, LARGE):
        base, models = grid_models(np.random.default_rng(size), 3, size, dtype, levels=1)
        for share in (0.3, 0.9):
            _check(models, base, select_topk=share)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check(models, base, select_topk=0.6, dtype=dtype)


def test_selection() -> None:
    """The share is of the elements that differ between the models at all."""
    base = np.zeros(6)
    models = [np.array([1.0, 5, 2, 7, 0, 1]), np.array([1.0, 4, 4, 7, 0, 1.5])]
    merged, report = merge("sce", models, base, select_topk=0.67)
    assert np.flatnonzero(merged).tolist() == [1, 2]
    assert report["threshold"] == 0.5
    assert report["kept"] == [2 / 6, 2 / 6]
    assert not merge("sce", models, base, select_topk=0.3)[0].any()
    assert not merge("sce", models, base, select_topk=0.0)[0].any()
    assert np.count_nonzero(merge("sce", models, base)[0]) == 5


def test_weights_are_squares_and_minorities_are_erased() -> None:
    base = np.zeros(3)
    models = [np.array([1.0, 2.0, -1.0]), np.array([2.0, -1.0, -1.0])]
    merged, report = merge("sce", models, base)
    assert report["weights"] == [0.5, 0.5]
    assert merged.tolist() == [1.5, 2.0, -1.0]
    models[1] = 2.0 * models[1]
    merged, report = merge("sce", models, base)
    assert report["weights"] == [0.2, 0.8]
    np.testing.assert_allclose(merged, [0.2 + 0.8 * 4.0, 2.0, -0.2 - 1.6], rtol=1e-15)


def test_equal_models_disagree_nowhere() -> None:
    """All elements chosen: the models. Less: none has a variance, and the base is what is left."""
    base, (model,) = random_models(np.random.default_rng(1), 1, 300, F32)
    for count in (1, 3):
        assert np.array_equal(merge("sce", [model] * count, base)[0], model)
        assert same_bytes(merge("sce", [model] * count, base, select_topk=0.9)[0], base)


def test_the_limits_of_the_tool() -> None:
    """mergekit: small changes weigh the same, and are divided by 1e-6 at least."""
    base, models = random_models(np.random.default_rng(2), 3, 64, F64)
    small = [base + (model - base) * 2.0**-20 for model in models]
    ours, report = merge("sce", small, base)
    assert max(report["weights"]) - min(report["weights"]) > 1e-6
    np.testing.assert_allclose(report["weights"], sce.weights(task_vectors.task_vectors(small, base)), rtol=1e-12)
    tool, report = merge("sce", small, base, compat="mergekit")
    assert report["weights"] == [1 / 3] * 3
    expected = sce.merge(small, base, compat="mergekit")
    np.testing.assert_allclose(tool, expected, rtol=0.0, atol=1e-15)
    assert not np.array_equal(ours, tool)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64)
    first, _ = merge("sce", models, base, select_topk=0.5)
    second, _ = merge("sce", [models[i] for i in rng.permutation(count)], base, select_topk=0.5)
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-13)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20), st.sampled_from([1.0, 0.5]))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int, share: float) -> None:
    check_scaling("sce", seed, count, size, exponent, select_topk=share)


@SETTINGS
@given(seeds, counts, sizes, dtypes, st.sampled_from([1.0, 0.5]))
def test_models_equal_to_the_base_give_the_base(
    seed: int, count: int, size: int, dtype: np.dtype[Any], share: float
) -> None:
    check_no_change("sce", seed, count, size, dtype, select_topk=share)


def test_int8_mask_changes_nothing() -> None:
    base, models = random_models(np.random.default_rng(5), 3, 400, F32)
    plain, _ = merge("sce", models, base, select_topk=0.5)
    assert same_bytes(merge("sce", models, base, select_topk=0.5, int8_mask=True)[0], plain)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("sce", models, base, select_topk=0.5)


def test_threads() -> None:
    for dtype in (F32, F64, BF16):
        base, models = grid_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("sce", models, base, select_topk=0.3)
        check_threads("sce", models, base)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.ParameterError, match="select_topk"):
        sp.merge_tensors("sce", models, base, select_topk=1.5)
