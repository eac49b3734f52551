"""What the methods on task vectors are made of: drop, rescale, trim, weight, elect, merge, each on K x D rows.

delta = w - w0 -> random drop -> rescale -> trim -> e = weight * d -> elected signs -> merge of what agrees -> tau.
A scope that joins tensors is told by `parts`: dropping and rescaling go by tensor, trimming and votes over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import philox
from .arrays import F64, AnyArray, Array, flatten, widen

Mask = npt.NDArray[np.bool_]
Parts = Sequence[tuple[str, int]]
"""Names and sizes of the tensors that one row joins, in order."""
PerModel = float | Sequence[float]

OFFICIAL_ZERO = ("ties_merging", "fusion_bench", "merge_lm")
"""Where the majority of all votes is itself zero, these keep the negative entries."""


@dataclass(frozen=True)
class Options:
    """Parameters of the common pipeline; a method that lacks a stage leaves it at what does nothing."""

    density: PerModel = 1.0
    drop: str = "bernoulli"
    epsilon: float = 0.15
    random_seed: int = 0
    rescale: str | bool = "none"
    trim_density: PerModel = 1.0
    trim: str = "exact"
    weight: PerModel = 1.0
    elect: str = "mass"
    zero_sign: str = "plus"
    merge: str = "mean"
    compat: str | None = None


def per_model(value: PerModel, count: int) -> Array:
    """A number for every model."""
    result: Array = np.broadcast_to(np.asarray(value, np.float64), (count,))
    return result


def task_vectors(models: Sequence[AnyArray], base: AnyArray) -> Array:
    """w_i - w0 as K x D."""
    rows: Array = flatten(models) - widen(base).reshape(1, -1)
    return rows


def magnitudes(values: Array, *, wide: bool) -> Array:
    """|d| as it is ranked: rounded to float32 unless an input is float64."""
    size = np.abs(values)
    with np.errstate(over="ignore", under="ignore"):
        return size if wide else size.astype(np.float32).astype(np.float64)


def is_wide(models: Sequence[AnyArray], base: AnyArray) -> bool:
    """Whether an input is float64."""
    return any(array.dtype == F64 for array in (*models, base))


def keep_probability(delta: Array, density: float, options: Options, *, wide: bool) -> float | Array:
    """Of every element of one tensor; DELLA's grows with the rank of the magnitude."""
    if options.drop == "bernoulli":
        return density
    size = delta.size
    rank = np.empty(size)
    rank[np.argsort(magnitudes(delta, wide=wide), kind="stable")] = np.arange(1, size + 1)
    result: Array = np.clip(density + options.epsilon * (rank / size - (size + 1) / (2 * size)), 0.0, 1.0)
    return result


def dropped(deltas: Array, options: Options, parts: Parts, *, wide: bool) -> tuple[Array, Array]:
    """Task vectors after dropping, and after rescaling what is left."""
    densities = per_model(options.density, len(deltas))
    rule = rescale_rule(options.rescale)
    bare, scaled = np.zeros_like(deltas), np.zeros_like(deltas)
    for model, density in enumerate(densities):
        start = 0
        for name, size in parts:
            own = slice(start, start + size)
            start += size
            delta = deltas[model, own]
            chance = keep_probability(delta, float(density), options, wide=wide)
            kept = np.where(philox.kept(name, size, model, options.random_seed, chance), delta, 0.0)
            bare[model, own] = kept
            scaled[model, own] = kept * rescaling(rule, delta, kept, float(density))
    return bare, scaled


def rescale_rule(value: str | bool) -> str:
    """true is l1 and false none."""
    return value if isinstance(value, str) else ("l1" if value else "none")


def rescaling(rule: str, whole: Array, kept: Array, density: float) -> float:
    """The factor of what is kept of one tensor."""
    if rule == "inverse":
        return 1.0 / density if density > 0.0 else 1.0
    if rule == "l1":
        rest = float(np.abs(kept).sum())
        return float(np.abs(whole).sum()) / rest if rest > 0.0 else 1.0
    assert rule == "none", rule
    return 1.0


