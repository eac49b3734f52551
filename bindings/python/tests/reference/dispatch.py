"""The references behind one call, with the report entries that the library's `return_report` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import (
    arcee_fusion,
    breadcrumbs,
    breadcrumbs_ties,
    consensus_ta,
    consensus_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    geometric_median,
    iso_c,
    iso_cts,
    karcher,
    linear,
    magmax,
    magnitude_prune,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    ramplus_tl,
    scale_svd,
    sce,
    slerp,
    tall_mask,
    task_arithmetic,
    tgmd,
    ties,
    ties_soup,
    tsd,
    tsd_v2,
    tsvm,
    yoyo_fusion,
    yoyo_scale,
)
from .arrays import F32, F64, AnyArray, Array, widen

ELEMENTWISE: dict[str, Any] = {
    "ties": ties,
    "ties_soup": ties_soup,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
    "tsd": tsd,
    "tsd_v2": tsd_v2,
    "tgmd": tgmd,
    "magnitude_prune": magnitude_prune,
    "tall_mask": tall_mask,
    "consensus_ta": consensus_ta,
    "consensus_ties": consensus_ties,
    "magmax": magmax,
    "breadcrumbs": breadcrumbs,
    "breadcrumbs_ties": breadcrumbs_ties,
    "della": della,
    "della_linear": della_linear,
    "sce": sce,
    "arcee_fusion": arcee_fusion,
    "ram": ram,
    "ramplus_tl": ramplus_tl,
}
"""Methods that say what becomes of task vectors, by `task_vector` of their modules."""

SPECTRAL: dict[str, Any] = {"tsvm": tsvm, "iso_c": iso_c, "iso_cts": iso_cts, "scale_svd": scale_svd}
"""The same of task matrices."""

METHODS = (
    "linear",
    "task_arithmetic",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "passthrough",
    "nearswap",
    "model_stock",
    "yoyo_scale",
    "geometric_median",
    "yoyo_fusion",
    *ELEMENTWISE,
    *SPECTRAL,
)

_NAMED = ("tsd", "tsd_v2", "tgmd", "della", "della_linear")
"""Of the elementwise methods, those whose random stream takes the name and that never join tensors."""
_JOINED = ("ties", "dare_linear", "dare_ties", "tall_mask", "consensus_ta", "consensus_ties")
"""Those that know the tensors that a scope joins."""
_COMPAT = (
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
    "tsvm",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
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
    if method in ELEMENTWISE or method in SPECTRAL:
        assert base is not None
        vector = task_vector(method, models, base, name=name, **parameters)
        return (vector if output == "task_vector" else widen(base) + vector), {}
    merged, report = _CALLS[method](list(models), base, name, parameters)
    if output == "task_vector":
        assert base is not None
        merged = merged - widen(base)
    return merged, report


def task_vector(method: str, models: Sequence[AnyArray], base: AnyArray, *, name: str = "", **parameters: Any) -> Array:
    """lambda * tau of one of the methods on task vectors."""
    given = dict(parameters)
    given.pop("scope", None)
    if "lambda" in given:
        given["lambda_"] = given.pop("lambda")
    if method not in _COMPAT:
        given.pop("compat", None)
    if method in _NAMED or method in SPECTRAL:
        given["name"] = name
    elif method in _JOINED:
        given.setdefault("parts", [(name, base.size)])
    module = ELEMENTWISE[method] if method in ELEMENTWISE else SPECTRAL[method]
    result: Array = module.task_vector(models, base, **given)
    return result


def default_scope(method: str, parameters: Mapping[str, Any]) -> str:
    """The scope of a method where none is given."""
    if method in ("tall_mask", "consensus_ta", "consensus_ties"):
        return "model" if parameters.get("use_ties", method == "consensus_ties") else "tensor"
    presets = {"ties": ties.PRESETS, "dare_ties": dare_ties.PRESETS}.get(method, {})
    return presets.get(str(parameters.get("compat")), {}).get("scope", "tensor")


def merge_checkpoint(
    method: str,
    models: Sequence[Mapping[str, AnyArray]],
    base: Mapping[str, AnyArray] | None = None,
    *,
    scope: str | None = None,
    ignore_keys: Sequence[str] = (),
    **parameters: Any,
) -> tuple[dict[str, Array], dict[str, Report]]:
    """Merge every tensor; with scope "model" all of them as one vector, in the order of their names."""
    scope = scope or default_scope(method, parameters)
    donor = base if base is not None else models[0]
    merged: dict[str, Array] = {}
    reports: dict[str, Report] = {}
    if scope == "model":
        joined, origin = join(models, base)
        if method in _JOINED:
            parameters["parts"] = parts_of(donor)
        whole, report = merge(method, joined, origin, **parameters)
        offset = 0
        for key, tensor in sorted(donor.items()):
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


def join(
    models: Sequence[Mapping[str, AnyArray]], base: Mapping[str, AnyArray] | None
) -> tuple[list[AnyArray], AnyArray | None]:
    """Every checkpoint as one vector in the order of names: float64 if a tensor has it, else float32 (exact)."""
    stored = [*models, *([] if base is None else [base])]
    dtype = F64 if any(array.dtype == F64 for tensors in stored for array in tensors.values()) else F32
    rows = [_joined(tensors, sorted(models[0]), dtype) for tensors in stored]
    return rows[: len(models)], (None if base is None else rows[-1])


def _joined(tensors: Mapping[str, AnyArray], names: Sequence[str], dtype: np.dtype[Any]) -> AnyArray:
    return np.concatenate([np.asarray(tensors[name]).astype(dtype).reshape(-1) for name in names])


def parts_of(tensors: Mapping[str, AnyArray]) -> list[tuple[str, int]]:
    """Names and sizes in the order in which `join` puts them."""
    return [(name, tensors[name].size) for name in sorted(tensors)]


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


def _nuslerp(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    merged, cosine, linear = nuslerp.merge(models, base, **parameters)
    t = nuslerp.position(parameters.get("weight", 1.0))
    if cosine.size != 1:
        return merged, {"t": t, "linear": int(linear.sum()), "slices": cosine.size}
    return merged, {"t": t, "cosine": float(cosine.item()), "linear": bool(linear.item())}


def _multislerp(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    merged, length = multislerp.merge(models, base, **parameters)
    return merged, {"mean_length": length}


def _karcher(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    merged, steps = karcher.merge(models, **parameters)
    return merged, {"iterations": steps}


def _passthrough(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    parameters.pop("compat", None)
    return passthrough.merge(models, **parameters), {}


def _nearswap(models: list[AnyArray], base: AnyArray | None, name: str, parameters: Report) -> tuple[Array, Report]:
    assert base is not None
    return nearswap.merge(models, base, **parameters), {}


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
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "passthrough": _passthrough,
    "nearswap": _nearswap,
    "model_stock": _model_stock,
    "yoyo_scale": _yoyo_scale,
    "geometric_median": _geometric_median,
    "yoyo_fusion": _yoyo_fusion,
}
