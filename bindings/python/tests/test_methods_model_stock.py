"""model_stock: the library against its reference, and what the ratio between base and average has to satisfy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import model_stock, vectors
from reference.arrays import (
    BF16,
    F16,
    F32,
    F64,
    AnyArray,
    Array,
    assert_one_rounding,
    random_models,
    read_checkpoint,
    same_bytes,
    widen,
)
from reference.checks import (
    LARGE,
    MANY,
    SETTINGS,
    UNITS,
    check_identical,
    check_no_change,
    check_reference,
    check_threads,
    counts,
    dtypes,
    inputs,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.model_stock import Options

AGGREGATES = ("cos", "angle", "adjacent")


def _sensitivity(cosine: float, count: int) -> float:
    """|dt / dc| of t = N c / (1 + (N-1) c)."""
    return count / max((1.0 + (count - 1) * cosine) ** 2, 1e-300)


def _angle_error(deltas: Array, error: float) -> float:
    """Error of the mean angle's cosine: 1 / sin of the sharpest angle times that of a cosine, or its root at 0."""
    norms = np.linalg.norm(deltas, axis=1)
    if not norms.all():
        return math.sqrt(8.0 * error)
    cosines = (deltas @ deltas.T) / np.outer(norms, norms)
    sines = np.sqrt(np.maximum(1.0 - cosines[np.triu_indices(len(deltas), 1)] ** 2, 1e-30))
    return min(error / float(sines.min()), math.sqrt(8.0 * error))


