"""tgmd: the library against its reference, optimality of the median, and its two readings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import dispatch, geometric_median, vectors
from reference.arrays import BF16, F16, F32, F64, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
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
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    NAME,
    check_contradiction,
    check_della,
    check_equal_models,
    check_method,
    check_rates_and_independence,
    check_scaling,
    check_stream,
    grid_models,
)
from reference.tsd import filtered


def _check(models: list[AnyArray], base: AnyArray, *, dtype: np.dtype[Any] | None = None, **given: Any) -> None:
    """Three steps, with the floor of public tools so that no model is tried as the median itself.

    A step divides by distances. An error g of the Gram matrix, relative to the longest distance D, moves a distance d
    by g D^2 / d, and so a weight by g (D/d)^2 of itself; the steps add up.
    """
    steps = 3
    merged, _ = merge("tgmd", models, base, name=NAME, eps=1e-6, maxiter=steps, dtype=dtype, **given)
    expected, _ = dispatch.merge("tgmd", models, base, name=NAME, eps=1e-6, maxiter=steps, **given)
    f, _ = filtered(models, base, name=NAME, **given)
    distances = np.linalg.norm(f - (expected - widen(base)).reshape(1, -1), axis=1)
    if f.size == 0 or distances.max() == 0.0:
        check_reference(merged, expected, models, base)
        return
    ratio = float(distances.max() / max(distances.min(), 1e-6))
    off = 8.0 * (steps + 1) * reduction(inputs(models, base), merged.dtype) * ratio**2
    assert off < 1e-2, "a model is so near the median that its weight says nothing"
    check_reference(merged, expected, models, base, coefficients=off, weight=2.0)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    if size < 64:  # the median of few numbers may be a model; of many it is not
        base, models = random_models(np.random.default_rng(7), count, max(size, 40) if size else 0, dtype)
    _check(models, base)
    _check(models, base, density=0.6, trim_density=0.8, random_seed=size)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check(models, base, density=[0.9, 0.8, 1.0], dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), 40, LARGE, F32)
    _check(models, base)


@SETTINGS
@given(seeds, st.integers(3, 9), st.integers(2, 200))
def test_optimality(seed: int, count: int, size: int) -> None:
    """Of the filtered task vectors, zeros included: the pull at the result is at most the weight there."""
    base, models = random_models(np.random.default_rng(seed), count, size, F64)
    vector, _ = merge("tgmd", models, base, name=NAME, output="task_vector", maxiter=10_000)
    f, _ = filtered(models, base, name=NAME)
    y = widen(vector).reshape(-1)
    if np.linalg.norm(f - y, axis=1).max() < 1e-12:
        return

    def objective(point: AnyArray) -> float:
        return float(np.linalg.norm(f - point, axis=1).sum())

    assert objective(y) <= geometric_median.weiszfeld(f, maxiter=10_000).objective * count * (1.0 + 1e-9)
    assert all(objective(y) <= objective(row) * (1.0 + 1e-9) for row in f)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_medians_of_coordinates(dtype: np.dtype[Any], count: int) -> None:
    """The standard median of those that agree, which for an even number is the mean of the middle two."""
    for draw in (grid_models, random_models):
        base, models = draw(np.random.default_rng(count), count, 700, dtype)
        check_method("tgmd", models, base, reading="coordwise")
        check_method("tgmd", models, base, reading="coordwise", density=0.5, trim_density=0.5)


def test_one_coordinate() -> None:
    base = np.zeros(5, np.float32)
    models = [np.array(row, np.float32) for row in ([1, 1, 1, 1, 0], [2, 2, -2, -2, 0], [4, -4, 5, -3, 0])]
    merged, _ = merge("tgmd", models, base, reading="coordwise", density=1.0)
    assert merged.tolist() == [2.0, 1.5, 3.0, -2.5, 0.0]


def test_zeros_are_data() -> None:
    """For the tensor entries that do not agree pull towards the base; for a coordinate they are not there."""
    base = np.zeros(200, np.float64)
    rng = np.random.default_rng(3)
    models = [1.0 + 0.01 * rng.standard_normal(200) for _ in range(3)]
    lonely = [np.where(np.arange(200) % 3 == index, model, 0.0) for index, model in enumerate(models)]
    whole, _ = merge("tgmd", lonely, base, density=1.0)
    single, _ = merge("tgmd", lonely, base, density=1.0, reading="coordwise")
    assert widen(single).mean() == pytest.approx(1.0, abs=0.01)
    assert widen(whole).mean() == pytest.approx(1.0 / 3.0, abs=0.05)


@pytest.mark.parametrize("size", [5, 1000, UNITS])
@pytest.mark.parametrize("seed", [0, 20240501])
def test_documented_stream(size: int, seed: int) -> None:
    """By coordinates a model that alone changes anything is its own median."""
    check_stream("tgmd", NAME, size, seed, 0.9, reading="coordwise")


def test_rates_and_independence() -> None:
    check_rates_and_independence("tgmd", reading="coordwise")


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, -0.1), (0.5, 0.3)])
def test_della(density: float, epsilon: float) -> None:
    check_della("tgmd", density, epsilon, reading="coordwise")


def test_takes_no_weight() -> None:
    check_contradiction("tgmd", "weight", weight=0.5)


def test_vectors() -> None:
    merged, _ = merge("tgmd", list(vectors.MODELS), vectors.BASE, density=1.0)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.TGMD, rtol=0.0, atol=1e-8)


@SETTINGS
@given(seeds, st.integers(3, 9), st.integers(2, 200))
def test_permutation_without_dropping(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64)
    order = rng.permutation(count)
    given = {"density": 1.0, "eps": 1e-6, "maxiter": 5}
    one, _ = merge("tgmd", models, base, **given)
    np.testing.assert_allclose(merge("tgmd", [models[i] for i in order], base, **given)[0], one, rtol=0.0, atol=1e-9)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("tgmd", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("tgmd", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("tgmd", seed, count, size, dtype, density=1.0)


def test_two_models_meet_in_the_middle() -> None:
    """Every point between two is a median; the mean, from which the iteration starts, is one."""
    base, models = random_models(np.random.default_rng(4), 2, 300, F64)
    vector, _ = merge("tgmd", models, base, name=NAME, output="task_vector")
    f, _ = filtered(models, base, name=NAME)
    np.testing.assert_allclose(vector, f.mean(axis=0), rtol=0.0, atol=1e-12)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 4, 200, F32)
    for reading in ("tensor", "coordwise"):
        given = {"name": NAME, "reading": reading, "lambda_": 0.5, "dtype": F64}
        vector, _ = merge("tgmd", models, base, output="task_vector", **given)
        weights, _ = merge("tgmd", models, base, **given)
        np.testing.assert_allclose(widen(base) + vector, weights, rtol=0.0, atol=1e-14)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("tgmd", models, base)
        check_threads("tgmd", models, base, reading="coordwise")
    merged, _ = merge("tgmd", models, base, name=NAME)
    assert same_bytes(merged, merge("tgmd", models, base, name=NAME, density=[0.9] * 4)[0])
