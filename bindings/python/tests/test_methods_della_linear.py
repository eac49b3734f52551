"""della_linear: the library against its reference, rates by rank within rows, and rescaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import della, philox
from reference.arrays import BF16, F16, F32, F64, random_models, same_bytes, widen
from reference.checks import (
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
from reference.task_vector_checks import (
    NAME,
    changed,
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    dyadic_weights,
    grid_models,
)

METHOD = "della_linear"
SHAPES = [(40, 33), (33, 40), (1, 500), (500, 1), (6, 5, 3, 3), (4, 7, 9), ()]


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size, positive=True)
    given: dict[str, Any] = {"rescale": "none", "weight": weight, "random_seed": size}
    check_method(METHOD, models, base, density=0.6, **given)
    check_method(METHOD, models, base, density=0.5, epsilon=-0.4, **given)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
@pytest.mark.parametrize("compat", ["none", "mergekit"])
def test_rows(shape: tuple[int, ...], dtype: np.dtype[Any], compat: str) -> None:
    """Ranks within rows; of equal magnitudes, on a grid, the first is the smaller one."""
    for make in (random_models, grid_models):
        base, models = make(np.random.default_rng(sum(shape)), 2, shape, dtype)
        given: dict[str, Any] = {"rescale": "none", "weight": 0.5, "compat": compat, "epsilon": [0.3, 0.1]}
        check_method(METHOD, models, base, density=[0.5, 0.8], **given)


@pytest.mark.parametrize("rescale", ["l1", "inverse"])
def test_rescale(rescale: str) -> None:
    base, models = random_models(np.random.default_rng(4), 3, (30, 40), F32)
    slack = 20.0 * reduction([*models, base], F32)
    _, report = check_method(METHOD, models, base, coefficients=slack, density=0.5, rescale=rescale)
    expected = 2.0 if rescale == "inverse" else pytest.approx([1.75] * 3, abs=0.2)
    assert report["rescale"] == ([expected] * 3 if rescale == "inverse" else expected)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method(METHOD, models, base, density=[0.3, 0.5, 0.8], rescale="none", dtype=dtype)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.45), (0.3, 0.2), (0.6, -0.3)])
def test_rates_by_rank(density: float, epsilon: float) -> None:
    """In every quarter of the ranks within rows: the mean chance, to five deviations."""
    shape = (256, 128)
    model = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    kept = changed(METHOD, np.zeros(shape, np.float32), model, density=density, epsilon=epsilon, rescale="none") != 0.0
    quarter = 4 * np.argsort(np.argsort(np.abs(model), axis=1), axis=1) // shape[1]
    for index in range(4):
        wanted = density + epsilon * (2 * index + 1 - 4) / 4
        rate = kept[quarter == index].mean()
        assert abs(rate - wanted) < 5.0 * (wanted * (1 - wanted) / (kept.size / 4)) ** 0.5 + abs(epsilon) / shape[1]


def test_documented_stream() -> None:
    """The words of docs/masks.md decide, model by model."""
    shape = (20, 30)
    model = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    base = np.zeros(shape, np.float32)
    for index in (0, 2):
        models = [base.copy() for _ in range(3)]
        models[index] = model
        given: dict[str, Any] = {"density": 0.5, "epsilon": 0.3, "rescale": "none", "random_seed": 9}
        vector, _ = merge(METHOD, models, base, name=NAME, output="task_vector", dtype=F64, **given)
        chance = della.chances(widen(model).reshape(-1), della.rows_of(shape), 0.5, 0.3, wide=False)
        kept = philox.kept(NAME, model.size, index, 9, chance).reshape(shape)
        assert np.array_equal(vector, np.where(kept, widen(model), 0.0))


def test_densities_at_the_ends() -> None:
    """1 drops nothing and 0 everything, whatever epsilon."""
    base, models = random_models(np.random.default_rng(2), 3, (20, 30), F32)
    assert same_bytes(merge(METHOD, models, base, density=0.0)[0], base)
    whole, _ = merge(METHOD, models, base, density=1.0, weight=0.5)
    other = "dare_linear" if METHOD == "della_linear" else "ties"
    assert same_bytes(whole, merge(other, models, base, density=1.0, weight=0.5)[0])


def test_a_row_of_one_element_has_the_density_for_its_chance() -> None:
    model = np.ones((20_000, 1), np.float32)
    kept = changed(METHOD, np.zeros_like(model), model, density=0.3, rescale="none") != 0.0
    assert abs(kept.mean() - 0.3) < 5.0 * (0.21 / kept.size) ** 0.5


def test_int8_mask_changes_nothing() -> None:
    base, models = random_models(np.random.default_rng(5), 2, 400, F32)
    plain, _ = merge(METHOD, models, base, density=0.5)
    assert same_bytes(merge(METHOD, models, base, density=0.5, int8_mask=True)[0], plain)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation_without_dropping(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    weight = dyadic_weights(count, seed, positive=True)
    check_permutation(METHOD, seed, count, size, dtype, per_model=("weight",), weight=weight)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20), st.sampled_from(["l1", "inverse", "none"]))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int, rescale: str) -> None:
    check_scaling(METHOD, seed, count, size, exponent, density=0.5, rescale=rescale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change(METHOD, seed, count, size, dtype, density=0.5)
    check_equal_models(METHOD, seed, 1, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector(METHOD, models, base, density=0.5, rescale="inverse", weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        for shape in ((UNITS,), (701, 300)):
            base, models = random_models(np.random.default_rng(2), 3, shape, dtype)
            check_threads(METHOD, models, base, density=0.5, rescale=True)


def test_refusals() -> None:
    """density +- epsilon has to be inside (0, 1); at density 1 and 0 epsilon means nothing."""
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    for density, epsilon in ((0.1, 0.15), (0.9, 0.1), (0.9, -0.2)):
        with pytest.raises(sp.ParameterError, match="epsilon"):
            sp.merge_tensors(METHOD, models, base, density=density, epsilon=epsilon)
    sp.merge_tensors(METHOD, models, base, density=[1.0, 0.0], epsilon=0.5)
