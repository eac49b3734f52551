"""tsd: the library against its reference, the random stream, and what makes it TIES-SOUP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import vectors
from reference.arrays import BF16, F16, F32, F64, random_models, same_bytes
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
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    ADVERSARIAL,
    NAME,
    adversarial,
    check_contradiction,
    check_della,
    check_equal_models,
    check_method,
    check_permutation,
    check_rates_and_independence,
    check_scaling,
    check_stream,
    check_task_vector,
    check_trim,
    dyadic_weights,
    grid_models,
    rescale_error,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    check_method("tsd", models, base)
    weight = dyadic_weights(count, size)
    check_method("tsd", models, base, density=0.6, trim_density=0.5, weight=weight, random_seed=size, lambda_=0.5)
    check_method("tsd", models, base, density=0.5, rescale="inverse", normalize=False)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("tsd", models, base, density=[0.3, 0.5, 0.9], dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), 40, LARGE, F32)
    check_method("tsd", models, base)


@pytest.mark.parametrize("elect", ["count", "mass", "none"])
@pytest.mark.parametrize("zero_sign", ["plus", "majority", "drop"])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
def test_variants_with_even_votes(elect: str, zero_sign: str, dtype: np.dtype[Any]) -> None:
    base, models = grid_models(np.random.default_rng(1), 4, 600, dtype)
    for rule in ("mean", "sum"):
        given = {"elect": elect, "zero_sign": zero_sign, "merge": rule}
        check_method("tsd", models, base, **given)
        check_method("tsd", models, base, density=0.5, trim_density=0.3, trim="inclusive", **given)


def test_l1_rescaling() -> None:
    for seed in range(5):
        base, models = random_models(np.random.default_rng(seed), 4, 500, F32)
        given = {"density": 0.5, "rescale": "l1", "random_seed": seed}
        check_method("tsd", models, base, coefficients=rescale_error(models, base, **given), **given)


@pytest.mark.parametrize("name", ["", NAME])
@pytest.mark.parametrize("size", [5, 1000, UNITS])
@pytest.mark.parametrize("seed", [0, 114514])
def test_documented_stream(name: str, size: int, seed: int) -> None:
    check_stream("tsd", name, size, seed, 0.9)


def test_rates_and_independence() -> None:
    check_rates_and_independence("tsd")


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, -0.1), (0.5, 0.3)])
def test_della(density: float, epsilon: float) -> None:
    check_della("tsd", density, epsilon)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("size", [1, 7, 1001])
def test_trimming_to_the_element(kind: str, size: int) -> None:
    delta = adversarial(kind, size)
    for density in (0.001, 0.2, 0.999, 1.0):
        check_trim("tsd", delta, density, "exact", key="trim_density", density=1.0)
        check_trim("tsd", delta, density, "inclusive", key="trim_density", density=1.0)


def test_density_one_is_ties_soup() -> None:
    base, models = random_models(np.random.default_rng(8), 4, 2000, F32)
    whole, _ = merge("tsd", models, base, density=1.0)
    assert same_bytes(whole, merge("ties_soup", models, base)[0])


def test_the_mean_needs_no_rescaling() -> None:
    """Without rescaling a mean over what is left is unbiased: where any of the equal task vectors is kept, it is it."""
    base = np.zeros(10_000, np.float32)
    model = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    merged, _ = merge("tsd", [model] * 5, base, density=0.5)
    assert np.array_equal(merged[merged != 0], model[merged != 0])
    lost = float(np.mean(merged == 0))
    assert abs(lost - 2.0**-5) < 5.0 * (2.0**-5 / 10_000) ** 0.5
    doubled, _ = merge("tsd", [model] * 5, base, density=0.5, rescale="inverse")
    assert np.array_equal(doubled, 2.0 * merged)


def test_settings_that_contradict() -> None:
    check_contradiction("tsd", "normalize", normalize=True, merge="sum")
    check_contradiction("tsd", "normalize", normalize=False, merge="mean")


def test_vectors() -> None:
    merged, _ = merge("tsd", list(vectors.MODELS), vectors.BASE, density=1.0)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.TIES_SOUP, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation_without_dropping(seed: int, count: int, size: int) -> None:
    given = {"weight": dyadic_weights(count, seed), "density": 1.0, "trim_density": 0.5}
    check_permutation("tsd", seed, count, size, F32, per_model=("weight",), **given)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("tsd", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("tsd", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("tsd", seed, count, size, dtype, density=1.0)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("tsd", models, base, weight=[0.5, 1.0, 2.0], lambda_=0.25)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 4, UNITS, dtype)
        check_threads("tsd", models, base)
        check_threads("tsd", models, base, trim_density=0.2, rescale="l1")
