"""multislerp: the library against the author's tangent-space form, and what a mean direction has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import stockpot as sp
from reference import multislerp
from reference.arrays import BF16, F32, F64, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
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


def _check(
    models: list[AnyArray], base: AnyArray | None, *, dtype: np.dtype[Any] | None = None, **given: Any
) -> dict[str, Any]:
    """The library against the reference.

    A coefficient is a weight over a norm, times a mean norm over a length: four roots of products with an error g each,
    of which the length's is relative to the sum of weights and grows by the square of that over the length.
    """
    merged, report = merge("multislerp", models, base, dtype=dtype, **given)
    expected, length = multislerp.merge(models, base, **given)
    arrays = inputs(models, base)
    coefficients = np.abs(report.get("coefficients", [1.0]))
    total = float(np.sum(np.abs(report["weights"])))
    slack = 4.0 * reduction(arrays, merged.dtype) * float(coefficients.max()) * max(1.0, total / length) ** 2
    origin = [np.zeros_like(widen(models[0]))] if base is None else []
    weight = 1.0 + float(coefficients.sum())
    check_reference(merged, expected, [*origin, *models], base, coefficients=slack, weight=weight)
    if len(models) > 1:
        # The square of the length is off by that much, and its root by more where it is small.
        assert report["mean_length"] == pytest.approx(
            length, abs=4.0 * total**2 * reduction(arrays, merged.dtype) / length
        )
    return report


@pytest.mark.parametrize(("count", "size", "dtype"), [case for case in shapes_and_types() if case.values[1] > 0])
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(count * 1000 + size)
    base, models = random_models(rng, count, size, dtype, spread=0.3, common=0.4)
    weight = rng.uniform(0.2, 1.0, count).tolist()
    _check(models, None, weight=weight)
    if any((widen(model) != widen(base)).any() for model in models):
        _check(models, base, weight=weight)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    _check(models, base, weight=[1, 2, 3], dtype=dtype)


def test_the_weights_as_they_are() -> None:
    base, models = random_models(np.random.default_rng(1), 3, 200, F32, spread=0.3, common=0.4)
    for weight in ([0.6, 0.9, 0.1], [1.5, -0.25, 0.5]):
        report = _check(models, base, weight=weight, normalize_weights=False)
        assert report["weights"] == weight


def test_the_mean_direction_has_the_mean_length() -> None:
    rng = np.random.default_rng(2)
    models = [rng.standard_normal(500) * size for size in (1.0, 3.0, 0.5)]
    merged, _ = merge("multislerp", models, weight=[0.5, 0.25, 0.25])
    lengths = [float(np.linalg.norm(model)) for model in models]
    assert float(np.linalg.norm(merged)) == pytest.approx(np.dot([0.5, 0.25, 0.25], lengths), rel=1e-13)


def test_no_direction() -> None:
    """Opposite vectors, and zeros: the weighted sum, with a warning; the tool refuses more than two."""
    model = np.random.default_rng(3).standard_normal(50)
    merged, report = merge("multislerp", [model, -model])
    assert report["linear"] is True
    assert report["warnings"]
    assert not merged.any()
    pair, _ = merge("multislerp", [model, -2.0 * model], compat="mergekit", eps=1e-6)
    np.testing.assert_allclose(pair, -0.5 * model, rtol=1e-14)
    cancelling = [model, -0.5 * model, 0.0 * model]
    np.testing.assert_allclose(merge("multislerp", cancelling)[0], model / 6.0, rtol=1e-14)
    with pytest.raises(sp.MethodError, match="cancel"):
        sp.merge_tensors("multislerp", cancelling, compat="mergekit")
    zeros, report = merge("multislerp", [0.0 * model] * 3)
    assert not zeros.any()
    assert not report["warnings"]


def test_a_zero_vector_counts_in_the_length_only() -> None:
    model = np.random.default_rng(4).standard_normal(50)
    merged, _ = merge("multislerp", [model, np.zeros(50)], weight=[1.0, 3.0])
    np.testing.assert_allclose(merged, 0.25 * model, rtol=1e-14)


def test_sizes_do_not_matter_but_for_the_tool() -> None:
    """mergekit adds eps to the norms, which shrinks tiny tensors."""
    _, models = random_models(np.random.default_rng(5), 3, 64, F64)
    merged, _ = merge("multislerp", models)
    tiny = [model * 2.0**-60 for model in models]
    assert same_bytes(merge("multislerp", tiny)[0], merged * 2.0**-60)
    expected, _ = multislerp.merge(tiny, compat="mergekit", eps=1e-18)
    tool, _ = merge("multislerp", tiny, compat="mergekit", eps=1e-18)
    np.testing.assert_allclose(tool, expected, rtol=1e-12, atol=0.0)


@SETTINGS
@given(seeds, counts, sizes, dtypes, st.booleans())
def test_identical_models(seed: int, count: int, size: int, dtype: np.dtype[Any], with_base: bool) -> None:
    check_identical("multislerp", seed, count, size, dtype, with_base=with_base)
    check_no_change("multislerp", seed, count, size, dtype)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, F64, spread=0.3, common=0.4)
    order = rng.permutation(count)
    first, report = merge("multislerp", models, base)
    second, _ = merge("multislerp", [models[i] for i in order], base)
    size_of = np.sum(np.abs(np.stack([widen(base), *map(widen, models)])), axis=0)
    assume(report["mean_length"] > 1e-3)
    bound = 1e-13 * max(size, 8) / report["mean_length"] ** 2
    assert np.all(np.abs(first - second) <= bound * size_of)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("multislerp", models, base)
        check_threads("multislerp", models)


def test_many_large() -> None:
    _, models = random_models(np.random.default_rng(1), 40, LARGE, F32, spread=0.3, common=0.4)
    _check(models, None, weight=1.0)


def test_refusals() -> None:
    _, models = random_models(np.random.default_rng(6), 2, 10, F32)
    with pytest.raises(sp.ParameterError, match="sum to 0"):
        sp.merge_tensors("multislerp", models, weight=[1.0, -1.0])
