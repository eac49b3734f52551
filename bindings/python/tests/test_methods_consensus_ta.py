"""consensus_ta: the library against its reference, and how many masks an element needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens.library import Library
from reference import dispatch, vectors
from reference.arrays import BF16, F16, F32, F64, AnyArray, random_models, same_bytes
from reference.checks import (
    LARGE,
    SETTINGS,
    UNITS,
    check_no_change,
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
from reference.task_vector_checks import (
    NAME,
    check_method,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)


def _check(models: list[AnyArray], base: AnyArray, *, dtype: np.dtype[Any] | None = None, **given: Any) -> None:
    """Against the reference, but for elements whose comparison turns on a rounding: those are the base's or moved.

    An element is unclear where the reference itself decides otherwise for masks that are stricter, or laxer, by some
    units of float32's last place.
    """
    merged, _ = merge("consensus_ta", models, base, name=NAME, dtype=dtype, **given)
    expected, _ = dispatch.merge("consensus_ta", models, base, name=NAME, **given)
    scale = given.get("tall_mask_lambda", 0.4)
    around = [
        dispatch.merge(
            "consensus_ta", models, base, name=NAME, **{**given, "tall_mask_lambda": np.multiply(scale, factor)}
        )
        for factor in (1.0 - 2.0**-18, 1.0 + 2.0**-18)
    ]
    clear = around[0][0] == around[1][0]
    assert clear.size == 0 or clear.mean() > 0.99
    assert merged.dtype == (dtype or base.dtype)
    tuned = [model[clear] for model in models]
    check_reference(merged[clear], expected[clear], tuned, base[clear], weight=4.0)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    if dtype in (F32, F64):
        _check(models, base)
        _check(models, base, k=1, weight=dyadic_weights(count, size), lambda_=0.5)
    else:  # few values, and products with 0.4 near to one another: a scale that is exact
        check_method("consensus_ta", models, base, tall_mask_lambda=0.5)
        check_method("consensus_ta", models, base, tall_mask_lambda=0.25, k=1, lambda_=0.5)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("consensus_ta", models, base, tall_mask_lambda=[0.25, 0.5, 1.0], dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), 40, LARGE, F32)
    _check(models, base, tall_mask_lambda=0.1, k=20, lambda_=0.025)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_numbers_of_masks(dtype: np.dtype[Any], k: int) -> None:
    """On a grid all comparisons are exact: 0 merges everything, more than there are models nothing."""
    base, models = grid_models(np.random.default_rng(k), 3, 1000, dtype)
    for scale in (0.25, 0.5, 1.0, [0.25, 0.5, 1.0]):
        merged, _ = check_method("consensus_ta", models, base, k=k, tall_mask_lambda=scale)
        if k == 4:
            assert np.array_equal(merged, base)


def test_vectors() -> None:
    merged, _ = merge("consensus_ta", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.CONSENSUS, rtol=0.0, atol=vectors.ATOL)


def test_what_one_model_alone_changes_is_not_consensus() -> None:
    base = np.zeros(4, np.float32)
    models = [np.array([1.0, 1.0, 0.0, 0.0], np.float32), np.array([0.0, 1.0, 1.0, 0.0], np.float32)]
    assert merge("consensus_ta", models, base)[0].tolist() == [0.0, 2.0, 0.0, 0.0]
    assert merge("consensus_ta", models, base, k=1)[0].tolist() == [1.0, 2.0, 1.0, 0.0]


def test_without_masks_it_is_task_arithmetic() -> None:
    base, models = grid_models(np.random.default_rng(3), 3, 500)
    whole, _ = merge("consensus_ta", models, base, k=0, weight=0.5)
    assert same_bytes(whole, merge("task_arithmetic", models, base, weight=0.5)[0])


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = grid_models(rng, count, size)
    order = rng.permutation(count)
    one, _ = merge("consensus_ta", models, base, tall_mask_lambda=0.5)
    assert same_bytes(one, merge("consensus_ta", [models[i] for i in order], base, tall_mask_lambda=0.5)[0])


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("consensus_ta", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("consensus_ta", seed, count, size, dtype)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_has_one_mask(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(seed), 1, size, dtype)
    assert np.array_equal(merge("consensus_ta", models, base)[0], base)


def test_task_vector() -> None:
    base, models = grid_models(np.random.default_rng(8), 3, 200)
    check_task_vector("consensus_ta", models, base, weight=[0.5, 1.0, 2.0], lambda_=0.25, tall_mask_lambda=0.5)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("consensus_ta", models, base)


@pytest.mark.parametrize("scope", [None, "tensor", "model"])
def test_scopes(scope: str | None) -> None:
    """Thresholds and majority are those of the whole model unless the tensor is asked for; masks go by element."""
    rng = np.random.default_rng(5)
    drawn = {name: grid_models(rng, 3, shape) for name, shape in (("z", (40, 9)), ("a", (17,)), ("k", (200,)))}
    base = {name: pair[0] for name, pair in drawn.items()}
    models = [{name: pair[1][index] for name, pair in drawn.items()} for index in range(3)]
    parameters: dict[str, Any] = {"tall_mask_lambda": 0.5, "use_ties": True, "k": 1}
    if scope is not None:
        parameters["scope"] = scope
    merged, _ = Library().checkpoint("consensus_ta", models, base, parameters)
    expected, _ = dispatch.merge_checkpoint("consensus_ta", models, base, **parameters)
    for name, want in expected.items():
        assert np.array_equal(merged[name], want), name
