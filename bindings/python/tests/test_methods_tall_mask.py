"""tall_mask: masks against the reference, in memory and in files, and the multi-task vector beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from goldens.library import Library
from reference import dispatch, tall_mask, vectors
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
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)


def check_masks(found: AnyArray, models: list[AnyArray], base: AnyArray, scale: Any) -> None:
    """As the reference says, where the two sides of the comparison differ by more than their float32 roundings."""
    expected = tall_mask.masks(models, base, tall_mask_lambda=scale)
    deltas = np.stack([widen(model) - widen(base) for model in models])
    own = np.abs(deltas)
    factor = np.broadcast_to(np.asarray(scale, float), (len(models),)).reshape(-1, *[1] * base.ndim)
    rest = factor * np.abs(deltas.sum(axis=0) - deltas)
    rounding = 2.0**-22 * len(models) * (own + factor * np.abs(deltas).sum(axis=0))
    clear = (np.abs(own - rest) > rounding) | (deltas == 0.0)
    assert found.dtype == np.bool_
    assert found.shape == expected.shape
    assert np.array_equal(found[clear], expected[clear])
    assert clear.size == 0 or clear.mean() > 0.5


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    check_masks(np.asarray(sp.tall_masks(models, base, 0.4)), models, base, 0.4)
    check_method("tall_mask", models, base, weight=dyadic_weights(count, size), lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...]) -> None:
    base, models = mixed_models(types)
    check_masks(np.asarray(sp.tall_masks(models, base, [0.2, 0.4, 0.6])), models, base, [0.2, 0.4, 0.6])


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    check_masks(np.asarray(sp.tall_masks(models, base, 0.1)), models, base, 0.1)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(1000,), (7, 9), (3, 4, 5)], ids=str)
def test_equality_is_not_enough(dtype: np.dtype[Any], scale: float, shape: tuple[int, ...]) -> None:
    """On a grid both sides are exact: all of the mask is as the strict comparison says."""
    base, models = grid_models(np.random.default_rng(1), 3, shape, dtype)
    found = np.asarray(sp.tall_masks(models, base, scale))
    assert np.array_equal(found, tall_mask.masks(models, base, tall_mask_lambda=scale))


def test_unchanged_elements_and_single_models() -> None:
    """0 > 0 is false; the multi-task vector of one model is its own, so everything that it changes is."""
    base, models = grid_models(np.random.default_rng(2), 1, 500)
    assert np.array_equal(np.asarray(sp.tall_masks(models, base, 0.4))[0], models[0] != base)
    three = [models[0], base.copy(), base.copy()]
    found = np.asarray(sp.tall_masks(three, base, 0.0))
    assert np.array_equal(found[0], models[0] != base)
    assert not found[1:].any()


def test_vectors() -> None:
    found = np.asarray(sp.tall_masks(list(vectors.MODELS), vectors.BASE, 0.4))
    assert np.array_equal(found.sum(axis=0), vectors.TALL_COUNTS)
    merged, _ = merge("tall_mask", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(merged, vectors.BASE + sum(vectors.DELTAS), rtol=0.0, atol=vectors.ATOL)


def test_masks_that_cannot_be_made() -> None:
    base, models = random_models(np.random.default_rng(3), 2, 20, F32)
    with pytest.raises(sp.ShapeError):
        sp.tall_masks([models[0], models[1][:5]], base, 0.4)
    with pytest.raises(sp.ParameterError, match="tall_mask_lambda"):
        sp.tall_masks(models, base, -0.5)
    with pytest.raises(sp.ParameterError, match="tall_mask_lambda"):
        sp.tall_masks(models, base, [0.4, 0.4, 0.4])
    with pytest.raises(sp.StockpotError):
        sp.tall_masks([], base, 0.4)


@pytest.mark.parametrize("use_ties", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_files(use_ties: bool, dtype: np.dtype[Any]) -> None:
    """A mask file for every model, one bit per element, and the merge beside them; all of it on a grid, so exact."""
    rng = np.random.default_rng(7)
    shapes = {"z.weight": (13, 7), "a.bias": (5,), "m": (1, 3, 2, 2), "b": (64,), "s": ()}
    drawn = {name: grid_models(rng, 3, shape, dtype) for name, shape in shapes.items()}
    base = {name: pair[0] for name, pair in drawn.items()}
    models = [{name: pair[1][index] for name, pair in drawn.items()} for index in range(3)]
    parameters = {"use_ties": use_ties, "tall_mask_lambda": [0.25, 0.5, 1.0]}
    masks = Library().checkpoint_masks(models, base, parameters)
    merged, _ = Library().checkpoint("tall_mask", models, base, parameters)
    joined, origin = dispatch.join(models, base)
    assert origin is not None
    parts = dispatch.parts_of(base)
    expected = tall_mask.masks(joined, origin, parts=parts, **parameters)
    wanted, _ = dispatch.merge_checkpoint("tall_mask", models, base, **parameters)
    start = 0
    for name, size in parts:
        for index, own in enumerate(masks):
            assert np.array_equal(own[name].reshape(-1), expected[index, start : start + size]), name
        assert np.array_equal(widen(merged[name]), wanted[name].astype(dtype).astype(np.float64)), name
        start += size


def test_is_task_arithmetic_beside_the_masks() -> None:
    base, models = grid_models(np.random.default_rng(3), 3, 500)
    whole, _ = merge("tall_mask", models, base, weight=0.5, tall_mask_lambda=0.2)
    assert same_bytes(whole, merge("task_arithmetic", models, base, weight=0.5)[0])


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_permutation("tall_mask", seed, count, size, dtype)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation_of_masks(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = grid_models(rng, count, size)
    order = rng.permutation(count)
    found = np.asarray(sp.tall_masks(models, base, 0.5))
    assert np.array_equal(np.asarray(sp.tall_masks([models[i] for i in order], base, 0.5)), found[order])


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("tall_mask", seed, count, size, exponent)
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    one = np.asarray(sp.tall_masks(models, base, 0.4))
    assert np.array_equal(one, np.asarray(sp.tall_masks([model * scale for model in models], base * scale, 0.4)))


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("tall_mask", seed, count, size, dtype)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("tall_mask", seed, 1, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("tall_mask", models, base, weight=[0.5, 1.0, 2.0], lambda_=0.25)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("tall_mask", models, base)
        check_threads("tall_mask", models, base, use_ties=True)
