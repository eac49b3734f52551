"""yoyo_fusion: the library against its reference, and what the robust average has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import vectors, yoyo_fusion
from reference.arrays import (
    BF16,
    F32,
    F64,
    AnyArray,
    Array,
    arithmetic,
    flatten,
    random_models,
    same_bytes,
    widen,
)
from reference.checks import (
    LARGE,
    MANY,
    SETTINGS,
    UNITS,
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
from reference.yoyo_fusion import Options

CENTRES: tuple[dict[str, Any], ...] = (
    {},
    {"use_geometric_median": False},
    {"use_geometric_median": False, "median": "standard", "mad_median": "standard"},
    {"use_geometric_median": False, "use_k_minus_one_truncation": False},
    {"anchor_index": 1},
    {"anchor_index": 2, "mad_median": "standard"},
)
V3: tuple[dict[str, Any], ...] = (
    {},
    {"use_geometric_median": False},
    {"use_geometric_median": False, "use_z_median": False},
    {"anchor_index": 1},
    {"use_geometric_median": False, "sign_reference_mode": 2},
    {"use_geometric_median": False, "median": "lower"},
)
LARGEST_ERROR = 1e-2
"""Of a coefficient: where more is possible, a comparison would say nothing."""


def _conditioning(models: list[AnyArray], options: dict[str, Any]) -> tuple[float, float]:
    """Least distance of neighbouring eigenvalues relative to the largest, and |u| / |R|.

    The error of the singular vectors is that of the Gram matrix over the first. The residuals R = u - m are differences
    of rounded numbers, so theirs is a roundoff times the second.
    """
    x = flatten(models)
    rms = np.sqrt((x**2).mean(axis=1) + 1e-8)
    u = x / rms[:, None]
    anchor = options.get("anchor_index", 0)
    residual = u - (u[anchor - 1] if anchor else np.median(u, axis=0))
    lengths = np.linalg.norm(residual, axis=1)
    cancellation = float(np.linalg.norm(u, axis=1).max() / max(lengths.max(), 1e-12))
    energy = np.linalg.svd(residual, compute_uv=False) ** 2
    if len(energy) < 2 or energy[0] == 0.0:
        return 1.0, cancellation
    return max(float(-np.diff(energy).max()) / float(energy[0]), 1e-300), cancellation


def _check(models: list[AnyArray], *, dtype: np.dtype[Any] | None = None, name: str = "", **options: Any) -> None:
    """The library against the reference, and the norm against its rule.

    A coefficient is off by the error of the Gram matrix over the gap of its eigenvalues, K of them together. The
    centre's iteration stops by a step shorter than 1e-6, which a rounding may decide otherwise: 1e-6 more.
    """
    merged, report = merge("yoyo_fusion", models, dtype=dtype, name=name, **options)
    if merged.size == 0:
        return
    if all(np.array_equal(widen(model), widen(models[0])) for model in models):
        assert same_bytes(merged, models[0].astype(merged.dtype))
        return
    expected, decision = yoyo_fusion.merge(models, name=name, **options)
    lengths = np.linalg.norm(flatten(models), axis=1)
    gap, cancellation = _conditioning(models, options)
    error = reduction(models, merged.dtype) + 4.0 * arithmetic(models, merged.dtype) * cancellation
    off = 16.0 * len(models) * error / gap
    if off > LARGEST_ERROR:
        length = float(np.linalg.norm(widen(merged)))
        assert length == pytest.approx(float(lengths.mean()), rel=0.2, abs=1e-6)
        return
    if not decision.degenerate:
        assert report["rank"] == decision.rank
        assert report["energy"] == pytest.approx(decision.energy, abs=off)
        assert report["scale"] == pytest.approx(decision.scale, abs=off)
    assert report["degenerate"] == decision.degenerate
    stop = 1e-6 if options.get("use_geometric_median", True) and not options.get("anchor_index") else 0.0
    values = [*models, np.zeros_like(models[0])]
    check_reference(merged, expected, values, None, coefficients=off + stop, weight=2.0)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((2, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    _, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    _check(models)
    _check(models, use_geometric_median=False)


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("options", CENTRES, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_variants(count: int, options: dict[str, Any], dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(count)
    _, models = random_models(rng, count, (20, 30), dtype)
    models[0] = (widen(models[0]) + 0.3 * rng.standard_normal((20, 30))).astype(dtype)
    _check(models, **options)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("options", V3, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_newest_version(count: int, options: dict[str, Any], dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(count)
    _, models = random_models(rng, count, (20, 30), dtype)
    models[0] = (widen(models[0]) + 0.3 * rng.standard_normal((20, 30))).astype(dtype)
    _check(models, version="v3", **options)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (1, 40), (25,), (4, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("name", ["layer.weight", "model.embed_tokens.weight", "lm_head.weight"])
def test_matrix_boost(shape: tuple[int, ...], name: str) -> None:
    """All singular values of a matrix's residual become the largest; embeddings, heads, vectors stay as they are."""
    _, models = random_models(np.random.default_rng(5), 4, shape, F64)
    merged, _ = merge("yoyo_fusion", models, name=name, version="v3", use_matrix_boost=True)
    expected, _ = yoyo_fusion.merge(models, name=name, version="v3", use_matrix_boost=True)
    np.testing.assert_allclose(merged, expected, rtol=0.0, atol=1e-8)
    plain, _ = merge("yoyo_fusion", models, name=name, version="v3")
    boosted = len(shape) == 2 and min(shape) > 1 and name == "layer.weight"
    assert same_bytes(plain, merged) or boosted or shape[0] == 1


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check([base, *models], dtype=dtype)


