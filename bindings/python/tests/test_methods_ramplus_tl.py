"""ramplus_tl: the library against its reference, and how own changes grow with what is shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

import stockpot as sp
from reference import ramplus_tl, task_vectors
from reference.arrays import BF16, F32, F64, random_models, same_bytes
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
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import check_method, check_permutation, check_task_vector, grid_models


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = grid_models(np.random.default_rng(count * 1000 + size), count, size, dtype, levels=2)
    for chosen in ({}, {"epsilon": 1.5 / 64, "r": 0.5, "alpha": 3.0}, {"alpha": 0.01, "lambda_": 0.5}):
        _, report = check_method("ramplus_tl", models, base, **chosen)
        own = {key: value for key, value in chosen.items() if key != "lambda_"}
        settings = {"epsilon": 1e-5, "r": 0.1, "alpha": 0.2, **own}
        expected = ramplus_tl.factors(task_vectors.task_vectors(models, base), **settings)
        assert report["factors"] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("ramplus_tl", models, base, epsilon=0.0, dtype=dtype)


def test_factors() -> None:
    """One change of its own and two shared: the ratio 2, cut off at alpha; nothing shared: 1; nothing own: 1."""
    base = np.zeros(5)
    models = [np.array([1.0, 1, 1, 0, 0]), np.array([0.0, 1, 1, 0, 0]), np.array([0.0, 0, 0, 8, 8])]
    merged, report = merge("ramplus_tl", models, base, r=0.5, alpha=10.0)
    assert report["factors"] == [2.0, 1.0, 1.0]
    assert merged.tolist() == [2.0, 1.0, 1.0, 8.0, 8.0]
    assert merge("ramplus_tl", models, base, r=0.5, alpha=0.5)[1]["factors"][0] == 1.25


def test_without_growth_it_is_ram() -> None:
    base, models = random_models(np.random.default_rng(3), 4, 500, F32)
    for chosen in ({"r": 0.0}, {"alpha": 0.0}):
        plus, _ = merge("ramplus_tl", models, base, epsilon=0.2, **chosen)
        assert same_bytes(plus, merge("ram", models, base, epsilon=0.2)[0])


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_permutation(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_permutation("ramplus_tl", seed, count, size, dtype, epsilon=0.0)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("ramplus_tl", seed, count, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("ramplus_tl", models, base, epsilon=0.0)


def test_threads() -> None:
    for dtype in (F32, F64, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("ramplus_tl", models, base, epsilon=0.1)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("ramplus_tl", models, base, alpha=-1.0)
