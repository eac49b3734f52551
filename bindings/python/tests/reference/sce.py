"""SCE (arXiv:2408.07990): elements chosen by variance, models weighted by squares, minority signs erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import AnyArray, Array, widen
from .task_vectors import Mask, is_wide, magnitudes, task_vectors


def chosen(rows: Array, share: float, *, wide: bool) -> Mask:
    """The share of the elements with a deviation that have the largest, of equals the first; all for a share of 1."""
    if share >= 1.0:
        return np.ones(rows.shape[1], np.bool_)
    apart = rows - rows[0]
    deviation = magnitudes(np.sqrt(np.mean((apart - apart.mean(axis=0)) ** 2, axis=0)), wide=wide)
    number = int(share * np.count_nonzero(deviation))
    mask = np.zeros(rows.shape[1], np.bool_)
    mask[np.argsort(-deviation, kind="stable")[:number]] = True
    return mask


def weights(rows: Array, compat: str | None = None) -> Array:
    """Mean squares over their sum; equal where there is nothing (mergekit: little) to go by."""
    squares = np.sum(rows * rows, axis=1) / max(1, rows.shape[1])
    total = float(squares.sum())
    if total < 1e-6 if compat == "mergekit" else total == 0.0:
        return np.full(len(rows), 1.0 / len(rows))
    result: Array = squares / total
    return result


def task_vector(
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    select_topk: float = 1.0,
    lambda_: float = 1.0,
    compat: str | None = None,
    int8_mask: bool = False,
) -> Array:
    """lambda * tau."""
    rows = task_vectors(models, base)
    rows = np.where(chosen(rows, select_topk, wide=is_wide(models, base)), rows, 0.0)
    sign = np.where(rows.sum(axis=0) >= 0.0, 1.0, -1.0)
    share = weights(rows, compat)[:, None] * (np.sign(rows) == sign)
    divisor = share.sum(axis=0)
    divisor = np.maximum(divisor, 1e-6) if compat == "mergekit" else np.where(divisor == 0.0, 1.0, divisor)
    return lambda_ * ((share * rows).sum(axis=0) / divisor).reshape(base.shape)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