def test_many_large() -> None:
    _, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    merged, report = merge("yoyo_fusion", models, use_geometric_median=False)
    assert report["rank"] == MANY - 1
    length = float(np.linalg.norm(widen(merged)))
    assert length == pytest.approx(float(np.linalg.norm(flatten(models), axis=1).mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"use_geometric_median": False}, vectors.FUSION_LOWER),
        ({}, vectors.FUSION_GEOMETRIC),
        ({"anchor_index": 1}, vectors.FUSION_ANCHOR),
        ({"use_geometric_median": False, "use_k_minus_one_truncation": False}, vectors.FUSION_UNTRUNCATED),
        ({"use_geometric_median": False, "version": "v3"}, vectors.FUSION_V3),
    ],
    ids=["lower", "geometric", "anchor", "untruncated", "v3"],
)
def test_vectors(options: dict[str, Any], expected: Array) -> None:
    merged, _ = merge("yoyo_fusion", list(vectors.MODELS), **options)
    np.testing.assert_allclose(merged, expected, rtol=0.0, atol=vectors.ATOL)


def test_vectors_of_the_report_and_of_two_models() -> None:
    models = list(vectors.MODELS)
    _, report = merge("yoyo_fusion", models, use_geometric_median=False)
    assert report["scale"] == pytest.approx(vectors.FUSION_LOWER_SCALE, abs=vectors.ATOL)
    assert report["rank"] == 2
    _, report = merge("yoyo_fusion", models, use_geometric_median=False, version="v3")
    assert report["scale"] == pytest.approx(vectors.FUSION_V3_SCALE, abs=vectors.ATOL)
    merged, _ = merge("yoyo_fusion", models[:2], use_geometric_median=False)
    np.testing.assert_allclose(merged, vectors.FUSION_PAIR_LOWER, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, st.integers(3, 7), st.integers(30, 300))
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    _, models = random_models(rng, count, size, F64)
    first, report = merge("yoyo_fusion", models, use_geometric_median=False)
    second, other = merge("yoyo_fusion", [models[i] for i in rng.permutation(count)], use_geometric_median=False)
    assert report["rank"] == other["rank"]
    bound = 1e-12 / _conditioning(models, {"use_geometric_median": False})[0]
    np.testing.assert_allclose(first, second, rtol=0.0, atol=bound)


