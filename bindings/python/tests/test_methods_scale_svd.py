"""scale_svd: the library against its reference, what is kept of a matrix, and the merge that follows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from reference import scale_svd, vectors
from reference.arrays import BF16, F32, F64, random_models, read_checkpoint, write_safetensors
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
    check_spectral,
    low_rank_models,
    task_vector,
)

RELATIVE = 1e-4
"""Ten decompositions in a row, each of what the one before left."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_reference(shape: tuple[int, int], count: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count), count, shape, dtype, common=0.05)
    check_spectral("scale_svd", models, base, relative=RELATIVE)
    given = {"sparsity": 0.4, "rank_ratio": 0.5, "num_iters": 3, "weight": 0.5, "lambda_": 0.7}
    check_spectral("scale_svd", models, base, relative=RELATIVE, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"mask_strategy": "global"},
        {"mask_strategy": "n:m", "prune_n": 2, "prune_m": 4},
        {"mask_strategy": "n:m", "prune_n": 1, "prune_m": 5},
        {"target_rank": 4, "unstruct_sparse": 0.7},
        {"target_rank": 4, "prune_n": 2, "prune_m": 4},
        {"refit": True},
        {"rank_ratio": 1.0},
        {"rank_ratio": 0.0},
        {"sparsity": 0.0},
        {"num_iters": 1},
    ],
    ids=str,
)
def test_variants(given: dict[str, Any]) -> None:
    base, models = random_models(np.random.default_rng(1), 2, (24, 20), F32)
    check_spectral("scale_svd", models, base, relative=RELATIVE, **given)


@pytest.mark.parametrize("then", ["sum", "mean", "iso_c", "iso_cts", "tsvm", "ties"])
def test_merges_that_follow(then: str) -> None:
    base, models = random_models(np.random.default_rng(2), 3, (24, 20), F64)
    check_spectral("scale_svd", models, base, relative=RELATIVE, then=then)
    mean = {"sum": "sum"}.get(then, "mean")
    if then != "ties":
        check_not_matrices("scale_svd", mean, then=then)


def test_ties_of_what_is_not_a_matrix() -> None:
    base, models = random_models(np.random.default_rng(3), 3, (400,), F64)
    vector = task_vector("scale_svd", models, base, then="ties")
    expected, _ = merge("ties", models, base, density=0.2, output="task_vector")
    assert_close(vector, expected, 1e-12)


def test_vectors() -> None:
    """With a statistic by name, from a file."""
    low, sparse = scale_svd.low_rank_plus_sparse(vectors.DELTAS[0], vectors.SCALE_SVD_STATISTIC)
    np.testing.assert_allclose(low + sparse, vectors.SCALE_SVD_ROW, rtol=0.0, atol=vectors.ATOL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("mask_strategy", "expected"), [("row", vectors.SCALE_SVD_ROW), ("global", vectors.SCALE_SVD_GLOBAL)]
)
def test_statistics_from_a_file(mask_strategy: str, expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """Second moments by the tensor's name; a tensor without, or of another length, is compressed as it is."""
    names = {"w": vectors.SCALE_SVD_STATISTIC, "long": np.ones(7)}
    write_safetensors(tmp_path / "moments.safetensors", names)
    tensors = ("w", "long", "none")
    sp.save(dict.fromkeys(tensors, vectors.BASE), tmp_path / "base")
    sp.save(dict.fromkeys(tensors, vectors.MODELS[0]), tmp_path / "model")
    recipe = {
        "merge_method": "scale_svd",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "model")}],
        "parameters": {"statistics": str(tmp_path / "moments.safetensors"), "mask_strategy": mask_strategy},
    }
    sp.merge(recipe, tmp_path / "out", progress=False)
    merged = read_checkpoint(tmp_path / "out")
    np.testing.assert_allclose(merged["w"] - vectors.BASE, expected, rtol=0.0, atol=1e-8)
    low, sparse = scale_svd.low_rank_plus_sparse(vectors.DELTAS[0], mask_strategy=mask_strategy)
    for name in ("long", "none"):
        np.testing.assert_allclose(merged[name] - vectors.BASE, low + sparse, rtol=0.0, atol=1e-8)


def test_what_is_kept() -> None:
    """The error never grows with the iterations; a full rank keeps everything; so does dropping nothing."""
    rng = np.random.default_rng(4)
    base = np.zeros((30, 24))
    model = rng.standard_normal((30, 24))
    errors = [
        np.linalg.norm(task_vector("scale_svd", [model], base, num_iters=steps) - model) for steps in (1, 2, 4, 8, 16)
    ]
    assert all(later <= earlier * (1.0 + 1e-9) for earlier, later in pairwise(errors))
    assert_close(task_vector("scale_svd", [model], base, target_rank=24), model)
    assert_close(task_vector("scale_svd", [model], base, unstruct_sparse=0.0), model)


def test_low_rank_matrices_are_kept() -> None:
    """A matrix of a rank within the budget is its own low-rank part."""
    base, models = low_rank_models(np.random.default_rng(5), 1, (40, 30), 3)
    assert_close(task_vector("scale_svd", models, base), models[0])


def test_sparse_matrices_are_kept() -> None:
    """Rank 1 and few large entries: the low-rank part takes the one, the sparse part the other."""
    rng = np.random.default_rng(6)
    base = np.zeros((30, 40))
    model = 1e-3 * np.outer(rng.standard_normal(30), rng.standard_normal(40))
    model[np.arange(30), rng.integers(0, 40, 30)] += 1.0
    vector = task_vector("scale_svd", [model], base, target_rank=1, unstruct_sparse=0.9, num_iters=20)
    assert np.abs(vector - model).max() < 1e-2


def test_what_is_not_a_matrix() -> None:
    check_exclusion_is_by_name("scale_svd")
    check_convolutions("scale_svd")


def test_invariances() -> None:
    check_permutation("scale_svd")
    check_scale("scale_svd")


def test_nothing_to_merge() -> None:
    check_nothing_to_merge("scale_svd")


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, (60, 50), dtype)
        check_threads("scale_svd", models, base)


def test_settings_that_are_refused() -> None:
    check_refused("scale_svd", sparsity=1.5, rank_ratio=-0.1, num_iters=-1, then="slerp", mask_strategy="column")