def _check(models: list[AnyArray], base: AnyArray, options: Options, **extra: Any) -> None:
    """The library against the reference: every ratio may be off by the error of a cosine times the sensitivity."""
    given = {"aggregate": options.aggregate, "granularity": options.granularity, "clamp": options.clamp}
    merged, report = merge("model_stock", models, base, **given, **extra)
    expected, cosines, ts = model_stock.merge(models, base, options)
    count = len(models)
    arrays = inputs(models, base)
    deltas = np.stack([(widen(model) - widen(base)).reshape(-1) for model in models])
    if not deltas.any():
        assert report["t"] == 0.0
        assert same_bytes(merged, base.astype(merged.dtype))
        return
    error = 3.0 * reduction(arrays, merged.dtype)
    if options.aggregate == "angle":
        error = _angle_error(deltas, error)
    off = max(error * _sensitivity(float(c), count) for c in cosines)
    assert off < 1e-2, "the inputs are too near the pole to say anything"
    size = 1.0 + 2.0 * float(np.abs(ts).max())
    check_reference(merged, expected, models, base, coefficients=off / count, weight=size)
    if len(ts) == 1:
        assert report["t"] == pytest.approx(float(ts[0]), abs=off + 1e-12)
        assert report["cosine"] == pytest.approx(float(cosines[0]), abs=error + 1e-12)
    else:
        assert report["t_min"] == pytest.approx(float(ts.min()), abs=off + 1e-12)
        assert report["t_mean"] == pytest.approx(float(ts.mean()), abs=off + 1e-12)
        assert report["t_max"] == pytest.approx(float(ts.max()), abs=off + 1e-12)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((2, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    if size < 64:  # few elements have any angle to one another; the ratio need not be near 1
        base, models = random_models(np.random.default_rng(7), count, size, dtype, common=0.8)
    if size == 0:
        assert merge("model_stock", models, base)[0].shape == (0,)
        return
    _check(models, base, Options())


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("granularity", ["tensor", "row", "out_filter"])
@pytest.mark.parametrize("shape", [(48,), (12, 32), (8, 3, 3, 5), (5, 1, 20)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
def test_variants(aggregate: str, granularity: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(11), 4, shape, dtype, common=0.5, spread=0.3)
    for clamp in ("none", "unit"):
        _check(models, base, Options(aggregate, granularity, clamp))


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check(models, base, Options(), dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    _check(models, base, Options())


def test_rows_longer_than_a_unit_of_work() -> None:
    base, models = random_models(np.random.default_rng(1), 2, (3, LARGE), BF16)
    _check(models, base, Options(granularity="row"))


def test_vectors() -> None:
    models, base = list(vectors.MODELS), vectors.BASE
    merged, report = merge("model_stock", models, base)
    np.testing.assert_allclose(merged, vectors.STOCK, rtol=0.0, atol=vectors.ATOL)
    assert report["t"] == pytest.approx(vectors.STOCK_T_COS, abs=vectors.ATOL)
    angle = merge("model_stock", models, base, aggregate="angle")[1]
    assert angle["t"] == pytest.approx(vectors.STOCK_T_ANGLE, abs=vectors.ATOL)
    for aggregate in AGGREGATES:
        pair = merge("model_stock", models[:2], base, aggregate=aggregate)[1]
        assert pair["t"] == pytest.approx(vectors.STOCK_T_PAIR, abs=vectors.ATOL)
    for aggregate, rows in (("cos", vectors.STOCK_T_ROWS), ("adjacent", vectors.STOCK_T_ROWS_ADJACENT)):
        merged, report = merge("model_stock", models, base, aggregate=aggregate, granularity="row")
        mean = np.mean(models, axis=0) - base
        np.testing.assert_allclose(merged, base + np.array(rows)[:, None] * mean, rtol=0.0, atol=vectors.ATOL)
        assert report["t_min"] == pytest.approx(min(rows), abs=vectors.ATOL)
        assert report["outside_unit"] == sum(not 0 <= t <= 1 for t in rows)


def test_filter_wise_is_rows() -> None:
    base, models = random_models(np.random.default_rng(2), 3, (10, 20))
    by_name, _ = merge("model_stock", models, base, filter_wise=True)
    assert same_bytes(by_name, merge("model_stock", models, base, granularity="row")[0])


@SETTINGS
@given(seeds, counts, st.integers(20, 300))
def test_permutation(seed: int, count: int, size: int) -> None:
    """Cosines of all pairs do not know an order; neighbours do."""
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64)
    first, report = merge("model_stock", models, base)
    second, other = merge("model_stock", [models[i] for i in rng.permutation(count)], base)
    assert other["t"] == pytest.approx(report["t"], abs=1e-12)
    np.testing.assert_allclose(first, second, rtol=0.0, atol=1e-12)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("model_stock", models, base)
    scaled, _ = merge("model_stock", [model * scale for model in models], base * scale)
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    """t is 1 but for its last bits, which do not reach those of the model (in F64 they may be the last of those)."""
    if dtype != F64:
        check_identical("model_stock", seed, count, size, dtype, with_base=True)
        return
    base, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, report = merge("model_stock", [model] * count, base)
    assert report["t"] == pytest.approx(1.0, abs=1e-15)
    assert_one_rounding(merged, model, 1e-15 * np.abs(model - base))


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("model_stock", seed, count, size, dtype)
    check_no_change("model_stock", seed, count, size, dtype, granularity="row", clamp="unit")


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("model_stock", seed, 1, size, dtype, with_base=True)


@SETTINGS
@given(seeds, sizes)
def test_exactly_opposite_task_vectors_give_the_base(seed: int, size: int) -> None:
    """The denominator 1 + c is 0 up to rounding: t = 0."""
    rng = np.random.default_rng(seed)
    base = rng.integers(-512, 512, size).astype(np.float32) / 64
    delta = rng.integers(-64, 64, size).astype(np.float32) / 64
    delta[0] = 1.0
    merged, report = merge("model_stock", [base + delta, base - delta], base)
    assert report["t"] == 0.0
    assert np.array_equal(merged, base)


def test_beyond_the_pole() -> None:
    """Neighbours may have a mean cosine below -1/(N-1); a denominator that is not positive gives the base."""
    base = np.zeros(2)
    models = [np.array([1.0, 0.0]), np.array([-1.0, 0.1]), np.array([1.0, 0.0])]
    merged, report = merge("model_stock", models, base, aggregate="adjacent")
    assert report["cosine"] < -0.9
    assert report["t"] == 0.0
    assert np.array_equal(merged, base)


def test_negative_ratio_and_clamp() -> None:
    """Cosine -1/2 of two models: t = -2, so 3 base - 2 average; clamped, the base."""
    base = np.array([1.0, 1.0])
    models = [base + np.array([1.0, 0.0]), base + np.array([-0.5, 0.75**0.5])]
    merged, report = merge("model_stock", models, base)
    assert report["t"] == pytest.approx(-2.0, abs=1e-12)
    assert report["outside_unit"] in (True, 1)
    np.testing.assert_allclose(merged, 3 * base - (models[0] + models[1]), atol=1e-12)
    clamped, report = merge("model_stock", models, base, clamp="unit")
    assert report["t"] == 0.0
    assert np.array_equal(clamped, base)


def test_a_zero_task_vector_has_no_direction() -> None:
    base, models = random_models(np.random.default_rng(6), 2, 50, F64)
    _check([*models, base.copy()], base, Options())


def test_tiny_tensors_are_not_pulled_to_the_base() -> None:
    """mergekit's floor of 1e-6 for the product of norms makes the base of them; ours does not know the scale."""
    base, models = random_models(np.random.default_rng(6), 3, 64, F32)
    tiny = [np.float32(2.0**-27) * array for array in (base, *models)]
    ours = merge("model_stock", tiny[1:], tiny[0])[1]["t"]
    assert ours == merge("model_stock", models, base)[1]["t"]
    assert merge("model_stock", tiny[1:], tiny[0], compat="mergekit")[1]["t"] < 1e-3


@pytest.mark.parametrize("output", [F32, F64], ids=str)
def test_task_vector(output: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    vector, _ = merge("model_stock", models, base, output="task_vector", dtype=output)
    expected = model_stock.merge(models, base)[0] - widen(base)
    check_reference(vector, expected, models, base)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("model_stock", models, base)
    base, models = random_models(np.random.default_rng(2), 3, (700, 301), BF16)
    check_threads("model_stock", models, base, granularity="row")


def _save(folder: Path, base: dict[str, AnyArray], models: list[dict[str, AnyArray]]) -> dict[str, Any]:
    sp.save(base, folder / "base")
    for index, model in enumerate(models):
        sp.save(model, folder / f"model-{index}")
    names = [str(folder / f"model-{index}") for index in range(len(models))]
    return {
        "merge_method": "model_stock",
        "base_model": str(folder / "base"),
        "models": [{"model": name} for name in names],
    }


@pytest.mark.filterwarnings("ignore")
def test_scopes_and_ignored_keys(tmp_path: Path) -> None:
    """layer: tensors whose names agree up to the first number share a ratio; model: all; ignored: the average."""
    rng = np.random.default_rng(9)
    names = ("layers.0.a", "layers.0.b", "layers.1.a", "head")
    drawn = {name: random_models(rng, 3, (6, 5), F64, common=rng.uniform(0, 0.4)) for name in names}
    base = {name: drawn[name][0] for name in names}
    models = [{name: drawn[name][1][index] for name in names} for index in range(3)]
    recipe = _save(tmp_path, base, models)
    groups = {
        "tensor": [["layers.0.a"], ["layers.0.b"], ["layers.1.a"], ["head"]],
        "layer": [["layers.0.a", "layers.0.b"], ["layers.1.a"], ["head"]],
        "model": [list(names)],
    }
    for scope, members in groups.items():
        output = tmp_path / scope
        sp.merge({**recipe, "parameters": {"scope": scope}}, output, progress=False)
        merged = read_checkpoint(output)
        for group in members:
            deltas = np.stack([np.concatenate([(model[n] - base[n]).reshape(-1) for n in group]) for model in models])
            t = model_stock.ratio(deltas)[1]
            for name in group:
                expected = base[name] + t * (np.mean([m[name] for m in models], axis=0) - base[name])
                np.testing.assert_allclose(merged[name], expected, rtol=0.0, atol=1e-12)
    output = tmp_path / "ignored"
    sp.merge({**recipe, "parameters": {"ignore_keys": ["head", "*.b"]}}, output, progress=False)
    merged = read_checkpoint(output)
    for name in ("head", "layers.0.b"):
        expected = np.mean([model[name] for model in models], axis=0)
        np.testing.assert_allclose(merged[name], expected, rtol=0.0, atol=1e-14)
    single = model_stock.merge([m["layers.1.a"] for m in models], base["layers.1.a"])[0]
    np.testing.assert_allclose(merged["layers.1.a"], single, rtol=0.0, atol=1e-12)