@SETTINGS
@given(seeds, st.integers(2, 9), st.integers(1, 300), dtypes)
def test_mean_norm_is_kept(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    """To the rounding of the output (half a unit of its last place per element) and the eps of the rule."""
    _, models = random_models(np.random.default_rng(seed), count, size, dtype, spread=0.3)
    merged, _ = merge("yoyo_fusion", models, dtype=F64)
    wanted = float(np.linalg.norm(flatten(models), axis=1).mean())
    assert float(np.linalg.norm(merged)) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@SETTINGS
@given(seeds, st.integers(3, 7), st.integers(30, 300), st.integers(0, 20))
def test_scaling_up_scales_the_result(seed: int, count: int, size: int, exponent: int) -> None:
    """But for the absolute eps of 1e-8 in the mean square, which is at most a few 1e-8 of values near 1."""
    _, models = random_models(np.random.default_rng(seed), count, size, F64)
    scale = 2.0**exponent
    merged, _ = merge("yoyo_fusion", models, use_geometric_median=False)
    scaled, _ = merge("yoyo_fusion", [model * scale for model in models], use_geometric_median=False)
    bound = 1e-6 / _conditioning(models, {"use_geometric_median": False})[0]
    np.testing.assert_allclose(scaled / scale, merged, rtol=0.0, atol=bound)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    for options in ({}, {"use_geometric_median": False}, {"anchor_index": 2}, {"version": "v3"}):
        check_identical("yoyo_fusion", seed, count, size, dtype, with_base=False, **options)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_one_model_is_copied(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("yoyo_fusion", seed, 1, size, dtype, with_base=False)


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_zeros_stay_zeros(version: str) -> None:
    merged, report = merge("yoyo_fusion", [np.zeros(30, np.float32)] * 3, version=version)
    assert same_bytes(merged, np.zeros(30, np.float32))
    assert report["degenerate"] is True


@SETTINGS
@given(seeds, st.integers(4, 300))
def test_two_models_about_their_lower_median_give_the_minimum(seed: int, size: int) -> None:
    """A known property of the seed's algorithm: the longer residual is rejected, the centre is the minimum."""
    _, models = random_models(np.random.default_rng(seed), 2, size, F64)
    merged, report = merge("yoyo_fusion", models, use_geometric_median=False)
    units = [model / (np.sqrt((model**2).sum() / size + 1e-8) + 1e-8) for model in models]
    minimum = np.minimum(*units)
    wanted = minimum * np.mean([np.linalg.norm(model) for model in models]) / np.linalg.norm(minimum)
    np.testing.assert_allclose(merged, wanted, rtol=0.0, atol=1e-6)
    assert report["warnings"]


def test_two_models_with_an_anchor_give_the_anchor() -> None:
    """Of two models with an anchor, the other one's weight is 0: the anchor, with the mean of the norms."""
    _, models = random_models(np.random.default_rng(3), 2, 80, F64)
    merged, report = merge("yoyo_fusion", models, anchor_index=2)
    mean = np.mean([np.linalg.norm(model) for model in models])
    np.testing.assert_allclose(merged, models[1] * mean / np.linalg.norm(models[1]), rtol=1e-7)
    assert report["warnings"]


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_opposite_models_cancel(dtype: np.dtype[Any]) -> None:
    """The standard median is zero, and so is the robust mean of what is left on either side of it."""
    _, (model,) = random_models(np.random.default_rng(3), 1, 80, dtype)
    merged, _ = merge("yoyo_fusion", [model, -model], median="standard")
    assert float(np.linalg.norm(merged)) <= 1e-5 * float(np.linalg.norm(model))


def test_an_outlier_is_rejected() -> None:
    """One of five models far off moves the plain average, and hardly the robust one."""
    rng = np.random.default_rng(12)
    _, models = random_models(rng, 5, 400, F64, spread=0.02, common=0.0)
    honest = np.mean(models[:4], axis=0)
    models[4] = models[4] + 0.5 * rng.standard_normal(400)
    average = float(np.linalg.norm(np.mean(models, axis=0) - honest))
    robust, report = merge("yoyo_fusion", models)
    robust = robust * np.linalg.norm(honest) / np.linalg.norm(robust)
    assert float(np.linalg.norm(robust - honest)) < 0.5 * average
    assert report["weights"][4] < 0.5 * min(report["weights"][:4])


def test_threads() -> None:
    for dtype in (F32, BF16):
        _, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("yoyo_fusion", models)
        check_threads("yoyo_fusion", models, use_geometric_median=False)
        check_threads("yoyo_fusion", models, anchor_index=1, version="v3")


def test_refusals() -> None:
    _, models = random_models(np.random.default_rng(1), 3, 10)
    with pytest.raises(sp.ParameterError, match="anchor_index"):
        sp.merge_tensors("yoyo_fusion", models, anchor_index=4)
    with pytest.raises(sp.ParameterError, match="v3"):
        sp.merge_tensors("yoyo_fusion", models, use_matrix_boost=True)


def test_options_are_the_references() -> None:
    """The reference and the library have the same defaults."""
    schema = {entry["name"]: entry for entry in sp.method_schema("yoyo_fusion")["parameters"]}
    for name in Options.__dataclass_fields__:
        assert schema[name]["default"] == getattr(Options(), name), name
