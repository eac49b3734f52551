"""geometric_median: the library against its reference, and what the point of least distance has to satisfy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import geometric_median, vectors
from reference.arrays import (
    BF16,
    F32,
    F64,
    AnyArray,
    Array,
    assert_one_rounding,
    flatten,
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
    Report,
    check_identical,
    check_reference,
    check_threads,
    counts,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)

FLAT = 1e-7
"""Where the iteration stops the objective is constant in binary64, and the weights are so to about the root of that."""


def _check(models: list[AnyArray], *, steps: int = 3, **options: Any) -> None:
    """A fixed number of steps, against the same steps on the vectors themselves.

    A step divides by distances. An error g of the Gram matrix, relative to the longest distance D, moves a distance d
    by g D^2 / d, and so a weight by g (D/d)^2 of itself; the steps add up.
    """
    kernel = {name: value for name, value in options.items() if name != "dtype"}
    merged, report = merge("geometric_median", models, maxiter=steps, **options)
    wanted = geometric_median.merge(models, maxiter=steps, **kernel)
    assert report["iterations"] <= steps
    points = flatten(models)
    distances = np.linalg.norm(points - wanted.point.reshape(1, -1), axis=1)
    if points.size == 0 or distances.max() == 0.0:
        assert same_bytes(merged, models[0].astype(merged.dtype))
        return
    if kernel.get("eps", 0.0) == 0.0 and report["iterations"] == 0 and steps > 0:
        _check_vertex(merged, report, models, np.broadcast_to(kernel.get("weight", 1.0), (len(models),)))
        return
    ratio = float(distances.max() / max(distances.min(), 1e-12 * distances.max()))
    off = 8.0 * (steps + 1) * reduction(models, merged.dtype) * ratio**2
    if off > 1e-2:
        return
    np.testing.assert_allclose(report["weights"], wanted.weights, rtol=0.0, atol=off)
    assert report["objective"] == pytest.approx(wanted.objective, rel=off)
    check_reference(merged, wanted.point, models, None, coefficients=off)


def _check_vertex(merged: AnyArray, report: Report, models: list[AnyArray], weight: Array) -> None:
    """A model that is the median itself is found without a step, and copied."""
    (vertex,) = np.flatnonzero(np.array(report["weights"]) == 1.0)
    points = flatten(models)
    assert geometric_median.pull(points, points[vertex], weight) < 1e-9 * weight.sum()
    assert_one_rounding(merged, points[vertex].reshape(merged.shape))


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types())
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    _, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    _check(models, eps=1e-6)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check([base, *models], dtype=dtype)


@pytest.mark.parametrize("count", [3, 4, 5, 8])
@pytest.mark.parametrize("start", ["mean", "median"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_variants(count: int, start: str, eps: float, steps: int) -> None:
    rng = np.random.default_rng(count)
    _, models = random_models(rng, count, 300, F64)
    models[0] = models[0] + 0.5 * rng.standard_normal(300)
    weight = rng.uniform(0.5, 1.5, count).tolist()
    _check(models, steps=steps, start=start, eps=eps, weight=weight)


def test_many_large() -> None:
    _, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    _check(models, steps=2)


def test_vectors() -> None:
    merged, report = merge("geometric_median", list(vectors.MODELS), eps=1e-6, maxiter=1000)
    np.testing.assert_allclose(report["weights"], vectors.MEDIAN_WEIGHTS, rtol=0.0, atol=1e-8)
    np.testing.assert_allclose(merged, vectors.MEDIAN, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("start", ["mean", "median"])
def test_no_step_is_the_start(start: str) -> None:
    _, models = random_models(np.random.default_rng(4), 4, 50, F64)
    merged, report = merge("geometric_median", models, start=start, maxiter=0)
    expected = np.mean(models, axis=0) if start == "mean" else np.median(models, axis=0)
    np.testing.assert_allclose(merged, expected, rtol=0.0, atol=1e-14)
    assert report["iterations"] == 0
    distance = np.mean([np.linalg.norm(model - expected) for model in models])
    assert report["objective"] == pytest.approx(distance, rel=1e-13)


@SETTINGS
@given(seeds, st.integers(3, 9), st.integers(2, 200))
def test_optimality(seed: int, count: int, size: int) -> None:
    """The others' pull at the result is at most the weight there; every model is farther in sum."""
    rng = np.random.default_rng(seed)
    _, models = random_models(rng, count, size, F64)
    weight = rng.uniform(0.5, 2.0, count)
    merged, report = merge("geometric_median", models, weight=weight.tolist(), maxiter=100_000)
    points = flatten(models)
    assert geometric_median.pull(points, merged, weight) < 1e-5 * weight.sum()
    for candidate in (*points, points.mean(axis=0), np.median(points, axis=0)):
        distance = weight @ np.linalg.norm(points - candidate, axis=1) / weight.sum()
        assert report["objective"] <= distance * (1.0 + 1e-12)


@SETTINGS
@given(seeds, st.integers(3, 9), st.integers(2, 300))
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    _, models = random_models(rng, count, size, F64)
    order = rng.permutation(count)
    first, report = merge("geometric_median", models, maxiter=10, ftol=0.0)
    second, other = merge("geometric_median", [models[i] for i in order], maxiter=10, ftol=0.0)
    np.testing.assert_allclose(np.array(report["weights"])[order], other["weights"], rtol=0.0, atol=FLAT)
    np.testing.assert_allclose(first, second, rtol=0.0, atol=FLAT)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact_without_eps(seed: int, count: int, size: int, exponent: int) -> None:
    _, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("geometric_median", models)
    scaled, _ = merge("geometric_median", [model * scale for model in models])
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("geometric_median", seed, count, size, dtype, with_base=False)
    check_identical("geometric_median", seed, count, size, dtype, with_base=False, start="median", eps=1e-6)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("geometric_median", seed, 1, size, dtype, with_base=False)


