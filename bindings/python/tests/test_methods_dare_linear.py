"""dare_linear: the library against its reference, the documented random stream, rates and rescaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens.library import Library
from reference import philox, task_arithmetic, vectors
from reference.arrays import BF16, F32, F64, random_models, same_bytes, widen
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
    changed,
    check_della,
    check_equal_models,
    check_method,
    check_permutation,
    check_rates_and_independence,
    check_scaling,
    check_stream,
    check_task_vector,
    dyadic_weights,
    rescale_error,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size, positive=True)
    check_method("dare_linear", models, base, density=0.6, rescale="none", weight=weight, random_seed=size)
    check_method("dare_linear", models, base, density=0.5, rescale="inverse", normalize=True)
    given = {"density": 0.7, "rescale": True, "weight": weight, "random_seed": 114514}
    check_method("dare_linear", models, base, coefficients=rescale_error(models, base, **given), **given)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("dare_linear", models, base, density=[0.3, 0.5, 0.9], rescale="none", dtype=dtype)
    given = {"density": [0.3, 0.5, 0.9]}
    slack = rescale_error(models, base, output=dtype, **given)
    check_method("dare_linear", models, base, coefficients=slack, dtype=dtype, **given)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), 40, LARGE, F32)
    check_method("dare_linear", models, base, density=0.3, rescale="inverse", weight=0.0625)


@pytest.mark.parametrize("name", ["", NAME, "gewichte.über.alles"])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000, UNITS])
@pytest.mark.parametrize("seed", [0, 1, 114514, 2**40 + 7])
def test_documented_stream(name: str, size: int, seed: int) -> None:
    check_stream("dare_linear", name, size, seed, 0.3)


def test_rates_and_independence() -> None:
    check_rates_and_independence("dare_linear")


def test_densities_at_the_ends() -> None:
    """0 keeps nothing, 1 everything, and 1 is task arithmetic."""
    base, models = random_models(np.random.default_rng(2), 3, 5000, F32)
    nothing, _ = merge("dare_linear", models, base, density=0.0)
    assert np.array_equal(nothing, base)
    for rescale in (True, "none", "inverse"):
        everything, _ = merge("dare_linear", models, base, density=1.0, rescale=rescale, weight=0.5)
        check_reference(everything, task_arithmetic.merge(models, base, weight=0.5), models, base, weight=2.0)
    mixed, _ = merge("dare_linear", models, base, density=[1.0, 0.0, 1.0], weight=0.5)
    assert same_bytes(mixed, merge("dare_linear", [models[0], base, models[2]], base, weight=0.5)[0])


def test_rescaling() -> None:
    """inverse: 1/density, exactly; l1: what keeps the sum of magnitudes, one factor for the tensor; true is l1."""
    base = np.zeros(20_000, np.float32)
    model = np.random.default_rng(5).standard_normal(20_000).astype(np.float32)
    kept = philox.kept(NAME, 20_000, 0, 0, 0.25)
    bare = changed("dare_linear", base, model, density=0.25, rescale="none")
    assert np.array_equal(bare, np.where(kept, widen(model), 0.0))
    assert np.array_equal(changed("dare_linear", base, model, density=0.25, rescale="inverse"), 4.0 * bare)
    scaled = changed("dare_linear", base, model, density=0.25, rescale="l1")
    assert np.abs(scaled).sum() == pytest.approx(np.abs(widen(model)).sum(), rel=1e-12)
    factor = scaled[kept] / bare[kept]
    assert np.ptp(factor) < 1e-13 * factor.max()
    assert np.array_equal(scaled, changed("dare_linear", base, model, density=0.25))
    assert np.array_equal(scaled, changed("dare_linear", base, model, density=0.25, rescale=True))
    assert np.array_equal(bare, changed("dare_linear", base, model, density=0.25, rescale=False))


def test_a_sum_of_nothing_is_not_divided_by() -> None:
    """Task vectors of which only zeros are kept."""
    kept = philox.kept(NAME, 100, 0, 0, 0.5)
    model = np.where(kept, 0.0, 1.0).astype(np.float32)
    assert not changed("dare_linear", np.zeros(100, np.float32), model, density=0.5).any()


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.5, 0.4), (0.9, -0.1), (0.9, 0.5), (0.1, 0.5)])
def test_della(density: float, epsilon: float) -> None:
    check_della("dare_linear", density, epsilon)


def test_normalize() -> None:
    """Divided by the sum of the weights, or by 1 where that is next to nothing."""
    base, models = random_models(np.random.default_rng(3), 2, 400, F32)
    for weight in ([1.0, 2.0], [0.5, 0.5], [1.0, -1.0]):
        check_method("dare_linear", models, base, density=0.5, rescale="none", weight=weight, normalize=True)


def test_vectors() -> None:
    merged, _ = merge("dare_linear", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(merged, vectors.BASE + sum(vectors.DELTAS), rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation_without_dropping(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    weight = dyadic_weights(count, seed)
    check_permutation("dare_linear", seed, count, size, dtype, per_model=("weight",), weight=weight)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20), st.sampled_from(["l1", "inverse", "none"]))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int, rescale: str) -> None:
    check_scaling("dare_linear", seed, count, size, exponent, density=0.5, rescale=rescale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("dare_linear", seed, count, size, dtype, density=0.3)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("dare_linear", seed, 1, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("dare_linear", models, base, density=0.4, rescale="inverse", weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("dare_linear", models, base, density=0.3)
        check_threads("dare_linear", models, base, density=0.3, drop="della", rescale="none")


def test_a_checkpoint_takes_the_names_of_its_tensors() -> None:
    """The same masks as for arrays of that name, whatever else is in the file; equal tensors get their own."""
    base, models = random_models(np.random.default_rng(4), 2, (40, 30), F32)
    stored = dict.fromkeys(("b.weight", "a.weight"), base)
    tuned = [dict.fromkeys(stored, model) for model in models]
    parameters = {"density": [0.5, 0.25], "random_seed": 3}
    merged, _ = Library().checkpoint("dare_linear", tuned, stored, parameters)
    for name in stored:
        alone, _ = merge("dare_linear", models, base, name=name, **parameters)
        assert same_bytes(merged[name], alone)
    assert not same_bytes(merged["a.weight"], merged["b.weight"])
