"""Iso-C on large float32 matrices takes polar factors by iteration (PolarIteration.swift): LAPACK in float64 agrees."""

from __future__ import annotations

import numpy as np
import pytest

import stockpot as sp

# 1e-5 of the largest element is what is promised; one sum of 256 to 1024 products in binary32 is about 1e-6.
PROMISED = 1e-5


def with_spectrum(shape: tuple[int, int], sigma: np.ndarray, seed: int = 0) -> np.ndarray:
    """A float32 matrix [m, n] with these singular values, but for float32's rounding."""
    rng = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    return ((u * sigma) @ vt).astype(np.float32)


def iso_c(matrix: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
    """The task vector of one model on a base of zeros, and what the method decided."""
    merged, report = sp.merge_tensors(
        "iso_c", [matrix], np.zeros_like(matrix), output="task_vector", return_report=True
    )
    return np.asarray(merged, np.float64), report


def expected(matrix: np.ndarray, tolerance: float = 1e-6) -> tuple[np.ndarray, int]:
    """mean(sigma) U Vt of the singular values above the tolerance, and how many those are."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    keep = s > tolerance * s[0]
    return s[keep].sum() / s.size * (u[:, keep] @ vt[keep]), int(keep.sum())


def check(matrix: np.ndarray, bound: float = PROMISED) -> None:
    """Compare, by the largest element."""
    found, _ = iso_c(matrix)
    want, _ = expected(matrix)
    assert np.abs(found - want).max() <= bound * np.abs(want).max()


SHAPES = [(256, 256), (256, 300), (300, 1200), (1200, 300), (192, 193), (1024, 1024)]


@pytest.mark.parametrize("shape", SHAPES)
def test_random_matrices(shape: tuple[int, int]) -> None:
    """Square ones have a condition of some thousands, oblong ones of a few."""
    check(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("condition", [1.0, 1.5, 15.0, 19.9, 20.1, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("shape", [(256, 256), (260, 700), (700, 260)])
def test_given_conditions(shape: tuple[int, int], condition: float) -> None:
    """Both kinds of start, at and around their border; 1: all singular values are equal."""
    check(with_spectrum(shape, np.geomspace(1, 1 / condition, min(shape))))


def test_clusters_of_equal_singular_values() -> None:
    """Equal ones, in two heaps and one apart."""
    check(with_spectrum((256, 400), np.repeat([1.0, 1e-2, 1e-3], [200, 55, 1])))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scales(scale: float) -> None:
    """Far from 1, as binary32 allows."""
    check((np.random.default_rng(2).standard_normal((256, 320)) * scale).astype(np.float32))


@pytest.mark.parametrize("rank", [1, 40, 255])
def test_missing_directions_are_left_out(rank: int) -> None:
    """Of low rank exactly: columns of zeros. The rank decides, and the result is a multiple of a partial isometry."""
    matrix = np.zeros((256, 500), np.float32)
    matrix[:, :rank] = np.random.default_rng(3).standard_normal((256, rank))
    found, report = iso_c(matrix)
    want, kept = expected(matrix)
    assert kept == rank
    assert report["rank"] == rank
    assert np.abs(found - want).max() <= PROMISED * np.abs(want).max()


def test_directions_near_the_tolerance_are_told_apart() -> None:
    """Diagonal, so that float32 does not disturb the small ones: one is below the tolerance of 1e-6 and two above."""
    sigma = np.linspace(1, 0.5, 256)
    sigma[-4:] = [1e-4, 4e-6, 1.1e-6, 0.9e-6]
    matrix = np.diag(sigma).astype(np.float32)
    found, report = iso_c(matrix)
    want, kept = expected(matrix)
    assert kept == 255
    assert report["rank"] == 255
    assert np.abs(found - want).max() <= PROMISED * np.abs(want).max()


def test_what_is_reported() -> None:
    """The sum to float32's digits; the condition within the few percent of the power method."""
    _, report = iso_c(with_spectrum((256, 600), np.concatenate([[2.0], np.linspace(1, 0.5, 254), [0.1]])))
    assert report["rank"] == 256
    assert abs(float(str(report["singular_value_sum"])) / (2.1 + 0.75 * 254) - 1) < 1e-5
    assert abs(float(str(report["condition"])) / 20 - 1) < 0.05
