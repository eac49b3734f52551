"""magnitude_prune: the library against its reference, and what is kept, to the element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.arrays import BF16, F16, F32, F64, random_models, same_bytes, widen
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
    ADVERSARIAL,
    adversarial,
    changed,
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    check_trim,
    dyadic_weights,
    grid_models,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size, positive=True)
    check_method("magnitude_prune", models, base, weight=weight, normalize=True)
    check_method("magnitude_prune", models, base, density=0.25, rescale="inverse", trim="inclusive", weight=0.5)
    check_method("magnitude_prune", models, base, density=0.5, compat="merge_lm", weight=weight)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("magnitude_prune", models, base, density=[0.3, 0.5, 0.9], dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    check_method("magnitude_prune", models, base, density=0.3, weight=0.0078125)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
def test_trimming_to_the_element(kind: str, size: int, dtype: np.dtype[Any]) -> None:
    delta = adversarial(kind, size, dtype)
    for density in (0.001, 0.2, 0.5, 0.999, 1.0):
        check_trim("magnitude_prune", delta, density, "exact")
        check_trim("magnitude_prune", delta, density, "inclusive")


@pytest.mark.parametrize("kind", ["equal", "two values", "powers"])
def test_over_several_units_of_work(kind: str) -> None:
    delta = adversarial(kind, UNITS)
    check_trim("magnitude_prune", delta, 0.6, "exact")
    check_trim("magnitude_prune", delta, 0.6, "inclusive")


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("size", [1, 7, 1001])
def test_preset_drops_all_up_to_the_threshold(kind: str, size: int) -> None:
    """merge_lm: the floor(D (1 - density)) smallest go, and everything equal to the last of them."""
    delta = adversarial(kind, size)
    for density in (0.3, 0.5, 0.75, 1.0):
        vector = changed("magnitude_prune", np.zeros(size, np.float32), delta, density=density, compat="merge_lm")
        magnitude = np.abs(widen(delta))
        dropped = int((1.0 - density) * size)
        threshold = np.sort(magnitude)[dropped - 1] if dropped else -1.0
        assert np.array_equal(vector, np.where(magnitude > threshold, widen(delta), 0.0))


def test_rescaling() -> None:
    """inverse: 1/density; l1: the sum of magnitudes is that of the whole task vector."""
    base = np.zeros(10_001, np.float32)
    model = np.random.default_rng(5).standard_normal(10_001).astype(np.float32)
    bare = changed("magnitude_prune", base, model, density=0.25)
    assert np.count_nonzero(bare) == 2500
    assert np.array_equal(changed("magnitude_prune", base, model, density=0.25, rescale="inverse"), 4.0 * bare)
    scaled = changed("magnitude_prune", base, model, density=0.25, rescale="l1")
    assert np.abs(scaled).sum() == pytest.approx(np.abs(widen(model)).sum(), rel=1e-12)
    factor = np.abs(widen(model)).sum() / np.abs(bare).sum()
    np.testing.assert_allclose(scaled, factor * bare, rtol=1e-12)


def test_equal_magnitudes_of_several_models() -> None:
    base, models = grid_models(np.random.default_rng(2), 4, 900)
    for trim in ("exact", "inclusive"):
        check_method("magnitude_prune", models, base, density=[0.1, 0.4, 0.7, 1.0], trim=trim, weight=0.5)


def test_density_one_is_task_arithmetic() -> None:
    base, models = grid_models(np.random.default_rng(3), 3, 500)
    whole, _ = merge("magnitude_prune", models, base, density=1.0, weight=0.5)
    assert same_bytes(whole, merge("task_arithmetic", models, base, weight=0.5)[0])


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    weight = dyadic_weights(count, seed)
    check_permutation("magnitude_prune", seed, count, size, F32, per_model=("weight",), weight=weight, density=0.5)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("magnitude_prune", seed, count, size, exponent)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("magnitude_prune", seed, count, size, dtype)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("magnitude_prune", seed, count, size, dtype, density=1.0, normalize=True)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("magnitude_prune", models, base, density=0.4, weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("magnitude_prune", models, base, density=0.3, weight=0.25)
        check_threads("magnitude_prune", models, base, density=0.3, trim="inclusive", rescale="l1", weight=0.25)
