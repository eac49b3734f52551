"""Consensus TIES (arXiv:2405.07813): Consensus Task Arithmetic whose multi-task vector is made by TIES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import consensus_ta
from .arrays import AnyArray, Array, widen


def task_vector(models: Sequence[AnyArray], base: AnyArray, *, use_ties: bool = True, **parameters: Any) -> Array:
    """lambda * tau * [sum m_i >= k]."""
    return consensus_ta.task_vector(models, base, use_ties=use_ties, **parameters)


def merge(models: Sequence[AnyArray], base: AnyArray, **parameters: Any) -> Array:
    """base + lambda * tau."""
    return widen(base) + task_vector(models, base, **parameters)
