"""iso_c: the library against its reference, the spectrum of its result, and directions that are not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reference import iso_c, vectors
from reference.arrays import BF16, F32, F64, random_models
from reference.checks import check_threads, merge
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
    check_transposition,
    check_weights,
    low_rank_models,
    task_vector,
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_reference(shape: tuple[int, int], count: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count), count, shape, dtype, common=0.05)
    check_spectral("iso_c", models, base)
    check_spectral("iso_c", models, base, weight=[0.5 + index for index in range(count)], lambda_=0.7)
    check_weights("iso_c", models, base)


def test_vectors() -> None:
    vector = task_vector("iso_c", list(vectors.MODELS), vectors.BASE)
    np.testing.assert_allclose(vector, vectors.ISO_C, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (30, 30)], ids=str)
def test_all_singular_values_are_their_mean(shape: tuple[int, int]) -> None:
    base, models = random_models(np.random.default_rng(1), 4, shape, F32)
    found = np.linalg.svd(task_vector("iso_c", models, base), compute_uv=False)
    total = np.sum([model.astype(np.float64) - base for model in models], axis=0)
    mean = np.linalg.svd(total, compute_uv=False).mean()
    np.testing.assert_allclose(found, mean, rtol=1e-5)


def test_a_matrix_of_a_model() -> None:
    """1024 x 4096, against the polar factor by eigenvalues of the smaller Gram matrix; the reference's SVD is slow."""
    rng = np.random.default_rng(2)
    base = np.zeros((1024, 4096), np.float32)
    models = [0.02 * rng.standard_normal((1024, 4096), np.float32) for _ in range(2)]
    total = models[0].astype(np.float64) + models[1]
    squares, left = np.linalg.eigh(total @ total.T)
    sigma = np.sqrt(squares)
    expected = sigma.mean() * (left @ ((left.T @ total) / sigma[:, None]))
    vector, _ = merge("iso_c", models, base, output="task_vector")
    assert_close(vector.astype(np.float64), expected)


@pytest.mark.parametrize(("shape", "rank"), [((40, 30), 5), ((30, 40), 29), ((24, 24), 1)])
def test_directions_that_are_not_there(shape: tuple[int, int], rank: int) -> None:
    """drop: as many singular values as there are, each the mean over all; complete: all of them."""
    base, models = low_rank_models(np.random.default_rng(3), 1, shape, rank)
    smaller = min(shape)
    mean = np.linalg.svd(models[0], compute_uv=False).sum() / smaller
    dropped = np.linalg.svd(check_spectral("iso_c", models, base), compute_uv=False)
    np.testing.assert_allclose(dropped[:rank], mean, rtol=1e-6)
    assert dropped[rank:].max(initial=0.0) < 1e-6 * mean
    completed = task_vector("iso_c", models, base, null_space="complete")
    np.testing.assert_allclose(np.linalg.svd(completed, compute_uv=False), mean, rtol=1e-6)
    left, _, right = np.linalg.svd(models[0])
    kept = left[:, :rank].T @ completed @ right[:rank].T
    np.testing.assert_allclose(kept, left[:, :rank].T @ (mean * left[:, :rank]), rtol=0.0, atol=1e-6 * mean)


def test_tolerance() -> None:
    """Singular values 1, 1e-2, 1e-4: kept down to the tolerance; the mean counts what is dropped as 0."""
    base = np.zeros((5, 3))
    model = np.zeros((5, 3))
    model[[0, 1, 2], [0, 1, 2]] = 1.0, 1e-2, 1e-4
    for tolerance, rank in ((1e-6, 3), (1e-3, 2), (0.5, 1)):
        vector = task_vector("iso_c", [model], base, tolerance=tolerance)
        expected = np.zeros((5, 3))
        expected[range(rank), range(rank)] = sum((1.0, 1e-2, 1e-4)[:rank]) / 3.0
        np.testing.assert_allclose(vector, expected, rtol=0.0, atol=1e-6)


def test_equal_and_opposite_task_vectors() -> None:
    """N equal ones have N times the spectrum of one; a sum of zero gives the base."""
    base, models = random_models(np.random.default_rng(4), 1, (30, 20), F32)
    one = task_vector("iso_c", models, base)
    assert_close(task_vector("iso_c", models * 3, base), 3.0 * one)
    grid = np.arange(600, dtype=np.float32).reshape(30, 20) / 64
    merged, _ = merge("iso_c", [grid + 1, grid - 1], grid)
    assert np.array_equal(merged, grid)


def test_one_model_is_not_copied() -> None:
    """Its own spectrum is levelled too."""
    base, models = random_models(np.random.default_rng(5), 1, (30, 20), F64)
    expected = iso_c.combine([models[0] - base])
    assert_close(task_vector("iso_c", models, base), expected)
    assert np.abs(expected - (models[0] - base)).max() > 0.01


def test_what_is_not_a_matrix() -> None:
    check_not_matrices("iso_c")
    check_exclusion_is_by_name("iso_c")
    check_convolutions("iso_c")


def test_invariances() -> None:
    check_permutation("iso_c")
    check_signs("iso_c")
    check_transposition("iso_c")
    check_scale("iso_c")


def test_nothing_to_merge() -> None:
    check_nothing_to_merge("iso_c")


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, (90, 70), dtype)
        check_threads("iso_c", models, base)


def test_settings_that_are_refused() -> None:
    check_refused("iso_c", tolerance=-1.0, null_space="keep")