@SETTINGS
@given(seeds, sizes)
def test_two_models_give_their_midpoint(seed: int, size: int) -> None:
    _, models = random_models(np.random.default_rng(seed), 2, size, F64)
    merged, report = merge("geometric_median", models)
    assert report["weights"] == pytest.approx([0.5, 0.5], abs=1e-12)
    np.testing.assert_allclose(merged, np.mean(models, axis=0), rtol=0.0, atol=1e-12)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_opposite_models_give_zero(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    _, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge("geometric_median", [model, -model])
    bound = 16 * reduction([model], merged.dtype) * np.abs(widen(model))
    assert np.all(np.abs(widen(merged)) <= bound)


def test_majority_at_one_point_wins() -> None:
    """Breakdown point one half: two equal models among three are the median, whatever the third is."""
    _, (model, other) = random_models(np.random.default_rng(5), 2, 80, F32)
    merged, _ = merge("geometric_median", [model, 1000 * other, model])
    assert same_bytes(merged, model)


def test_heavy_model_is_the_median() -> None:
    _, models = random_models(np.random.default_rng(5), 3, 80, F32)
    merged, _ = merge("geometric_median", models, weight=[1.0, 5.0, 1.0])
    assert same_bytes(merged, models[1])


def test_start_at_a_model_that_is_not_the_median() -> None:
    """The mean is the third model exactly; plain Weiszfeld with a floor stays there, Vardi and Zhang's step leaves."""
    points = np.array([[4.0, 0.0], [-2.0, 3.0], [0.0, 0.0], [-2.0, -3.0]])
    points[2] = points[[0, 1, 3]].mean(axis=0)
    weight = [1.0, 1.0, 0.05, 1.0]
    merged, report = merge("geometric_median", list(points), weight=weight, maxiter=10_000)
    assert geometric_median.pull(points, merged, np.array(weight)) < 1e-5
    assert (
        report["objective"] < 0.9999 * merge("geometric_median", list(points), weight=weight, maxiter=0)[1]["objective"]
    )


def test_collinear_models_have_the_scalar_median() -> None:
    direction = np.random.default_rng(5).standard_normal(30)
    merged, _ = merge("geometric_median", [t * direction for t in (0.0, 1.0, 1.5, 7.0, 100.0)], maxiter=100_000)
    np.testing.assert_allclose(merged, 1.5 * direction, rtol=0.0, atol=1e-6)


def test_floor_turns_tiny_tensors_into_their_mean() -> None:
    rng = np.random.default_rng(6)
    _, models = random_models(rng, 3, 64, F64)
    models[0] = models[0] + rng.standard_normal(64)
    tiny = [2.0**-27 * model for model in models]
    free = merge("geometric_median", tiny)[1]["weights"]
    assert free == pytest.approx(merge("geometric_median", models)[1]["weights"], abs=1e-12)
    assert merge("geometric_median", tiny, eps=1e-6)[1]["weights"] == pytest.approx([1 / 3] * 3, abs=1e-12)


def test_base_as_one_more_point() -> None:
    base, models = random_models(np.random.default_rng(7), 3, 64, F64)
    merged, report = merge("geometric_median", models, base, include_base=True, maxiter=10)
    wanted = geometric_median.merge([*models, base], maxiter=10)
    np.testing.assert_allclose(merged, wanted.point, rtol=0.0, atol=1e-11)
    assert sorted(report["weights"]) == pytest.approx(sorted(wanted.weights), abs=1e-10)
    without, _ = merge("geometric_median", models, base, maxiter=10)
    assert same_bytes(without, merge("geometric_median", models, maxiter=10)[0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        _, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("geometric_median", models)
        check_threads("geometric_median", models, start="median")


@pytest.mark.filterwarnings("ignore")
def test_model_scope(tmp_path: Path) -> None:
    """One set of weights for the whole model, from distances over all tensors."""
    rng = np.random.default_rng(9)
    names = ("layers.0.a", "layers.1.a", "head")
    drawn = {name: random_models(rng, 4, (6, 5), F64, spread=rng.uniform(0.1, 1.0))[1] for name in names}
    models = [{name: drawn[name][index] for name in names} for index in range(4)]
    for index, model in enumerate(models):
        sp.save(model, tmp_path / f"model-{index}")
    recipe = {
        "merge_method": "geometric_median",
        "models": [{"model": str(tmp_path / f"model-{index}")} for index in range(4)],
        "parameters": {"scope": "model", "maxiter": 10},
    }
    sp.merge(recipe, tmp_path / "merged", progress=False)
    merged = read_checkpoint(tmp_path / "merged")
    points = np.stack([np.concatenate([model[name].reshape(-1) for name in names]) for model in models])
    weights = geometric_median.weiszfeld(points, maxiter=10).weights
    for name in names:
        expected = np.tensordot(weights, np.stack([model[name] for model in models]), axes=1)
        np.testing.assert_allclose(merged[name], expected, rtol=0.0, atol=1e-11)
