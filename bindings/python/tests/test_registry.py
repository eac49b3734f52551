"""Merge methods on arrays: names, schemas, generated functions and `merge_tensors`."""

from __future__ import annotations

import inspect
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from stockpot import _signatures

pytestmark = pytest.mark.usefixtures("library")

FIRST_RELEASE = ("linear", "task_arithmetic", "slerp", "model_stock", "yoyo_scale", "geometric_median", "yoyo_fusion")


def tensors(count: int = 3, dtype: Any = np.float32, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((5, 7))
    models = [base + 0.1 * rng.standard_normal(base.shape) for _ in range(count)]
    return base.astype(dtype), [model.astype(dtype) for model in models]


def keywords(name: str) -> dict[str, Any]:
    """The required parameters of a method."""
    required = [p for p in sp.method_schema(name)["parameters"] if p.get("required")]
    return {_signatures.python_name(p["name"]): 0.5 for p in required}


def test_names() -> None:
    names = sp.methods()
    assert set(FIRST_RELEASE) <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", FIRST_RELEASE)
def test_every_method_describes_itself(name: str) -> None:
    schema = sp.method_schema(name)
    assert schema["name"] == name
    assert schema["inputs"]["base"] in ("required", "optional", "donor")
    assert schema["citation"]
    assert schema["summary"]
    for parameter in schema["parameters"]:
        assert {"name", "type", "required", "default", "per_model", "summary"} <= set(parameter)
        assert parameter["type"] in ("number", "integer", "boolean", "string", "choice", "list", "vectors", "model")
    function = getattr(sp, name)
    assert function.__name__ == name
    assert inspect.signature(function) == _signatures.make_signature(schema)
    for section in ("Args:", "Returns:", "Raises:", "Source:"):
        assert section in function.__doc__
    assert getattr(sp, name) is function
    assert name in dir(sp)


@pytest.mark.parametrize("name", FIRST_RELEASE)
def test_function_and_merge_tensors_agree(name: str) -> None:
    base, models = tensors(2)
    given = base if sp.method_schema(name)["inputs"]["base"] == "required" else None
    merged = getattr(sp, name)(models, given, **keywords(name))
    assert merged.dtype == np.float32
    assert merged.shape == base.shape
    again = sp.merge_tensors(name, models, given, **keywords(name))
    np.testing.assert_array_equal(merged, again)
    one, report = getattr(sp, name)(models, base=given, threads=1, return_report=True, **keywords(name))
    np.testing.assert_array_equal(merged, one)
    reported = set(report)
    assert set(sp.method_schema(name)["reports"]) & reported or not sp.method_schema(name)["reports"]


def test_linear() -> None:
    _, models = tensors(2, np.float64)
    np.testing.assert_allclose(sp.linear(models), (models[0] + models[1]) / 2, rtol=1e-15)
    np.testing.assert_allclose(sp.linear(models, weight=[0.3, 0.7]), 0.3 * models[0] + 0.7 * models[1], rtol=1e-13)
    np.testing.assert_allclose(sp.linear(models, weight=np.array([3, 1])), (3 * models[0] + models[1]) / 4, rtol=1e-14)


def test_task_arithmetic_spells_lambda() -> None:
    base, models = tensors(2, np.float64)
    expected = base + 0.5 * (models[0] - base + models[1] - base)
    np.testing.assert_allclose(sp.task_arithmetic(models, base, lambda_=0.5), expected, rtol=1e-13)
    np.testing.assert_allclose(
        sp.merge_tensors("task_arithmetic", models, base, **{"lambda": 0.5}), expected, rtol=1e-13
    )
    with pytest.raises(sp.ParameterError, match="lambda_ and lambda"):
        sp.merge_tensors("task_arithmetic", models, base, lambda_=1, **{"lambda": 0.5})


def test_none_means_the_default() -> None:
    base, models = tensors(3)
    np.testing.assert_array_equal(sp.yoyo_scale(models, base, solver=None), sp.yoyo_scale(models, base, solver="clamp"))


def test_model_stock() -> None:
    base, models = tensors(3, np.float64)
    deltas = [(model - base).ravel() for model in models]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(deltas) for b in deltas[i + 1 :]]
    c = np.mean(cosines)
    t = 3 * c / (1 + 2 * c)
    expected = t * np.mean(models, axis=0) + (1 - t) * base
    merged, report = sp.model_stock(models, base, return_report=True)
    np.testing.assert_allclose(merged, expected, rtol=1e-12, atol=1e-15)
    assert json.dumps(report)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64, ml_dtypes.float8_e4m3fn])
