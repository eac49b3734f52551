"""When a candidate agrees with a golden tensor: the rules of the golden set's README."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.arrays import AnyArray, Array, widen

Report = Mapping[str, Any]

COSINE_TOLERANCE = 2.0**-20
"""A cosine made of float32 products: 16 units of the last place of 1."""


def disagreement(candidate: AnyArray, golden: AnyArray, rule: Mapping[str, Any], mismatch: float = 0.0) -> str:
    """Why the candidate does not agree; empty if it does. A share `mismatch` of the elements may differ."""
    got, want = widen(candidate).reshape(-1), widen(golden).reshape(-1)
    if got.shape != want.shape:
        return f"{got.size} elements instead of {want.size}"
    if want.size == 0:
        return ""
    limit = float(rule["atol"]) + float(rule["rtol"]) * np.abs(want)
    with np.errstate(invalid="ignore"):
        error = np.where(got == want, 0.0, np.abs(got - want))
    wrong = ~(error <= limit)
    if int(wrong.sum()) <= mismatch * want.size:
        return ""
    error = np.where(np.isnan(error), np.inf, error)
    worst = int(np.argmax(error - limit))
    return (
        f"{int(wrong.sum())} of {want.size} elements differ; the worst, {worst}, is {got[worst]:.9g} "
        f"instead of {want[worst]:.9g} (off by {error[worst]:.3g}, allowed {limit[worst]:.3g})"
    )


@dataclass(frozen=True)
class Auxiliary:
    """An intermediate value of a peer, found in our report.

    `cosine` gives the cosine behind a value (of N models), for values that a singular function made of one:
    there, the tolerance of the value itself says nothing, and the cosines are compared instead.
    """

    value: Callable[[Report], Any]
    entries: tuple[str, ...]
    cosine: Callable[[Array, int], Array] | None = None


def _angle(report: Report) -> float:
    """A right angle where all task vectors are zero, and ours therefore tells no cosine."""
    cosine = float(report.get("cosine", 0.0)) if report["t"] == 0.0 else float(report["cosine"])
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _cosine_of_angle(degrees: Array, models: int) -> Array:
    return np.cos(np.radians(degrees))


def _cosine_of_ratio(t: Array, models: int) -> Array:
    """Inverse of t = N c / (1 + (N-1) c)."""
    return t / (models - (models - 1) * t)


AUXILIARIES: dict[tuple[str, str], Auxiliary] = {
    ("yoyo_scale", "aux_lambdas"): Auxiliary(lambda report: report["lambdas"], ("lambdas",)),
    ("model_stock", "aux_angle_deg"): Auxiliary(_angle, ("t",), _cosine_of_angle),
    ("model_stock", "aux_ratio"): Auxiliary(lambda report: report["t"], ("t",), _cosine_of_ratio),
    ("geometric_median", "aux_new_weights"): Auxiliary(lambda report: report["weights"], ("weights",)),
    ("geometric_median", "aux_objective"): Auxiliary(lambda report: report["objective"], ("objective",)),
}


def auxiliary_disagreement(
    method: str, kind: str, report: Report, golden: AnyArray, rule: Mapping[str, Any], models: int
) -> str:
    """Why the report disagrees with a peer's intermediate value; empty if it agrees, or ours has no such thing."""
    want = widen(golden).reshape(-1)
    if (method, kind) == ("model_stock", "aux_t"):
        return _ratios_disagreement(report, want, rule)
    known = AUXILIARIES.get((method, kind))
    if known is None:
        return ""
    missing = [entry for entry in known.entries if entry not in report]
    if missing:
        return f"the report has no {', '.join(missing)}"
    got = np.atleast_1d(np.asarray(known.value(report), np.float64))
    reason = disagreement(got, want, rule)
    if not reason or known.cosine is None or got.shape != want.shape:
        return reason
    apart = np.abs(known.cosine(got, models) - known.cosine(want, models)).max()
    return "" if apart <= COSINE_TOLERANCE else f"{reason}; cosines {apart:.3g} apart"


def _ratios_disagreement(report: Report, want: Array, rule: Mapping[str, Any]) -> str:
    """One t per row in the peer; ours tells their least, mean and greatest, or the only one."""
    if want.size == 1 and "t" in report:
        return disagreement(np.array([report["t"]]), want, rule)
    entries = ("t_min", "t_mean", "t_max")
    missing = [entry for entry in entries if entry not in report]
    if missing:
        return f"the report has no {', '.join(missing)}"
    got = np.array([report[entry] for entry in entries], np.float64)
    return disagreement(got, np.array([want.min(), want.mean(), want.max()]), rule)


def statistics_disagreement(candidate: AnyArray, base: AnyArray, model: AnyArray, expected: Mapping[str, Any]) -> str:
    """Why a draw of random dropping has the wrong support, keep rate or scale (beyond five deviations)."""
    origin = widen(base)
    delta, kept_delta = widen(model) - origin, widen(candidate) - origin
    kept = kept_delta != 0.0
    if np.any(kept & (delta == 0.0)):
        return "elements changed that the model does not change"
    eligible = delta != 0.0
    rate = float(kept[eligible].mean())
    allowed = 5.0 * max(float(expected["keep_fraction_std"]), 1.0 / eligible.sum())
    if abs(rate - float(expected["keep_fraction_mean"])) > allowed:
        return f"{rate:.4f} kept instead of {expected['keep_fraction_mean']:.4f} +- {allowed:.4f}"
    if not kept.any():
        return ""
    scale = kept_delta[kept] / delta[kept]
    typical = float(np.median(scale))
    rounding = 2.0**-22 * (np.abs(origin[kept]) + np.abs(kept_delta[kept])) / np.abs(delta[kept])
    if np.any(np.abs(scale - typical) > rounding + 1e-6 * typical):
        return "kept elements are scaled by different factors"
    mean, deviation = float(expected["kept_scale_mean"]), float(expected["kept_scale_std"])
    if abs(typical - mean) > 5.0 * deviation + 1e-4 * mean:
        return f"kept elements are scaled by {typical:.4f} instead of {mean:.4f} +- {deviation:.4f}"
    return _quartile_disagreement(kept, np.abs(delta), expected)


def _quartile_disagreement(kept: AnyArray, magnitude: Array, expected: Mapping[str, Any]) -> str:
    """Keep rate by quartile of magnitude within the row, where the golden tells it."""
    rates = expected.get("keep_fraction_by_magnitude_quartile_within_row")
    if rates is None:
        return ""
    rank = np.argsort(np.argsort(magnitude, axis=-1), axis=-1)
    quartile = 4 * rank // magnitude.shape[-1]
    for index, want in enumerate(rates):
        members = kept[quartile == index]
        allowed = 5.0 * math.sqrt(want * (1.0 - want) / members.size)
        if abs(float(members.mean()) - want) > allowed:
            return f"quartile {index}: {members.mean():.3f} kept instead of {want:.3f} +- {allowed:.3f}"
    return ""
