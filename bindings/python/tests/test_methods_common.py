"""What all methods share: non-finite inputs, types that are not merged, empty shapes, errors, the schema."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import dispatch
from reference.arrays import BF16, F16, F32, F64, FLOAT_TYPES, AnyArray, random_models, same_bytes, widen
from reference.checks import SETTINGS, check_threads, combination, inputs, merge, seeds

METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"weight": 0.5},
    "slerp": {"t": 0.4},
    "nuslerp": {"weight": [0.6, 0.4]},
    "multislerp": {"weight": [0.5, 0.2, 0.3]},
    "karcher": {},
    "passthrough": {},
    "nearswap": {"t": 0.05},
    "model_stock": {},
    "yoyo_scale": {},
    "geometric_median": {},
    "yoyo_fusion": {},
    "ties": {"density": 0.5},
    "ties_soup": {},
    "dare_linear": {"density": 0.7, "weight": 0.5},
    "dare_ties": {"density": 0.7, "trim_density": 0.5},
    "tsd": {},
    "tsd_v2": {},
    "tgmd": {},
    "magnitude_prune": {"density": 0.5, "weight": 0.5},
    "tall_mask": {"weight": 0.5},
    "consensus_ta": {"weight": 0.5},
    "consensus_ties": {},
    "magmax": {},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1, "weight": 0.5},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.1},
    "della_linear": {"density": 0.5, "weight": 0.5},
    "della": {"density": 0.5, "rescale": True},
    "sce": {"select_topk": 0.5},
    "arcee_fusion": {},
    "ram": {"epsilon": 0.05},
    "ramplus_tl": {"epsilon": 0.05},
    "tsvm": {},
    "iso_c": {"lambda_": 0.5},
    "iso_cts": {"lambda_": 0.5, "common_space_fraction": 0.4},
    "scale_svd": {"weight": 0.5},
}
"""The methods, and parameters under which they run and each of their stages has something to do."""

ONE_SWEEP: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {"weight": 0.5},
    "ties_soup": {},
    "dare_linear": {"rescale": "none", "weight": 0.5},
    "tsd": {"density": 1.0},
    "tall_mask": {"weight": 0.5},
    "consensus_ta": {"weight": 0.5, "k": 0},
    "magmax": {},
    "nearswap": {"t": 0.05},
    "ram": {"epsilon": 0.05},
}
"""Methods, and parameters under which they do, that merge every element by itself, so that one may be spoilt alone."""

WITH_STATISTICS = [
    *((method, given) for method, given in METHODS.items() if method not in (*ONE_SWEEP, "passthrough")),
    ("dare_linear", METHODS["dare_linear"]),
    ("tsd", {"rescale": "l1"}),
    ("consensus_ta", {"use_ties": True}),
]
"""Those that have to know all of a tensor first: a tensor with an element that is not finite is copied."""

TASK_VECTORS = ("task_arithmetic", "model_stock", "yoyo_scale", *dispatch.ELEMENTWISE, *dispatch.SPECTRAL)
"""Methods that take differences from a base."""

MODELS = {"slerp": 2, "nuslerp": 2, "passthrough": 1, "nearswap": 1, "arcee_fusion": 1}
"""How many models a method takes, where it is not any number."""

ROWS = {"granularity": "row"}


def _schema(method: str) -> dict[str, Any]:
    return {entry["name"]: entry for entry in sp.method_schema(method)["parameters"]}


def _inputs(
    method: str, dtype: np.dtype[Any] = F32, shape: int | tuple[int, ...] | None = None, seed: int = 1
) -> tuple[list[AnyArray], AnyArray | None]:
    """Models and base as the method takes them: 40 elements, as a matrix where it makes a difference."""
    if shape is None:
        shape = (8, 5) if method in dispatch.SPECTRAL else 40
    base, models = random_models(np.random.default_rng(seed), MODELS.get(method, 3), shape, dtype)
    required = sp.method_schema(method)["inputs"]["base"] == "required"
    return models, base if required else None


def test_every_method_has_a_reference() -> None:
    assert set(METHODS) == set(dispatch.METHODS)
    assert set(METHODS) <= set(sp.methods())


def _makes_task_vectors(method: str) -> bool:
    return any(parameter["name"] == "output" for parameter in sp.method_schema(method)["parameters"])


def _spoilt(method: str, value: float, dtype: np.dtype[Any]) -> tuple[list[AnyArray], AnyArray | None]:
    models, base = _inputs(method, dtype)
    models[-1] = models[-1].copy()
    models[-1].flat[7] = value
    return models, base


@pytest.mark.parametrize(("method", "given"), [*ONE_SWEEP.items(), *WITH_STATISTICS])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_non_finite_inputs_are_refused(method: str, given: dict[str, Any], value: float, dtype: np.dtype[Any]) -> None:
    """By default; on request they are told, or nothing is said."""
    models, base = _spoilt(method, value, dtype)
    with pytest.raises(sp.NonFiniteError):
        sp.merge_tensors(method, models, base, name="layers.3.weight", **given)
    _, report = merge(method, models, base, on_non_finite="warn", **given)
    assert report["warnings"]


@pytest.mark.parametrize(("method", "given"), ONE_SWEEP.items())
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_non_finite_elements_spoil_themselves(
    method: str, given: dict[str, Any], value: float, dtype: np.dtype[Any]
) -> None:
    """One sweep: the element is not finite either, and all others are as without it."""
    models, base = _spoilt(method, value, dtype)
    clean, _ = merge(method, _inputs(method, dtype)[0], base, **given)
    for choice in ("warn", "ignore"):
        merged, report = merge(method, models, base, on_non_finite=choice, **given)
        assert bool(report["warnings"]) == (choice == "warn")
        assert not np.isfinite(widen(merged).flat[7])
        assert same_bytes(np.delete(merged, 7), np.delete(clean, 7))


@pytest.mark.parametrize(("method", "given"), WITH_STATISTICS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_non_finite_tensors_are_copied(method: str, given: dict[str, Any], value: float, dtype: np.dtype[Any]) -> None:
    """Where sums, ranks or decompositions come first: from the base, which is told."""
    models, base = _spoilt(method, value, dtype)
    for choice in ("warn", "ignore"):
        merged, report = merge(method, models, base, on_non_finite=choice, **given)
        assert report["warnings"]
        assert same_bytes(merged, models[0] if base is None else base)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_equal_inputs_are_copied_whatever_they_hold(method: str, dtype: np.dtype[Any]) -> None:
    models, base = _inputs(method, dtype)
    special = models[0].copy()
    special.flat[3], special.flat[5] = np.nan, -0.0
    equal = [special.copy() for _ in models]
    merged, _ = merge(method, equal, None if base is None else special.copy(), **METHODS[method])
    assert same_bytes(merged, special)


@pytest.mark.parametrize("method", [name for name in METHODS if _makes_task_vectors(name)])
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_equal_inputs_are_no_change_in_a_task_vector(method: str, dtype: np.dtype[Any]) -> None:
    """A buffer of -inf, as masks have them: a copy of it would be added to the base again."""
    models, _ = _inputs(method, dtype)
    special = models[0].copy()
    special.flat[3] = -np.inf
    equal = [special.copy() for _ in models]
    merged, report = merge(method, equal, special.copy(), **METHODS[method], output="task_vector")
    assert report["warnings"]
    assert not widen(merged).any()


@pytest.mark.parametrize(
    ("method", "given"), [("passthrough", {"scale": 0.5}), ("linear", {"weight": 0.25, "normalize": False})]
)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_equal_inputs_are_multiplied_whatever_they_hold(
    method: str, given: dict[str, Any], dtype: np.dtype[Any]
) -> None:
    models = [_inputs("linear", dtype)[0][0].copy()] * (1 if method == "passthrough" else 2)
    models[0].flat[3] = np.nan
    merged, report = merge(method, models, None, **given)
    assert report["warnings"]
    assert same_bytes(merged, (widen(models[0]) * 0.5).astype(dtype))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_], ids=lambda dtype: dtype.__name__)
def test_other_types_are_copied(method: str, dtype: type[Any]) -> None:
    """Integers and booleans come from the base, else from the first model."""
    models, base = _inputs(method)
    whole = [np.arange(40).reshape(8, 5).astype(dtype) + np.array(index, dtype) for index in range(4)]
    merged, _ = merge(method, whole[1 : len(models) + 1], None if base is None else whole[0], **METHODS[method])
    assert same_bytes(merged, whole[1] if base is None else whole[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1, 1), (2, 3, 1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_shapes(method: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """No elements, one element, many dimensions: the shape and the type stay, the values are finite."""
    models, base = _inputs(method, dtype, shape)
    merged, _ = merge(method, models, base, **METHODS[method])
    assert merged.shape == shape
    assert merged.dtype == dtype
    assert np.isfinite(widen(merged)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [F16, BF16, *FLOAT_TYPES[4:]], ids=str)
@pytest.mark.parametrize("output", [F32, F64], ids=str)
def test_wide_output_of_narrow_inputs(method: str, dtype: np.dtype[Any], output: np.dtype[Any]) -> None:
    """All arithmetic is binary64 when the output is F32 or F64 (stockpot.h): as if the inputs had come as F32."""
    models, base = _inputs(method, dtype, (30, 25) if method in dispatch.SPECTRAL else 3000)
    narrow, report = merge(method, models, base, dtype=output, **METHODS[method])
    widened = [model.astype(F32) for model in models]
    origin = None if base is None else base.astype(F32)
    wide, other = merge(method, widened, origin, dtype=output, **METHODS[method])
    assert report == other
    assert same_bytes(narrow, wide)


def test_zero_dimensions_have_no_direction() -> None:
    """Model Stock of scalars is their average."""
    models, base = _inputs("model_stock", F64, ())
    merged, _ = merge("model_stock", models, base)
    assert float(merged) == pytest.approx(float(np.mean([float(model) for model in models])), rel=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_do_not_fit(method: str) -> None:
    """Shapes that differ, parameters that are unknown or out of range, and no models are errors that say so."""
    models, base = _inputs(method)
    given = METHODS[method]
    if len(inputs(models, base)) > 1:
        with pytest.raises(sp.ShapeError):
            sp.merge_tensors(method, [*models[:-1], models[-1][:-1]], base, **given)
    with pytest.raises(sp.ParameterError, match="on_non_finite"):
        sp.merge_tensors(method, models, base, on_non_finit="warn", **given)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors(method, models, base, on_non_finite="perhaps", **given)
    with pytest.raises(sp.StockpotError):
        sp.merge_tensors(method, [], base, **given)


@pytest.mark.parametrize("method", TASK_VECTORS)
def test_base_that_is_missing(method: str) -> None:
    models, _ = _inputs(method)
    with pytest.raises(sp.MethodError, match="base"):
        sp.merge_tensors(method, models, **METHODS[method])


@pytest.mark.parametrize("method", TASK_VECTORS)
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_task_vector_is_the_difference(method: str, dtype: np.dtype[Any]) -> None:
    """output: task_vector is what the weights are made of: base + vector, each rounded once."""
    models, base = _inputs(method, dtype, (12, 30))
    assert base is not None
    weights, report = merge(method, models, base, dtype=F64, **METHODS[method])
    vector, other = merge(method, models, base, output="task_vector", dtype=F64, **METHODS[method])
    bound = combination(inputs(models, base), F64, weight=2.0)
    assert np.all(np.abs(widen(base) + vector - weights) <= bound)
    assert report == other


@pytest.mark.parametrize("method", METHODS)
def test_reports_are_those_of_the_schema(method: str) -> None:
    """Every entry of a report is announced, and plain JSON values."""
    announced = set(sp.method_schema(method)["reports"]) | {"warnings"}
    models, base = _inputs(method, F32, (6, 10))
    variants: list[dict[str, Any]] = [{}] + ([ROWS] if method == "model_stock" else [])
    for variant in variants:
        _, report = merge(method, models, base, **METHODS[method], **variant)
        assert set(report) <= announced | {"ignored"}, set(report) - announced


@pytest.mark.parametrize("method", METHODS)
def test_schema_is_complete(method: str) -> None:
    schema = sp.method_schema(method)
    for key in ("name", "title", "summary", "family", "citation", "inputs", "parameters", "reports"):
        assert schema[key], key
    for entry in schema["parameters"]:
        assert entry["summary"]
        if entry.get("choices") and entry["default"] is not None:
            assert entry["default"] in entry["choices"]
    assert _schema(method)["on_non_finite"]["default"] == "error"


@SETTINGS
@given(seeds, st.sampled_from(sorted(METHODS)), st.sampled_from(FLOAT_TYPES), st.integers(1, 5000))
def test_any_number_of_threads(seed: int, method: str, dtype: np.dtype[Any], size: int) -> None:
    models, base = _inputs(method, dtype, size, seed)
    check_threads(method, models, base, **METHODS[method])


@SETTINGS
@given(seeds, st.sampled_from(sorted(METHODS)), st.sampled_from(FLOAT_TYPES))
def test_inputs_are_not_changed(seed: int, method: str, dtype: np.dtype[Any]) -> None:
    models, base = _inputs(method, dtype, 300, seed)
    before = [array.copy() for array in inputs(models, base)]
    merge(method, models, base, **METHODS[method])
    assert all(same_bytes(old, new) for old, new in zip(before, inputs(models, base), strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("exponent", [-120, -60, 60, 110])
def test_sizes_at_the_ends_of_the_range(method: str, exponent: int) -> None:
    """Squares that overflow or vanish in binary32: bfloat16 has its range, and the result has the inputs' size."""
    scale = 2.0**exponent
    models, base = _inputs(method, F64)
    large = [(scale * model).astype(BF16) for model in models]
    origin = None if base is None else (scale * base).astype(BF16)
    merged, _ = merge(method, large, origin, **METHODS[method])
    values = widen(merged)
    assert np.isfinite(values).all()
    bound = 4.0 * np.max([np.abs(widen(array)) for array in inputs(large, origin)])
    assert np.abs(values).max() <= bound
    if method != "yoyo_fusion" or exponent > 0:  # its eps of 1e-8 is absolute, as published: tiny tensors shrink
        assert np.abs(values).max() > 0.01 * bound
