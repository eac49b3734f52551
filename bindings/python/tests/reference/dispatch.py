"""The references behind one call, with the report entries that the library's `return_report` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import (
    geometric_median,
    linear,
    model_stock,
    slerp,
    task_arithmetic,
    yoyo_fusion,
    yoyo_scale,
)
from .arrays import AnyArray, Array, widen

METHODS = (
    "linear",
    "task_arithmetic",
    "slerp",
    "model_stock",
    "yoyo_scale",
    "geometric_median",
    "yoyo_fusion",
)

Report = dict[str, Any]


def merge(
    method: str,
    models: Sequence[AnyArray],
    base: AnyArray | None = None,
    *,
    name: str = "",
    output: str = "weights",
    **parameters: Any,
) -> tuple[Array, Report]:
    """Merge one tensor by the reference of `method`, with the parameter names of the library."""
    parameters.pop("scope", None)
    merged, report = _CALLS[method](list(models), base, name, parameters)
    if output == "task_vector":
        assert base is not None
        merged = merged - widen(base)
    return merged, report


def merge_checkpoint(
    method: str,
    models: Sequence[Mapping[str, AnyArray]],
    base: Mapping[str, AnyArray] | None = None,
    *,
    scope: str = "tensor",
    ignore_keys: Sequence[str] = (),
    **parameters: Any,
) -> tuple[dict[str, Array], dict[str, Report]]:
    """Merge every tensor; with scope "model" all of them as one vector."""
    donor = base if base is not None else models[0]
    merged: dict[str, Array] = {}
    reports: dict[str, Report] = {}
    if scope == "model":
        joined = [_join(model, donor) for model in models]
        origin = _join(base, donor) if base is not None else None
        whole, report = merge(method, joined, origin, **parameters)
        offset = 0
        for key, tensor in donor.items():
            merged[key] = whole[offset : offset + tensor.size].reshape(tensor.shape)
            reports[key] = report
            offset += tensor.size
        return merged, reports
    for key, tensor in donor.items():
        members = [model[key] for model in models]
        if key in ignore_keys:
            merged[key], reports[key] = linear.merge(members), {}
            continue
        origin = tensor if base is not None else None
        merged[key], reports[key] = merge(method, members, origin, name=key, **parameters)
    return merged, reports


def _join(tensors: Mapping[str, AnyArray], order: Mapping[str, AnyArray]) -> Array:
    return np.concatenate([widen(tensors[key]).reshape(-1) for key in order])


def _linear(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    parameters.pop("compat", None)
    return linear.merge(models, **parameters), {}


def _task_arithmetic(
    models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report
) -> tuple[Array, Report]:
    assert base is not None
    parameters.pop("compat", None)
    scale = parameters.pop("lambda", 1.0)
    return task_arithmetic.merge(models, base, lambda_=scale, **parameters), {}


def _slerp(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    first, second = (base, models[0]) if base is not None else (models[0], models[1])
    merged, decision = slerp.merge(first, second, **parameters)
    return merged, {"cosine": decision.cosine, "linear": decision.linear}


def _model_stock(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    assert base is not None
    parameters.pop("ignore_keys", None)
    if parameters.pop("filter_wise", False):
        parameters["granularity"] = "row"
    options = model_stock.Options(**parameters)
    merged, cosines, ts = model_stock.merge(models, base, options)
    if len(ts) == 1:
        return merged, {"cosine": float(cosines[0]), "t": float(ts[0])}
    return merged, {
        "t_min": float(ts.min()),
        "t_mean": float(ts.mean()),
        "t_max": float(ts.max()),
        "outside_unit": int(np.sum((ts < 0.0) | (ts > 1.0))),
    }


def _yoyo_scale(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    assert base is not None
    merged, lambdas = yoyo_scale.merge(models, base, **parameters)
    return merged, {"lambdas": lambdas.tolist()}


def _geometric_median(
    models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report
) -> tuple[Array, Report]:
    parameters.pop("compat", None)
    points = models
    if parameters.pop("include_base", False):
        assert base is not None
        points = [*models, base]
    found = geometric_median.merge(points, **parameters)
    return found.point, {
        "weights": found.weights.tolist(),
        "iterations": found.iterations,
        "objective": found.objective,
    }


def _yoyo_fusion(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    merged, decision = yoyo_fusion.merge(models, name=name, **parameters)
    return merged, {
        "rank": decision.rank,
        "energy": decision.energy,
        "scale": decision.scale,
        "degenerate": decision.degenerate,
    }


_CALLS = {
    "linear": _linear,
    "task_arithmetic": _task_arithmetic,
    "slerp": _slerp,
    "model_stock": _model_stock,
    "yoyo_scale": _yoyo_scale,
    "geometric_median": _geometric_median,
    "yoyo_fusion": _yoyo_fusion,
}