def trim_mask(size: Array, density: float, rule: str, compat: str | None = None) -> Mask:
    """What of one row of magnitudes stays.

    exact: the max(1, floor(density D)) largest, of equals the first. inclusive: all from the k-th smallest on.
    strict: all beyond the k-th smallest.
    """
    count = size.size
    if density >= 1.0 or count == 0:
        return np.ones(count, np.bool_)
    if rule == "exact":
        number = max(1, int(density * count)) if density > 0.0 else 0
        mask = np.zeros(count, np.bool_)
        mask[np.argsort(-size, kind="stable")[:number]] = True
        return mask
    k = count - int(density * count)
    if compat == "sd_mecha":
        k = max(int((1.0 - density) * count), 1)
    elif compat == "merge_lm":
        k = int((1.0 - density) * count)
    if k == 0:
        return np.ones(count, np.bool_)
    threshold = np.sort(size)[k - 1]
    result: Mask = size > threshold if rule == "strict" else size >= threshold
    return result


def trimmed(rows: Array, density: PerModel, rule: str, compat: str | None, *, wide: bool) -> Array:
    """Every row without its small entries."""
    densities = per_model(density, len(rows))
    size = magnitudes(rows, wide=wide)
    masks = [trim_mask(size[i], float(densities[i]), rule, compat) for i in range(len(rows))]
    return np.where(np.stack(masks), rows, 0.0)


def _sum(rows: Array) -> Array:
    """From the first row to the last."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total = total + row
    return total


def vote(e: Array, rule: str) -> Array:
    """Elected signs, zero where the vote is."""
    if rule == "mass":
        return np.sign(_sum(e))
    if rule == "count":
        return np.sign(_sum(np.sign(e)))
    norms = np.linalg.norm(e, axis=1, keepdims=True)
    share = np.where(norms > 0.0, e / np.where(norms > 0.0, norms, 1.0), 0.0) ** 2
    if rule == "normmass":
        return np.sign(_sum(np.sign(e) * share))
    assert rule == "normfrac", rule
    result: Array = np.sign(np.take_along_axis(e, share.argmax(axis=0)[None], axis=0)[0])
    return result


def agreement(e: Array, options: Options) -> Mask:
    """Which entries take part: those of the elected sign, or with `elect: none` all that are not zero."""
    if options.elect == "none" or e.shape[1] == 0:
        return np.asarray(e != 0.0)
    elected = vote(e, options.elect)
    if options.zero_sign == "plus":
        elected = np.where(elected == 0.0, 1.0, elected)
    elif options.zero_sign == "majority":
        majority = float(np.sign(elected.sum()))
        if majority == 0.0:
            majority = -1.0 if options.compat in OFFICIAL_ZERO else 1.0
        elected = np.where(elected == 0.0, majority, elected)
    else:
        assert options.zero_sign == "drop", options.zero_sign
    return np.asarray((np.sign(e) == elected) & (e != 0.0))


def merged(e: Array, agree: Mask, weight: PerModel, rule: str) -> Array:
    """tau: mean (over the weights), sum, or the entry of largest magnitude, of what agrees."""
    taking = np.where(agree, e, 0.0)
    if rule == "max":
        largest: Array = np.take_along_axis(taking, np.abs(taking).argmax(axis=0)[None], axis=0)[0]
        return largest
    total = _sum(taking)
    if rule == "sum":
        return total
    assert rule == "mean", rule
    divisor = _sum(np.where(agree, per_model(weight, len(e))[:, None], 0.0))
    return total / np.where(divisor == 0.0, 1.0, divisor)


def prepared(models: Sequence[AnyArray], base: AnyArray, options: Options, parts: Parts | None) -> Array:
    """e = weight * trim(rescale(drop(delta))), K x D."""
    deltas = task_vectors(models, base)
    wide = is_wide(models, base)
    _, rows = dropped(deltas, options, parts or [("", base.size)], wide=wide)
    rows = trimmed(rows, options.trim_density, options.trim, options.compat, wide=wide)
    return per_model(options.weight, len(models))[:, None] * rows


def pipeline(models: Sequence[AnyArray], base: AnyArray, options: Options, parts: Parts | None = None) -> Array:
    """tau of one tensor, or of several that `parts` name, in the shape of the base."""
    e = prepared(models, base, options, parts)
    tau = merged(e, agreement(e, options), options.weight, options.merge)
    return tau.reshape(base.shape)


def merge_rule(normalize: bool | None, merge: str | None, default: str) -> str:
    """`normalize` true is the mean and false the sum; `merge` says it by name. Raises ValueError where both differ."""
    by_flag = None if normalize is None else ("mean" if normalize else "sum")
    if merge is not None and by_flag is not None and merge != by_flag:
        raise ValueError(f"normalize: {normalize} contradicts merge: {merge}")
    return merge or by_flag or default
