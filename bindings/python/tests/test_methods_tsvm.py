"""tsvm: the library against its reference, shares of the rank, and task vectors that share directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reference import vectors
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
    check_spectral("tsvm", models, base)
    check_spectral("tsvm", models, base, weight=[0.5 + index for index in range(count)], lambda_=0.7)
    check_weights("tsvm", models, base)


@pytest.mark.parametrize("variant", ["standard", "eigen", "lossless"])
@pytest.mark.parametrize("shape", [(24, 24), (48, 32), (32, 48)], ids=str)
def test_variants(variant: str, shape: tuple[int, int]) -> None:
    base, models = random_models(np.random.default_rng(1), 3, shape, F32, common=0.05)
    vector = check_spectral("tsvm", models, base, variant=variant)
    if variant == "eigen":  # the same by another algorithm
        assert_close(vector, task_vector("tsvm", models, base))


def test_vectors() -> None:
    for variant in ("standard", "eigen"):
        vector = task_vector("tsvm", list(vectors.MODELS), vectors.BASE, variant=variant)
        np.testing.assert_allclose(vector, vectors.TSVM, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("variant", ["standard", "lossless"])
def test_one_model_is_its_own_singular_vectors(variant: str) -> None:
    base, models = random_models(np.random.default_rng(2), 1, (30, 20), F32)
    assert_close(task_vector("tsvm", models, base, variant=variant), models[0].astype(np.float64) - base)


def test_rank_and_singular_values() -> None:
    """Orthogonal factors: the singular values are those of all the tasks, floor(r / N) of each."""
    base, models = random_models(np.random.default_rng(3), 3, (40, 32), F32)
    found = np.linalg.svd(task_vector("tsvm", models, base), compute_uv=False)
    share = 32 // 3
    own = [np.linalg.svd(model.astype(np.float64) - base, compute_uv=False)[:share] for model in models]
    expected = np.sort(np.concatenate(own))[::-1]
    np.testing.assert_allclose(found[: 3 * share], expected, rtol=1e-5)
    assert found[3 * share :].max() < 1e-6 * found[0]


def test_more_models_than_rank() -> None:
    """There is no share for anyone: the mean, which is told; the public code gives the base."""
    base, models = random_models(np.random.default_rng(4), 5, (4, 30), F32)
    deltas = [model.astype(np.float64) - base for model in models]
    assert_close(task_vector("tsvm", models, base), np.mean(deltas, axis=0))
    _, report = merge("tsvm", models, base)
    assert "averaged" in report["warnings"][0]
    assert not task_vector("tsvm", models, base, compat="fusion_bench").any()


def test_equal_task_vectors() -> None:
    """N equal ones give the leading part that they share."""
    base, models = random_models(np.random.default_rng(5), 1, (24, 20), F64)
    left, sigma, right = np.linalg.svd(models[0] - base, full_matrices=False)
    for count in (2, 3):
        share = 20 // count
        vector = check_spectral("tsvm", models * count, base)
        top = left[:, :share] @ (sigma[:share, None] * right[:share])
        assert_close(vector, top)


def test_a_zero_task_vector() -> None:
    """It takes its share of the rank, but no direction; LAPACK's choice for it is what the public code adds."""
    base, models = random_models(np.random.default_rng(6), 2, (24, 20), F64)
    with_zero = [*models, base.copy()]
    vector = check_spectral("tsvm", with_zero, base)
    assert np.linalg.matrix_rank(vector, tol=1e-6 * np.abs(vector).max()) == 2 * (20 // 3)
    public = check_spectral("tsvm", with_zero, base, compat="fusion_bench")
    assert np.abs(public - vector).max() > 0.01 * np.abs(vector).max()


def test_low_rank_task_vectors() -> None:
    """Rank 2 of each, of which the share would be 10: the sum, when the directions do not overlap much."""
    base, models = low_rank_models(np.random.default_rng(7), 2, (60, 20), 2)
    vector = check_spectral("tsvm", models, base)
    assert np.linalg.matrix_rank(vector, tol=1e-6 * np.abs(vector).max()) == 4


def test_what_is_not_a_matrix() -> None:
    check_not_matrices("tsvm")
    check_exclusion_is_by_name("tsvm")
    check_convolutions("tsvm")


def test_invariances() -> None:
    check_permutation("tsvm")
    check_signs("tsvm")
    check_transposition("tsvm")
    check_scale("tsvm")


def test_nothing_to_merge() -> None:
    check_nothing_to_merge("tsvm")


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, (90, 70), dtype)
        check_threads("tsvm", models, base)


def test_settings_that_are_refused() -> None:
    check_refused("tsvm", variant="lossless_eigen", compat="mergekit")
