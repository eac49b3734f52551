"""Linear algebra of one matrix, as the spectral methods do it. Everything is computed in float64 and rounded once."""

from __future__ import annotations

import ctypes
from typing import Any

from ._lib import call
from ._values import to_json
from .dtypes import DType, resolve
from .errors import error_for
from .views import Borrowed, allocate, borrow


def polar_factor(matrix: Any, *, null_space: str = "drop", tolerance: float = 1e-6) -> Any:
    """Polar factor of a matrix: Q = U Vt of its thin singular value decomposition U diag(sigma) Vt.

    Args:
        matrix: [m, n] of float type.
        null_space: "drop" for the partial isometry of the sigma_j > tolerance * sigma_1, zero elsewhere; "complete" for
            all min(m, n) directions, those of zero singular values being whatever LAPACK chooses.
        tolerance: 0 to 1, for "drop".

    Returns:
        A new [m, n] array of the matrix's type and kind. Zeros for a zero matrix under "drop".

    Raises:
        ArgumentError: a value out of range. ShapeError: not two dimensions. DTypeError: a type that is not float.
        NonFiniteError: NaN or infinity in the matrix.

    Source: Higham, Functions of Matrices, 2008, chapter 8.
    """
    if null_space not in ("drop", "complete"):
        raise error_for("SP_E_ARGUMENT", f"null_space is {null_space!r}; give 'drop' or 'complete'")
    source = _matrix(matrix, "matrix")
    result, out = allocate(source.shape, source.dtype, as_torch=source.is_torch)
    call(
        "sp_polar_factor",
        ctypes.byref(source.view()),
        int(null_space == "complete"),
        float(tolerance),
        ctypes.byref(out.view()),
    )
    return result


def truncated_svd(matrix: Any, rank: int) -> tuple[Any, Any, Any]:
    """The largest singular values of a matrix with their vectors: matrix @ Vt[j] = S[j] * U[:, j].

    Args:
        matrix: [m, n] of float type.
        rank: how many; all min(m, n) when there are fewer.

    Returns:
        (U, S, Vt): new arrays [m, k], [k] and [k, n], k = min(rank, m, n), S in falling order, of the matrix's kind;
        float64 where the matrix is, else float32. The largest component of each row of Vt is positive.

    Raises:
        ArgumentError: a negative rank. ShapeError: not two dimensions. DTypeError: a type that is not float.
        NonFiniteError: NaN or infinity in the matrix.

    Source: Golub and Van Loan, Matrix Computations, 8.6.
    """
    source = _matrix(matrix, "matrix")
    wanted = _count(rank, "rank")
    m, n = source.shape
    k = min(wanted, m, n)
    dtype = _wide(source.dtype)
    made = [allocate(shape, dtype, as_torch=source.is_torch) for shape in ((m, k), (k,), (k, n))]
    call("sp_truncated_svd", ctypes.byref(source.view()), k, *(ctypes.byref(out.view()) for _, out in made))
    u, s, vt = (result for result, _ in made)
    return u, s, vt


def low_rank_plus_sparse(
    w: Any,
    scale: Any = None,
    *,
    sparsity: float = 0.1,
    rank_ratio: float = 0.75,
    num_iters: int = 10,
    mask_strategy: str = "row",
    target_rank: int | None = None,
    unstruct_sparse: float | None = None,
    prune_n: int = 0,
    prune_m: int = 0,
    refit: bool = False,
) -> tuple[Any, Any, Any]:
    """Take a matrix apart into a low-rank and a sparse part, w about U @ V + sparse: the tool of Scale-SVD and OATS.

    Alternates between the best rank-k part of w - sparse and the largest elements of w - U @ V, the columns
    weighted by sqrt(scale).

    Args:
        w: [m, n] of float type, not empty.
        scale: [n], at least 0: how much each column counts, the second moments of its inputs for example; None: ones.
        sparsity: share of the m * n numbers that is saved.
        rank_ratio: share of the remaining numbers that goes to the low-rank part,
            k = rank_ratio * (1 - sparsity) * m * n / (m + n) rounded down, but at least 1 and at most min(m, n).
        num_iters: alternations.
        mask_strategy: where the smallest elements are dropped: "row", in each row; "global", in the whole matrix;
            "n:m", all but prune_n of every prune_m neighbouring columns. Of equal magnitudes the lower index goes
            first.
        target_rank: k itself.
        unstruct_sparse: the fraction of the sparse part that is dropped, instead of
            1 - (1 - rank_ratio) * (1 - sparsity).
        prune_n: columns kept of prune_m; giving both means mask_strategy="n:m".
        prune_m: length of a group of columns.
        refit: make the low-rank part once more from the final sparse part, of rank at most min(m, n) - 1, with 1e-8
            added to scale.

    Returns:
        (U, V, sparse): new arrays [m, k], [k, n] and [m, n] of w's kind; float64 where w is, else float32.

    Raises:
        ParameterError: a value out of range. ArgumentError: a negative or non-finite scale. ShapeError: not two
        dimensions, no elements, or a scale of another length. DTypeError: a type that is not float. NonFiniteError:
        NaN or infinity in w.

    Source: Zhang and Papyan, OATS, arXiv:2409.13652; ArkNightmaster, AwRank-Merging (Scale-SVD).
    """
    source = _matrix(w, "w")
    weights = None if scale is None else _numbers(scale)
    given = {
        "sparsity": sparsity,
        "rank_ratio": rank_ratio,
        "num_iters": num_iters,
        "mask_strategy": mask_strategy,
        "target_rank": target_rank,
        "unstruct_sparse": unstruct_sparse,
        "prune_n": prune_n,
        "prune_m": prune_m,
        "refit": refit,
    }
    parameters = to_json(given, "", "SP_E_PARAMETER")
    m, n = source.shape
    if m == 0 or n == 0:
        raise error_for("SP_E_SHAPE", f"w has shape {source.shape}; a matrix without elements has no parts")
    rank = ctypes.c_size_t()
    call("sp_low_rank_plus_sparse_rank", m, n, parameters, ctypes.byref(rank))
    k = rank.value
    dtype = _wide(source.dtype)
    made = [allocate(shape, dtype, as_torch=source.is_torch) for shape in ((m, k), (k, n), (m, n))]
    call(
        "sp_low_rank_plus_sparse",
        ctypes.byref(source.view()),
        None if weights is None else ctypes.byref(weights.view()),
        parameters,
        *(ctypes.byref(out.view()) for _, out in made),
    )
    u, v, sparse = (result for result, _ in made)
    return u, v, sparse


def _matrix(array: Any, what: str) -> Borrowed:
    source = borrow(array, what)
    if len(source.shape) != 2:
        raise error_for("SP_E_SHAPE", f"{what} has shape {source.shape}; give a matrix of two dimensions")
    return source


def _numbers(values: Any) -> Borrowed:
    """A list of numbers, or an array."""
    if isinstance(values, (list, tuple)):
        import numpy as np

        values = np.asarray(values, np.float64)
    return borrow(values, "scale")


def _wide(dtype: DType) -> DType:
    return dtype if dtype.size == 8 else resolve("float32")


def _count(value: int, what: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 0:
        raise error_for("SP_E_ARGUMENT", f"{what} is {value!r}; give a whole number that is not negative")
    return int(value)