def test_result_has_the_type_of_the_base(dtype: Any) -> None:
    base, models = tensors(2)
    merged = sp.model_stock(models, base.astype(dtype))
    assert merged.dtype == dtype
    assert sp.linear([model.astype(dtype) for model in models]).dtype == dtype
    assert sp.model_stock(models, base.astype(dtype), dtype="float32").dtype == np.float32
    assert sp.linear(models, dtype=ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16


def test_inputs_stay_as_they_are() -> None:
    base, models = tensors(3)
    before = [array.copy() for array in (base, *models)]
    for array in (base, *models):
        array.flags.writeable = False
    sp.geometric_median(models)
    sp.model_stock(models, base)
    for array, copy in zip((base, *models), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_strided_inputs() -> None:
    base, models = tensors(2)
    expected = sp.model_stock([np.ascontiguousarray(model.T) for model in models], np.ascontiguousarray(base.T))
    np.testing.assert_array_equal(sp.model_stock([model.T for model in models], base.T), expected)


def test_integers_are_copied() -> None:
    base = np.arange(5)
    np.testing.assert_array_equal(sp.model_stock([base + 1, base + 2], base), base)
    np.testing.assert_array_equal(sp.linear([base + 1, base + 2]), base + 1)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    models = [np.ones(shape, np.float32), np.full(shape, 3, np.float32)]
    merged = sp.linear(models)
    assert merged.shape == shape
    np.testing.assert_array_equal(merged, np.full(shape, 2, np.float32))


def test_errors() -> None:
    base, models = tensors(2)
    with pytest.raises(sp.MethodError, match="did you mean 'model_stock'"):
        sp.merge_tensors("model_stok", models, base)
    with pytest.raises(sp.MethodError, match="did you mean 'linear'"):
        sp.method_schema("linaer")
    with pytest.raises(sp.MethodError):
        sp.merge_tensors(5, models)  # type: ignore[arg-type]
    with pytest.raises(sp.MethodError):
        sp.linear([])
    with pytest.raises(sp.MethodError):
        sp.model_stock(models, None)
    with pytest.raises(TypeError, match="base"):
        sp.model_stock(models)
    with pytest.raises(sp.ParameterError, match="solver"):
        sp.yoyo_scale(models, base, solvr="qp")
    with pytest.raises(sp.ParameterError):
        sp.yoyo_scale(models, base, solver="magic")
    with pytest.raises(sp.ParameterError):
        sp.linear(models, weight=[1, 2, 3])
    with pytest.raises(sp.ParameterError, match="nan"):
        sp.linear(models, weight=float("nan"))
    with pytest.raises(sp.ParameterError):
        sp.slerp(models)
    with pytest.raises(sp.ShapeError):
        sp.linear([models[0], models[1].T])
    with pytest.raises(sp.ShapeError):
        sp.model_stock(models, base[:2])
    with pytest.raises(sp.ArgumentError, match=r"models\[1\] is a list"):
        sp.linear([models[0], [1.0]])
    with pytest.raises(sp.ArgumentError):
        sp.linear(models, threads=-1)
    with pytest.raises(sp.ArgumentError, match="threads"):
        sp.linear(models, threads="2")
    with pytest.raises(sp.ArgumentError, match="NUL"):
        sp.linear(models, name="a\0b")
    with pytest.raises(sp.DTypeError):
        sp.linear(models, dtype="int32")


def test_non_finite() -> None:
    base, models = tensors(2)
    models[1][2, 3] = np.nan
    with pytest.raises(sp.NonFiniteError, match=r"layer\.7"):
        sp.model_stock(models, base, name="layer.7")
    assert sp.model_stock(models, base, on_non_finite="ignore").shape == base.shape
