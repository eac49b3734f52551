"""YOYO-Fusion (andehury/YOYO-Fusion): robust average in the subspace that the models' differences span.

Version v1 is the seed document's, v3 the newest. The singular vectors are those of the D x K residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .arrays import AnyArray, Array, flatten

TUKEY = 4.685
MAD = 1.4826
TINY = 1e-16


@dataclass(frozen=True)
class Options:
    """Parameters as the seed document names them, and those of version v3."""

    anchor_index: int = 0
    use_geometric_median: bool = True
    use_k_minus_one_truncation: bool = True
    median: str | None = None
    mad_median: str = "lower"
    version: str = "v1"
    use_matrix_boost: bool = False
    use_z_median: bool = True
    sign_reference_mode: int = 0
    eps: float = 1e-8

    @property
    def centre_median(self) -> str:
        """The lower median in v1, the standard one in v3, unless one is asked for."""
        return self.median or ("lower" if self.version == "v1" else "standard")


@dataclass(frozen=True)
class Decision:
    """Rank kept, share of the energy in it, scale applied, and whether the models were too close together."""

    rank: int
    energy: float
    scale: float
    degenerate: bool


def column_median(values: Array, kind: str) -> Array:
    """Median over axis 0: for an even count the lower of the two middle values, or their mean."""
    ordered = np.sort(values, axis=0)
    count = len(values)
    lower: Array = ordered[(count - 1) // 2]
    return lower if kind == "lower" else 0.5 * (lower + ordered[count // 2])


def _weiszfeld(points: Array, start: Array, eps: float) -> Array:
    """At most 100 steps; a step shorter than 1e-6 is not taken."""
    y = start
    for _ in range(100):
        pull = 1.0 / (np.linalg.norm(points - y, axis=1) + eps)
        following = (pull / pull.sum()) @ points
        if np.linalg.norm(following - y) < 1e-6:
            return y
        y = following
    return y


def _biweight(distance: Array, scale: Array | float, eps: float) -> Array:
    return np.maximum(0.0, 1.0 - (distance / (TUKEY * scale + eps)) ** 2) ** 2


def _robust_mean(z: Array, z0: Array, options: Options) -> Array:
    """Tukey-weighted mean of every column of the K x rank coordinates, the weights measured about z0."""
    centred = z - z0
    scales = np.maximum(MAD * column_median(np.abs(centred), options.mad_median), 1e-12)
    lengths = np.linalg.norm(centred, axis=1)
    overall = max(float(MAD * column_median(lengths, options.mad_median)), 1e-12)
    own = _biweight(np.abs(centred), scales, options.eps)
    weights = own * _biweight(lengths, overall, options.eps)[:, None]
    result: Array = (weights * z).sum(axis=0) / (weights.sum(axis=0) + options.eps)
    return result


def _rank_and_scale(sigma: Array, count: int, size: int, options: Options) -> tuple[int, float, float]:
    energy = sigma**2
    total = float(energy.sum())
    if options.version == "v3":
        participation = total**2 / (float((energy**2).sum()) + TINY)
        rank = int(np.clip(round(participation), 1, count))
        kept = float(energy[:rank].sum())
        return rank, kept / total, min(float(np.sqrt(total / (kept + TINY))), 10.0)
    rank = min(count, size)
    if options.use_k_minus_one_truncation:
        rank = min(count - 1, rank)
    kept = float(energy[:rank].sum())
    scale = min(1.0 / (kept / (total + TINY) + TINY), 10.0) if options.use_k_minus_one_truncation else 1.0
    return rank, kept / total, scale


def _boosted(step: Array, shape: tuple[int, ...], name: str) -> Array:
    """All singular values of a matrix raised to the largest."""
    if len(shape) != 2 or "embed" in name or "lm_head" in name:
        return step
    left, sigma, right = np.linalg.svd(step.reshape(shape), full_matrices=False)
    result: Array = (sigma[0] * left @ right).reshape(-1)
    return result


def _residual_step(residual: Array, shape: tuple[int, ...], name: str, options: Options) -> tuple[Array, Decision]:
    """What is added to the centre: the robust mean of the residuals within the subspace kept."""
    count, size = residual.shape
    if np.linalg.norm(residual, axis=1).max() < 1e-7:
        return np.zeros(size), Decision(0, 0.0, 1.0, True)
    directions, sigma, _ = np.linalg.svd(residual.T, full_matrices=False)
    if float((sigma**2).sum()) < TINY:
        return np.zeros(size), Decision(0, 0.0, 1.0, True)
    rank, share, scale = _rank_and_scale(sigma, count, size, options)
    kept = directions[:, :rank]
    z = residual @ kept
    v3 = options.version == "v3"
    z0 = column_median(z, "standard") if v3 and options.use_z_median else np.zeros(z.shape[1])
    step: Array = scale * (kept @ _robust_mean(z, z0, options))
    if v3 and options.use_matrix_boost:
        step = _boosted(step, shape, name)
    return step, Decision(rank, share, scale, False)


def merge(
    models: Sequence[AnyArray], options: Options | None = None, *, name: str = "", **changes: object
) -> tuple[Array, Decision]:
    """Merge K >= 2 tensors of one shape; `changes` are fields of Options."""
    options = replace(options or Options(), **changes)  # type: ignore[arg-type]
    shape = models[0].shape
    x = flatten(models)
    size = x.shape[1]
    if options.version == "v3" and options.sign_reference_mode > 0:
        opposed = np.sign(x) * np.sign(x[options.sign_reference_mode - 1]) < 0
        x = np.where(opposed, -x, x)
    rms = np.maximum(np.sqrt((x**2).sum(axis=1) / (size + 1e-12) + options.eps), 1e-6)
    u = x / (rms + options.eps)[:, None]
    if options.anchor_index > 0:
        centre = u[options.anchor_index - 1]
    else:
        centre = column_median(u, options.centre_median)
        if options.use_geometric_median:
            centre = _weiszfeld(u, centre, options.eps)
    step, decision = _residual_step(u - centre, shape, name, options)
    y = (centre + step) * rms.mean()
    lengths = np.linalg.norm(x, axis=1)
    merged = y * lengths.mean() / (np.linalg.norm(y) + options.eps)
    return merged.reshape(shape), decision
