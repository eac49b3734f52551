"""A copy of one model, scaled if asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import AnyArray, Array, widen


def merge(models: Sequence[AnyArray], *, scale: float | Sequence[float] | None = None) -> Array:
    """scale * w, or w."""
    (model,) = models
    return widen(model) * (1.0 if scale is None else float(np.asarray(scale).reshape(-1)[0]))
