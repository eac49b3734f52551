"""Model Stock (arXiv:2403.19522): from the base towards the average, by the angle between task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .arrays import AnyArray, Array, widen

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Options:
    """The published variants."""

    aggregate: str = "cos"
    granularity: str = "tensor"
    clamp: str = "none"
    compat: str | None = None
    cos_eps: float = 1e-6

    def resolved(self) -> Options:
        """What a `compat` implies."""
        if self.compat == "fusion_bench":
            return Options("angle", "tensor", "none", self.compat)
        if self.compat == "sd_mecha":
            return Options("adjacent", "row", "none", self.compat, self.cos_eps)
        return self


def _cosine(product: float, norm_a: float, norm_b: float, options: Options) -> float:
    if options.compat == "sd_mecha":
        return product / (max(norm_a, options.cos_eps) * max(norm_b, options.cos_eps))
    if options.compat == "mergekit":
        cosine = product / max(norm_a * norm_b, 1e-6)
    elif options.compat == "fusion_bench":
        cosine = product / (norm_a * norm_b + 1e-8)
    elif norm_a == 0.0 or norm_b == 0.0:
        return 0.0
    else:
        cosine = product / norm_a / norm_b
    return float(np.clip(cosine, -1.0, 1.0))


def ratio(deltas: Array, options: Options | None = None) -> tuple[float, float]:
    """Aggregated cosine and interpolation ratio t of the rows of `deltas`."""
    options = (options or Options()).resolved()
    count = len(deltas)
    if options.aggregate == "adjacent":
        pairs = [(i, i + 1) for i in range(count - 1)]
    else:
        pairs = list(combinations(range(count), 2))
    norms = [float(np.linalg.norm(delta)) for delta in deltas]
    cosines = np.array([_cosine(float(deltas[i] @ deltas[j]), norms[i], norms[j], options) for i, j in pairs])
    angle = options.aggregate == "angle"
    cosine = float(np.cos(np.mean(np.arccos(cosines))) if angle else np.mean(cosines))
    denominator = 1.0 + (count - 1) * cosine
    if options.compat == "fusion_bench":
        return cosine, count * cosine / (denominator + 1e-8)
    if options.compat == "sd_mecha":
        with np.errstate(divide="ignore"):
            return cosine, float(np.float64(count * cosine) / np.float64(denominator))
    if options.compat == "mergekit":
        return cosine, count * cosine / denominator if denominator != 0.0 else 0.0
    t = count * cosine / denominator if denominator > 1e-12 else 0.0
    return cosine, float(np.clip(t, 0.0, 1.0)) if options.clamp == "unit" else t


def rows(shape: tuple[int, ...], granularity: str) -> tuple[int, int]:
    """How a tensor is cut into vectors: their number and length. A one-dimensional tensor is always one."""
    count = int(np.prod(shape))
    if granularity == "tensor" or len(shape) < 2 or count == 0:
        return 1, count
    length = shape[-1] if granularity == "row" else count // shape[0]
    return count // length, length


def merge(models: Sequence[AnyArray], base: AnyArray, options: Options | None = None) -> tuple[Array, Array, Array]:
    """Merged tensor, and the cosine and t of every vector it was cut into."""
    options = (options or Options()).resolved()
    number, length = rows(base.shape, options.granularity)
    origin = widen(base).reshape(number, length)
    deltas = np.stack([widen(model).reshape(number, length) - origin for model in models])
    merged = np.empty_like(origin)
    decided = [ratio(deltas[:, r], options) for r in range(number)]
    for r, (_, t) in enumerate(decided):
        with np.errstate(invalid="ignore"):
            step = t * deltas[:, r].mean(axis=0)
        if options.compat == "sd_mecha":
            step = np.nan_to_num(step, nan=0.0, posinf=LARGEST, neginf=-LARGEST)
        merged[r] = origin[r] + step
    cosines, ts = np.array(decided).T
    return merged.reshape(base.shape), cosines, ts
