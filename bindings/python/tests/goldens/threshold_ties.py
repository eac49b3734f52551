"""Elements that a peer decided otherwise because several magnitudes are equal at its threshold, or within its rounding.

The peers trim with an unstable sort, so which of equal magnitudes stay is arbitrary (the golden set's README); ours
keep the lowest indices. A differing element is explained when it is one of these, and the golden value is what the
method gives for some choice of the equal ones.

Arcee Fusion takes its divergences in float32, whose terms cancel: an importance nearer to the threshold than that
error may fall on either side.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reference import arcee_fusion
from reference.arrays import AnyArray, Array, read_checkpoint, widen


def explained(
    models: Path, output: Path, name: str, candidate: AnyArray, golden: AnyArray, rule: Mapping[str, Any]
) -> bool:
    """Whether every differing element of a tensor of a `ties`, `breadcrumbs` or `arcee_fusion` merge is such a choice.

    `models` is the folder that the recipe's paths are relative to, `output` the merge with its report.
    """
    report = json.loads((output / "merge_report.json").read_text(encoding="utf-8"))
    entry = next(tensor for tensor in report["tensors"] if tensor["name"] == name)
    if report["method"] == "arcee_fusion":
        stored = {source["role"]: read_checkpoint(models / source["path"])[name] for source in report["inputs"]}
        return _is_within_float32(stored["model"], stored["base"], candidate, golden, rule)
    thresholds = entry["decision"].get("thresholds")
    if report["method"] not in ("ties", "breadcrumbs") or not thresholds:
        return False
    outliers = entry["decision"].get("outlier_thresholds") or [None] * len(thresholds)
    merge = _disjoint_mean if report["method"] == "ties" else _sum
    stored = [read_checkpoint(models / source["path"])[name] for source in report["inputs"] if source["role"] != "base"]
    base = next(read_checkpoint(models / source["path"]) for source in report["inputs"] if source["role"] == "base")
    origin = widen(base[name]).reshape(-1)
    deltas = np.stack([widen(model).reshape(-1) - origin for model in stored])
    weights = np.array(_per_model(entry["parameters"].get("weight", 1.0), len(stored)))
    scale = float(entry["parameters"].get("lambda", 1.0))
    want = widen(golden).reshape(-1)
    limit = float(rule["atol"]) + float(rule["rtol"]) * np.abs(want)
    for element in np.flatnonzero(~(np.abs(widen(candidate).reshape(-1) - want) <= limit)):
        cuts = zip(deltas[:, element], thresholds, outliers, strict=True)
        choices = [_choices(delta, threshold, outlier) for delta, threshold, outlier in cuts]
        results = (merge(np.array(choice) * weights, weights) for choice in itertools.product(*choices))
        if not any(abs(origin[element] + scale * tau - want[element]) <= limit[element] for tau in results):
            return False
    return True


def _per_model(value: Any, count: int) -> list[float]:
    return list(value) if isinstance(value, list) else [float(value)] * count


def _choices(delta: float, threshold: float | None, outlier: float | None) -> list[float]:
    """What a task vector's element may be: it, or 0, or either at a threshold."""
    size = np.float32(abs(delta))
    if any(cut is not None and size == np.float32(cut) for cut in (threshold, outlier)):
        return [delta, 0.0]
    is_small = threshold is not None and size < np.float32(threshold)
    is_large = outlier is not None and size > np.float32(outlier)
    return [0.0] if is_small or is_large else [delta]


def _disjoint_mean(values: Array, weights: Array) -> float:
    """mergekit's, a vote of 0 being +."""
    sign = 1.0 if values.sum() >= 0.0 else -1.0
    agree = np.sign(values) == sign
    divisor = weights[agree].sum()
    return float(values[agree].sum() / (divisor if divisor else 1.0))


def _sum(values: Array, weights: Array) -> float:
    """Without election, and not normalised."""
    return float(values.sum())


def _is_within_float32(
    model: AnyArray, base: AnyArray, candidate: AnyArray, golden: AnyArray, rule: Mapping[str, Any]
) -> bool:
    """Whether the golden value is the other of base and model, where the importance is as good as at the threshold.

    Each p log(p / q) is off by about p 2^-23, so a divergence is by 2^-22, and the threshold by as much of the rows
    that it came from.
    """
    scores = arcee_fusion.importances(model, base)
    limit = arcee_fusion.threshold(scores)
    change = np.abs(widen(model) - widen(base))
    least = float(arcee_fusion.divergence(widen(model), widen(base)).min())
    doubtful = np.abs(scores - limit) <= 2.0**-22 * (change + 4.0 * limit / least)
    want = widen(golden)
    allowed = float(rule["atol"]) + float(rule["rtol"]) * np.abs(want)
    differs = ~(np.abs(widen(candidate) - want) <= allowed)
    either = (np.abs(widen(base) - want) <= allowed) | (np.abs(widen(model) - want) <= allowed)
    return bool(np.all(~differs | (doubtful & either)))
