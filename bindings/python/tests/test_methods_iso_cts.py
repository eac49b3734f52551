"""iso_cts: the library against its reference, how many directions each task gets, and Iso-C as its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reference import iso_cts, vectors
from reference.arrays import BF16, F32, F64, random_models
from reference.checks import check_threads
from reference.spectral_checks import (
    SHAPES,
    TYPES,
    assert_close,
    check_convolutions,
    check_exclusion_is_by_name,
    check_not_matrices,
    check_nothing_to_merge,
    check_permutation,
    check_refused,
    check_scale,
    check_signs,
    check_spectral,
    check_weights,
    low_rank_models,
    task_vector,
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_reference(shape: tuple[int, int], count: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count), count, shape, dtype, common=0.05)
    check_spectral("iso_cts", models, base)
    check_spectral("iso_cts", models, base, common_space_fraction=0.5, weight=0.75, lambda_=0.7)
    check_weights("iso_cts", models, base, common_space_fraction=0.3)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_fractions(fraction: float, count: int) -> None:
    base, models = random_models(np.random.default_rng(count), count, (36, 28), F32, common=0.05)
    check_spectral("iso_cts", models, base, common_space_fraction=fraction)


def test_sizes() -> None:
    """Rounded half to even, a multiple of the count, and never beyond the rank."""
    assert iso_cts.sizes(768, 8, 0.8) == (616, 19)
    assert iso_cts.sizes(768, 20, 0.8) == (608, 8)
    assert iso_cts.sizes(4096, 3, 0.8) == (3277, 273)
    assert iso_cts.sizes(11, 4, 0.0) == (3, 2)
    assert iso_cts.sizes(3, 3, 0.8) == (3, 0)


def test_no_room_for_tasks_is_iso_c() -> None:
    base, models = random_models(np.random.default_rng(1), 3, (30, 20), F32)
    plain = task_vector("iso_c", models, base)
    assert_close(task_vector("iso_cts", models, base, common_space_fraction=1.0), plain)
    narrow, thin = random_models(np.random.default_rng(1), 5, (30, 2), F32)
    assert_close(task_vector("iso_cts", thin, narrow), task_vector("iso_c", thin, narrow))


def test_more_models_than_directions() -> None:
    """Eleven directions, no common space asked for, four tasks: two each, and three in common."""
    base, models = random_models(np.random.default_rng(2), 4, (11, 17), F32)
    vector = check_spectral("iso_cts", models, base, common_space_fraction=0.0)
    assert np.linalg.matrix_rank(vector) == 11


def test_vectors() -> None:
    pair = task_vector("iso_cts", list(vectors.MODELS[:2]), vectors.BASE, common_space_fraction=0.4)
    np.testing.assert_allclose(pair, vectors.ISO_CTS_PAIR, rtol=0.0, atol=1e-8)
    three = task_vector("iso_cts", list(vectors.MODELS), vectors.BASE, common_space_fraction=0.8)
    np.testing.assert_allclose(three, vectors.ISO_C, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_all_singular_values_are_their_mean(fraction: float) -> None:
    base, models = random_models(np.random.default_rng(3), 3, (30, 24), F32)
    deltas = [model.astype(np.float64) - base for model in models]
    common, own = iso_cts.sizes(24, 3, fraction)
    left, sigma, _ = np.linalg.svd(np.sum(deltas, axis=0), full_matrices=False)
    shared = left[:, :common]
    rests = [np.linalg.svd(d - shared @ (shared.T @ d), compute_uv=False)[:own] for d in deltas]
    mean = (sigma[:common].sum() + np.sum(rests)) / 24
    found = np.linalg.svd(task_vector("iso_cts", models, base, common_space_fraction=fraction), compute_uv=False)
    np.testing.assert_allclose(found, mean, rtol=1e-5)


def test_directions_that_are_not_there() -> None:
    """Task vectors of rank 2 fill no more than their own directions, whatever share is asked for."""
    base, models = low_rank_models(np.random.default_rng(4), 2, (30, 24), 2)
    vector = check_spectral("iso_cts", models, base, common_space_fraction=0.5)
    assert np.linalg.matrix_rank(vector, tol=1e-6 * np.abs(vector).max()) == 4


def test_a_zero_task_vector() -> None:
    """It has no directions of its own, and the others do not notice it but for their share."""
    base, models = random_models(np.random.default_rng(5), 2, (24, 20), F64)
    vector = check_spectral("iso_cts", [*models, base.copy()], base, common_space_fraction=0.5)
    common, own = iso_cts.sizes(20, 3, 0.5)
    assert np.linalg.matrix_rank(vector, tol=1e-6 * np.abs(vector).max()) == common + 2 * own


def test_equal_task_vectors() -> None:
    """Off the common space all of them have the same directions, which are counted once."""
    base, models = random_models(np.random.default_rng(6), 1, (24, 20), F64)
    vector = check_spectral("iso_cts", models * 3, base, common_space_fraction=0.5)
    common, own = iso_cts.sizes(20, 3, 0.5)
    assert np.linalg.matrix_rank(vector, tol=1e-6 * np.abs(vector).max()) == common + own


def test_what_is_not_a_matrix() -> None:
    check_not_matrices("iso_cts", common_space_fraction=0.5)
    check_exclusion_is_by_name("iso_cts", common_space_fraction=0.5)
    check_convolutions("iso_cts", common_space_fraction=0.5)


def test_invariances() -> None:
    check_permutation("iso_cts", common_space_fraction=0.5)
    check_signs("iso_cts", common_space_fraction=0.5)
    check_scale("iso_cts", common_space_fraction=0.5)


def test_nothing_to_merge() -> None:
    check_nothing_to_merge("iso_cts", common_space_fraction=0.5)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, (90, 70), dtype)
        check_threads("iso_cts", models, base, common_space_fraction=0.5)


def test_settings_that_are_refused() -> None:
    check_refused("iso_cts", tolerance=-1.0, null_space="keep", common_space_fraction=1.5)
