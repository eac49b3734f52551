"""Elements that a peer decided otherwise because several magnitudes are equal at its trimming threshold.

The peers trim with an unstable sort, so which of equal magnitudes stay is arbitrary (the golden set's README); ours
keep the lowest indices. A differing element is explained when it is one of these, and the golden value is what TIES
gives for some choice of the equal ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reference.arrays import AnyArray, Array, read_checkpoint, widen


def explained(
    models: Path, output: Path, name: str, candidate: AnyArray, golden: AnyArray, rule: Mapping[str, Any]
) -> bool:
    """Whether every differing element of one tensor of a `ties` merge is such a choice.

    `models` is the folder that the recipe's paths are relative to, `output` the merge with its report.
    """
    report = json.loads((output / "merge_report.json").read_text(encoding="utf-8"))
    entry = next(tensor for tensor in report["tensors"] if tensor["name"] == name)
    thresholds = entry["decision"].get("thresholds")
    if report["method"] != "ties" or not thresholds:
        return False
    stored = [read_checkpoint(models / source["path"])[name] for source in report["inputs"] if source["role"] != "base"]
    base = next(read_checkpoint(models / source["path"]) for source in report["inputs"] if source["role"] == "base")
    origin = widen(base[name]).reshape(-1)
    deltas = np.stack([widen(model).reshape(-1) - origin for model in stored])
    weights = np.array(_per_model(entry["parameters"].get("weight", 1.0), len(stored)))
    scale = float(entry["parameters"].get("lambda", 1.0))
    want = widen(golden).reshape(-1)
    limit = float(rule["atol"]) + float(rule["rtol"]) * np.abs(want)
    for element in np.flatnonzero(~(np.abs(widen(candidate).reshape(-1) - want) <= limit)):
        choices = [_choices(delta, threshold) for delta, threshold in zip(deltas[:, element], thresholds, strict=True)]
        results = (_merged(np.array(choice) * weights, weights) for choice in itertools.product(*choices))
        if not any(abs(origin[element] + scale * tau - want[element]) <= limit[element] for tau in results):
            return False
    return True


def _per_model(value: Any, count: int) -> list[float]:
    return list(value) if isinstance(value, list) else [float(value)] * count


def _choices(delta: float, threshold: float | None) -> list[float]:
    if threshold is None or abs(delta) > threshold:
        return [delta]
    return [delta, 0.0] if np.float32(abs(delta)) == np.float32(threshold) else [0.0]


def _merged(values: Array, weights: Array) -> float:
    """mergekit's disjoint mean, a vote of 0 being +."""
    sign = 1.0 if values.sum() >= 0.0 else -1.0
    agree = np.sign(values) == sign
    divisor = weights[agree].sum()
    return float(values[agree].sum() / (divisor if divisor else 1.0))
