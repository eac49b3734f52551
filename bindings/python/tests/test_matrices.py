"""The linear algebra of one matrix, against numpy.linalg in float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stockpot as sp

pytestmark = pytest.mark.usefixtures("library")

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 5), (12, 30), (30, 12), (80, 80), (70, 200), (200, 70)]


def matrix(m: int, n: int, seed: int = 0, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if rank is not None:
        return rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    return rng.standard_normal((m, n))


def polar(a: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    keep = s > tolerance * s[0]
    return u[:, keep] @ vt[keep]


def conditioned(m: int, n: int, condition: float, seed: int = 0) -> np.ndarray:
    u, s, vt = np.linalg.svd(matrix(m, n, seed), full_matrices=False)
    return (u * np.geomspace(1.0, 1.0 / condition, s.size)) @ vt


class TestPolarFactor:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_agrees_with_the_decomposition(self, shape: tuple[int, int]) -> None:
        a = conditioned(*shape, 100.0)
        for null_space in ("drop", "complete"):
            # 100 ** 2 units of rounding is what the Gram matrix may lose.
            np.testing.assert_allclose(sp.polar_factor(a, null_space=null_space), polar(a), atol=1e-11)

    @pytest.mark.parametrize("condition", [1e3, 1e5, 5e5])
    def test_float64_keeps_its_digits(self, condition: float) -> None:
        a = conditioned(90, 110, condition)
        np.testing.assert_allclose(sp.polar_factor(a), polar(a), atol=1e-9)

    @pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
    def test_type_and_rounding(self, dtype: Any) -> None:
        a = matrix(80, 100).astype(dtype)
        q = sp.polar_factor(a)
        assert q.dtype == a.dtype
        wide = polar(a.astype(np.float64))
        limits = ml_dtypes.finfo(dtype)
        # One rounding, the coarser one of subnormals too, and what the Gram matrix may lose.
        atol = 1e-9 + float(limits.smallest_subnormal) / 2
        np.testing.assert_allclose(q.astype(np.float64), wide, rtol=float(limits.eps) / 2, atol=atol)

    @pytest.mark.parametrize("shape", [(9, 14), (80, 90), (90, 80)])
    def test_null_space(self, shape: tuple[int, int]) -> None:
        a = matrix(*shape, rank=4)
        q = sp.polar_factor(a)
        np.testing.assert_allclose(q, polar(a), atol=1e-10)
        assert np.linalg.matrix_rank(q) == 4
        whole = sp.polar_factor(a, null_space="complete")
        small = whole @ whole.T if shape[0] < shape[1] else whole.T @ whole
        np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-12)
        np.testing.assert_array_equal(sp.polar_factor(np.zeros(shape)), np.zeros(shape))

    def test_tolerance(self) -> None:
        a = np.diag([1.0, 1e-2, 1e-4])
        assert np.trace(sp.polar_factor(a, tolerance=1e-3)) == pytest.approx(2.0)
        assert np.trace(sp.polar_factor(a, tolerance=0)) == pytest.approx(3.0)

    @settings(deadline=None, max_examples=30)
    @given(m=st.integers(1, 12), n=st.integers(1, 12), exponent=st.integers(-300, 300), seed=st.integers(0, 99))
    def test_scale_free(self, m: int, n: int, exponent: int, seed: int) -> None:
        a = matrix(m, n, seed)
        scaled = sp.polar_factor(np.ldexp(a, exponent))
        np.testing.assert_allclose(scaled, sp.polar_factor(a), atol=1e-9)

    def test_refusals(self) -> None:
        with pytest.raises(sp.ShapeError):
            sp.polar_factor(np.zeros(4))
        with pytest.raises(sp.DTypeError):
            sp.polar_factor(np.zeros((2, 2), np.int64))
        with pytest.raises(sp.ArgumentError):
            sp.polar_factor(np.zeros((2, 2)), null_space="keep")
        with pytest.raises(sp.ArgumentError):
            sp.polar_factor(np.zeros((2, 2)), tolerance=2)
        for value in (np.nan, np.inf, -np.inf):
            with pytest.raises(sp.NonFiniteError):
                sp.polar_factor(np.array([[1.0, value], [0.0, 2.0]]))

    def test_empty(self) -> None:
        assert sp.polar_factor(np.zeros((0, 3))).shape == (0, 3)


class TestTruncatedSVD:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("rank", [1, 3, 50, 1000])
    def test_agrees_with_the_decomposition(self, shape: tuple[int, int], rank: int) -> None:
        a = matrix(*shape)
        u, s, vt = sp.truncated_svd(a, rank)
        k = min(rank, *shape)
        assert [x.shape for x in (u, s, vt)] == [(shape[0], k), (k,), (k, shape[1])]
        want = np.linalg.svd(a, compute_uv=False)
        np.testing.assert_allclose(s, want[:k], atol=1e-9 * want[0])
        assert np.all(np.diff(s) <= 0)
        np.testing.assert_allclose(a @ vt.T, u * s, atol=2e-9 * want[0])
        np.testing.assert_allclose(a.T @ u, vt.T * s, atol=2e-9 * want[0])
        np.testing.assert_allclose(u.T @ u, np.eye(k), atol=2e-8)
        np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=2e-8)

    def test_types_and_sign(self) -> None:
        a = matrix(70, 90).astype(np.float32)
        u, s, vt = sp.truncated_svd(a, 5)
        assert u.dtype == s.dtype == vt.dtype == np.float32
        assert all(sp.truncated_svd(a.astype(np.float16), 2)[i].dtype == np.float32 for i in range(3))
        assert np.all(vt[np.arange(5), np.abs(vt).argmax(axis=1)] > 0)
        np.testing.assert_allclose(s, np.linalg.svd(a.astype(np.float64), compute_uv=False)[:5], rtol=1e-7)

    @pytest.mark.parametrize("rank", [3, 10])
    def test_rank_deficient(self, rank: int) -> None:
        a = matrix(80, 90, rank=5)
        u, s, vt = sp.truncated_svd(a, rank)
        np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False)[:rank], atol=1e-12 * s[0])
        np.testing.assert_allclose(vt @ vt.T, np.eye(rank), atol=1e-8)
        if rank > 5:
            np.testing.assert_allclose((u * s) @ vt, a, atol=1e-12 * s[0])

    @pytest.mark.parametrize("value", [1e-200, 1e-30, 1e30, 1e200])
    def test_scale(self, value: float) -> None:
        a = matrix(70, 80)
        np.testing.assert_allclose(sp.truncated_svd(a * value, 4)[1] / value, sp.truncated_svd(a, 4)[1], rtol=1e-12)

    def test_refusals_and_empty(self) -> None:
        assert [x.shape for x in sp.truncated_svd(np.zeros((0, 3)), 2)] == [(0, 0), (0,), (0, 3)]
        assert sp.truncated_svd(np.eye(3), 0)[1].shape == (0,)
        for rank in (-1, 1.5, True):
            with pytest.raises(sp.ArgumentError):
                sp.truncated_svd(np.eye(3), rank)  # type: ignore[arg-type]
        with pytest.raises(sp.ShapeError):
            sp.truncated_svd(np.zeros((2, 2, 2)), 1)
        with pytest.raises(sp.NonFiniteError):
            sp.truncated_svd(np.array([[np.nan]]), 1)


def alternate(w: np.ndarray, scale: np.ndarray, k: int, drop: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """The row-wise alternation in plain words."""
    b = w * np.sqrt(scale)
    sparse = np.zeros_like(b)
    for _ in range(iterations):
        u, s, vt = np.linalg.svd(b - sparse, full_matrices=False)
        low = (u[:, :k] * s[:k]) @ vt[:k]
        sparse = b - low
        smallest = np.argsort(np.abs(sparse), axis=1, kind="stable")[:, :drop]
        np.put_along_axis(sparse, smallest, 0.0, axis=1)
    return low / np.sqrt(scale), sparse / np.sqrt(scale)


class TestLowRankPlusSparse:
    @pytest.mark.parametrize("shape", [(6, 9), (9, 6), (20, 20), (70, 90), (90, 70)])
    def test_is_the_alternation(self, shape: tuple[int, int]) -> None:
        m, n = shape
        w = matrix(m, n)
        scale = np.random.default_rng(1).uniform(0.1, 4.0, n)
        u, v, sparse = sp.low_rank_plus_sparse(w, scale, num_iters=4)
        k = max(1, int(0.75 * (1 - 0.1) * m * n / (m + n)))
        drop = int(n * (1 - (1 - 0.75) * (1 - 0.1)))
        low, rest = alternate(w, scale, k, drop, 4)
        assert [x.shape for x in (u, v)] == [(m, k), (k, n)]
        # Above a side of 64 the subspaces come from a Gram matrix.
        np.testing.assert_allclose(u @ v, low, atol=1e-8)
        np.testing.assert_allclose(sparse, rest, atol=1e-8)

    def test_masks(self) -> None:
        w = matrix(12, 16)
        _, _, sparse = sp.low_rank_plus_sparse(w, target_rank=2, unstruct_sparse=0.5)
        assert np.all((sparse == 0).sum(axis=1) == 8)
        _, _, sparse = sp.low_rank_plus_sparse(w, target_rank=2, unstruct_sparse=0.7, mask_strategy="global")
        assert (sparse == 0).sum() == int(12 * 16 * 0.7)
        _, _, sparse = sp.low_rank_plus_sparse(w, target_rank=2, prune_n=1, prune_m=4)
        assert np.all((sparse.reshape(12, 4, 4) != 0).sum(axis=2) == 1)

    def test_refit_is_no_worse(self) -> None:
        w = matrix(30, 40)
        lost = []
        for refit in (False, True):
            u, v, sparse = sp.low_rank_plus_sparse(w, refit=refit)
            lost.append(np.linalg.norm(w - u @ v - sparse))
        assert lost[1] <= lost[0] * (1 + 1e-6)

    def test_lossless_and_types(self) -> None:
        w = matrix(10, 8).astype(np.float32)
        u, v, sparse = sp.low_rank_plus_sparse(w, target_rank=8)
        assert u.dtype == v.dtype == sparse.dtype == np.float32
        np.testing.assert_allclose(u @ v + sparse, w, atol=1e-5)
        u, v, sparse = sp.low_rank_plus_sparse(np.zeros((4, 5)))
        assert not any(part.any() for part in (u, v, sparse))

    def test_zero_scales(self) -> None:
        u, v, sparse = sp.low_rank_plus_sparse(matrix(6, 5), [0, 1, 2, 0, 3])
        assert np.isfinite(u @ v + sparse).all()

    def test_refusals(self) -> None:
        w = matrix(6, 5)
        for keyword in (
            {"sparsity": 1.5},
            {"rank_ratio": -0.1},
            {"num_iters": 0},
            {"mask_strategy": "column"},
            {"mask_strategy": "n:m"},
            {"prune_n": 4, "prune_m": 2},
            {"target_rank": 0},
            {"unstruct_sparse": 2},
        ):
            with pytest.raises(sp.ParameterError):
                sp.low_rank_plus_sparse(w, **keyword)  # type: ignore[arg-type]
        for scale in ([1, 2, 3, 4, -1], [1, 2, 3, 4, np.nan]):
            with pytest.raises(sp.ArgumentError):
                sp.low_rank_plus_sparse(w, scale)
        with pytest.raises(sp.ShapeError):
            sp.low_rank_plus_sparse(w, [1, 2])
        with pytest.raises(sp.ShapeError):
            sp.low_rank_plus_sparse(np.zeros((0, 5)))
        with pytest.raises(sp.NonFiniteError):
            sp.low_rank_plus_sparse(np.full((3, 3), np.inf))
