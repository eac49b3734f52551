"""yoyo_scale: the library against its reference, its theorem, and what its coefficients have to satisfy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import vectors, yoyo_scale
from reference.arrays import (
    BF16,
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
    check_report_explains,
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

SOLVERS = ("clamp", "qp")
ENUMERABLE = 9
"""Largest number of models whose active sets the reference of the constrained problem goes through."""


def _deltas(models: list[AnyArray], base: AnyArray) -> Array:
    return np.stack([(widen(model) - widen(base)).reshape(-1) for model in models])


def _check(models: list[AnyArray], base: AnyArray, solver: str, **extra: Any) -> None:
    """The library against the reference.

    An error g of the Gram matrix moves the solution by at most 2 g cond(H) of itself. Where that is no bound (fewer
    elements than models, say), the output is still held to what the report says of it, and that to the constraints.
    """
    merged, report = merge("yoyo_scale", models, base, solver=solver, **extra)
    lambdas = np.array(report["lambdas"])
    check_report_explains(merged, base, models, report["lambdas"])
    assert np.all(lambdas >= 0.0)
    assert lambdas.sum() <= 1.0 + 1e-14
    gram = _deltas(models, base) @ _deltas(models, base).T
    if not gram.any():
        assert same_bytes(merged, base.astype(merged.dtype))
        return
    if solver == "qp" and len(models) > ENUMERABLE:
        return
    matrix = gram + 1e-12 * np.eye(len(models))
    free = np.linalg.solve(matrix, yoyo_scale.target(gram))
    off = 2.0 * reduction(inputs(models, base), merged.dtype) * float(np.linalg.cond(matrix))
    off *= 1.0 + float(np.abs(free).sum())
    if off > 1e-3:
        return
    expected, wanted = yoyo_scale.merge(models, base, solver=solver)
    np.testing.assert_allclose(lambdas, wanted, rtol=0.0, atol=off + 1e-12)
    check_reference(merged, expected, models, base, coefficients=off, weight=2.0)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((2, 5, 9)))
@pytest.mark.parametrize("solver", SOLVERS)
def test_reference(count: int, size: int, dtype: np.dtype[Any], solver: str) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    _check(models, base, solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(6))
def test_active_constraints(solver: str, seed: int) -> None:
    """Models of very different length and direction: some coefficients are 0, and some sums are 1."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(200)
    common = rng.standard_normal(200)
    models = [base + common + rng.uniform(0.1, 2.0) * rng.standard_normal(200) for _ in range(5)]
    models += [base - 0.4 * common + rng.standard_normal(200), base + 0.3 * common]
    _check(models, base, solver)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check(models, base, "clamp", dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    _check(models, base, "clamp")


def _with_gram(gram: Array, size: int, seed: int) -> tuple[Array, list[Array]]:
    """A base of zero and models whose Gram matrix is the given one."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((size, len(gram))))[0]
    values, directions = np.linalg.eigh(gram)
    root = directions * np.sqrt(np.maximum(values, 0.0))
    return np.zeros(size), list(root @ basis.T)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("cosine", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("solver", SOLVERS)
def test_theorem(count: int, cosine: float, solver: str) -> None:
    """At equal norms and equal pairwise cosines YOYO Scale is Model Stock: lambda_i = c / (1 + (N-1) c)."""
    gram = 2.25 * ((1.0 - cosine) * np.eye(count) + cosine * np.ones((count, count)))
    base, models = _with_gram(gram, 40, count)
    scaled, report = merge("yoyo_scale", models, base, solver=solver, eps=0.0)
    stock, other = merge("model_stock", models, base)
    np.testing.assert_allclose(scaled, stock, rtol=0.0, atol=1e-12)
    assert sum(report["lambdas"]) == pytest.approx(other["t"], abs=1e-12)
    share = cosine / (1.0 + (count - 1) * cosine)
    np.testing.assert_allclose(report["lambdas"], share, rtol=0.0, atol=1e-12)


def test_vectors() -> None:
    for solver in SOLVERS:
        _, report = merge("yoyo_scale", list(vectors.MODELS), vectors.BASE, solver=solver)
        np.testing.assert_allclose(report["lambdas"], vectors.SCALE_LAMBDAS, rtol=0.0, atol=vectors.ATOL)
    base, models = _with_gram(vectors.SCALE_GRAM, 8, 1)
    clamped = merge("yoyo_scale", models, base)[1]["lambdas"]
    np.testing.assert_allclose(clamped, vectors.SCALE_GRAM_CLAMP, rtol=0.0, atol=1e-9)
    exact = merge("yoyo_scale", models, base, solver="qp")[1]["lambdas"]
    np.testing.assert_allclose(exact, vectors.SCALE_GRAM_QP, rtol=0.0, atol=1e-9)


@SETTINGS
@given(seeds, st.integers(2, 7), st.integers(20, 200))
def test_qp_is_optimal(seed: int, count: int, size: int) -> None:
    """The conditions of Karush, Kuhn and Tucker hold, and no clamped solution has a better objective."""
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64, common=rng.uniform(0.0, 0.3))
    gram, b = yoyo_scale.system(_deltas(models, base))
    values = {}
    for solver in SOLVERS:
        x = np.array(merge("yoyo_scale", models, base, solver=solver, eps=0.0)[1]["lambdas"])
        values[solver] = 0.5 * x @ gram @ x - b @ x
        if solver == "qp":
            assert yoyo_scale.kkt_residual(gram, b, x) < 1e-9
    assert values["qp"] <= values["clamp"] + 1e-12 * np.abs(b).max()


@SETTINGS
@given(seeds, counts, st.integers(20, 300))
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64)
    order = rng.permutation(count)
    first, report = merge("yoyo_scale", models, base)
    second, other = merge("yoyo_scale", [models[i] for i in order], base)
    np.testing.assert_allclose(np.array(report["lambdas"])[order], other["lambdas"], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(first, second, rtol=0.0, atol=1e-9)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact_without_eps(seed: int, count: int, size: int, exponent: int) -> None:
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("yoyo_scale", models, base, eps=0.0)
    scaled, _ = merge("yoyo_scale", [model * scale for model in models], base * scale, eps=0.0)
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes, st.sampled_from(SOLVERS))
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any], solver: str) -> None:
    """Without eps the coefficients add up to 1, and the result is the model (in F64 to its last bit)."""
    if dtype != F64:
        check_identical("yoyo_scale", seed, count, size, dtype, with_base=True, solver=solver, eps=0.0)
        return
    base, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, report = merge("yoyo_scale", [model] * count, base, solver=solver, eps=0.0)
    assert sum(report["lambdas"]) == pytest.approx(1.0, abs=1e-13)
    assert_one_rounding(merged, model, 1e-13 * np.abs(model - base))


def test_identical_models_share_equally() -> None:
    base, (model,) = random_models(np.random.default_rng(3), 1, 50, F64)
    lambdas = merge("yoyo_scale", [model] * 4, base, eps=0.0)[1]["lambdas"]
    np.testing.assert_allclose(lambdas, 0.25, rtol=0.0, atol=1e-9)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    for solver in SOLVERS:
        check_no_change("yoyo_scale", seed, count, size, dtype, solver=solver)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("yoyo_scale", seed, 1, size, dtype, with_base=True)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_opposite_task_vectors_give_the_base(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    """Neither supports the other: both coefficients are 0, and the base is copied."""
    base = np.zeros(size, dtype)
    _, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    for solver in SOLVERS:
        merged, report = merge("yoyo_scale", [model, -model], base, solver=solver)
        assert report["lambdas"] == [0.0, 0.0]
        assert same_bytes(merged, base)


def test_a_zero_task_vector_is_left_out() -> None:
    base, models = random_models(np.random.default_rng(6), 3, 60, F64)
    for solver in SOLVERS:
        _check([*models, base.copy()], base, solver)
        lambdas = merge("yoyo_scale", [*models, base.copy()], base, solver=solver)[1]["lambdas"]
        assert lambdas[-1] == pytest.approx(0.0, abs=1e-12)


def test_eps_is_absolute() -> None:
    """As published: task vectors shorter than the root of eps are drawn to the base, unless eps is 0."""
    base, models = random_models(np.random.default_rng(6), 3, 64, F64)
    tiny = [2.0**-27 * array for array in (base, *models)]
    full = sum(merge("yoyo_scale", models, base, eps=0.0)[1]["lambdas"])
    assert sum(merge("yoyo_scale", tiny[1:], tiny[0])[1]["lambdas"]) < 0.01 * full
    assert sum(merge("yoyo_scale", tiny[1:], tiny[0], eps=0.0)[1]["lambdas"]) == pytest.approx(full, rel=1e-12)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    vector, _ = merge("yoyo_scale", models, base, output="task_vector", dtype=F64)
    expected = yoyo_scale.merge(models, base)[0] - widen(base)
    check_reference(vector, expected, models, base, coefficients=1e-12)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("yoyo_scale", models, base)


@pytest.mark.filterwarnings("ignore")
def test_scopes_and_table(tmp_path: Path) -> None:
    """Grams summed over the layer or the model; yoyo_scale.csv tells the coefficients to six decimals."""
    rng = np.random.default_rng(9)
    names = ("layers.0.a", "layers.0.b", "layers.1.a", "head")
    drawn = {name: random_models(rng, 3, (6, 5), F64, common=rng.uniform(0.1, 0.4)) for name in names}
    base = {name: drawn[name][0] for name in names}
    models = [{name: drawn[name][1][index] for name in names} for index in range(3)]
    sp.save(base, tmp_path / "base")
    for index, model in enumerate(models):
        sp.save(model, tmp_path / f"model-{index}")
    recipe = {
        "merge_method": "yoyo_scale",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / f"model-{index}")} for index in range(3)],
    }
    groups = {
        "tensor": [["layers.0.a"], ["layers.0.b"], ["layers.1.a"], ["head"]],
        "layer": [["layers.0.a", "layers.0.b"], ["layers.1.a"], ["head"]],
        "model": [list(names)],
    }
    for scope, members in groups.items():
        output = tmp_path / scope
        sp.merge({**recipe, "parameters": {"scope": scope}}, output, progress=False)
        merged = read_checkpoint(output)
        rows = [line.split(",") for line in (output / "yoyo_scale.csv").read_text().splitlines()]
        assert rows[0] == ["tensor_name", "model_0_lambda", "model_1_lambda", "model_2_lambda"]
        table = {row[0]: [float(value) for value in row[1:]] for row in rows[1:]}
        for group in members:
            deltas = [np.concatenate([(model[n] - base[n]).reshape(-1) for n in group]) for model in models]
            lambdas = yoyo_scale.coefficients(np.stack(deltas) @ np.stack(deltas).T)
            for name in group:
                expected = base[name] + sum(
                    value * (model[name] - base[name]) for value, model in zip(lambdas, models, strict=True)
                )
                np.testing.assert_allclose(merged[name], expected, rtol=0.0, atol=1e-11)
                np.testing.assert_allclose(table[name], lambdas, rtol=0.0, atol=0.51e-6)
