"""slerp: the library against its reference, and what an interpolation on the sphere has to satisfy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import slerp, vectors
from reference.arrays import BF16, F32, F64, FLOAT_TYPES, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    SETTINGS,
    SIZES,
    UNITS,
    check_identical,
    check_reference,
    check_threads,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    sizes,
)

CASES = [(size, dtype) for size in SIZES for dtype in FLOAT_TYPES] + [(LARGE, F32), (LARGE, BF16)]


def _pair(seed: int, size: int, dtype: np.dtype[Any], spread: float = 1.5) -> list[AnyArray]:
    """Two tensors at a wide angle."""
    base, models = random_models(np.random.default_rng(seed), 1, size, dtype, spread=spread, common=0.0)
    return [base, models[0]]


def _check(pair: list[AnyArray], t: float, compat: str | None = None, **options: Any) -> None:
    """The library against the reference.

    An error g of the scalar products moves the cosine by 3 g, the angle by that over its sine, and a coefficient by at
    most that over the square of the sine: 3 g / sin^3 in all. The products are of one vector and the difference, so
    that the error is relative to the longer vector, and larger by the square of their ratio for the shorter.
    """
    chosen: dict[str, Any] = {} if compat is None else {"compat": compat}
    merged, report = merge("slerp", pair, t=t, **chosen, **options)
    expected, decision = slerp.merge(pair[0], pair[1], t=t, compat=compat)
    lengths = [float(np.linalg.norm(widen(model))) for model in pair]
    error = 3 * reduction(pair, merged.dtype)
    if min(lengths) > 0.0:
        error *= 1.0 + (max(lengths) / min(lengths)) ** 2
    assert report["linear"] == decision.linear
    assert report["cosine"] == pytest.approx(decision.cosine, abs=error)
    sine = 1.0 if decision.linear else math.sqrt(1.0 - decision.cosine**2)
    error = 0.0 if decision.linear else error / sine**3
    values = np.abs(widen(pair[0])) + np.abs(widen(pair[1]))
    check_reference(
        merged, expected, [*pair, values.astype(F64)] if error else pair, None, coefficients=error, weight=2 / sine
    )


@pytest.mark.parametrize(("size", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("t", [0.25, 0.5, 0.9])
def test_reference(size: int, dtype: np.dtype[Any], t: float) -> None:
    _check(_pair(size, size, dtype), t)


@pytest.mark.parametrize("compat", ["mergekit", "fusion_bench", "sd_mecha"])
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_reference_of_the_tools(compat: str, dtype: np.dtype[Any]) -> None:
    _check(_pair(3, 200, dtype), 0.3, compat)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    first, others = mixed_models(types)
    _check([first, (others[0].astype(F64) * -0.5).astype(others[0].dtype)], 0.4, dtype=dtype)


def test_vectors() -> None:
    models = list(vectors.MODELS[:2])
    merged, report = merge("slerp", models, t=0.5)
    np.testing.assert_allclose(merged, vectors.SLERP, rtol=0.0, atol=vectors.ATOL)
    assert report["cosine"] == pytest.approx(vectors.SLERP_COSINE, abs=vectors.ATOL)
    assert report["linear"] is False
    merged, _ = merge("slerp", list(vectors.DELTAS[:2]), t=0.5, compat="sd_mecha")
    np.testing.assert_allclose(merged, vectors.SLERP_DELTAS_UNIT, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_ends_are_exact(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    first, second = _pair(seed, size, dtype)
    assert same_bytes(merge("slerp", [second], first, t=0.0)[0], first)
    assert same_bytes(merge("slerp", [second], first, t=1.0)[0], second)


@SETTINGS
@given(seeds, sizes, st.floats(0.05, 0.95))
def test_swapping_the_ends_and_t(seed: int, size: int, t: float) -> None:
    first, second = _pair(seed, size, F64)
    there, report = merge("slerp", [first, second], t=t)
    back, _ = merge("slerp", [second, first], t=1.0 - t)
    sine = 1.0 if report["linear"] else math.sqrt(1.0 - report["cosine"] ** 2)
    scale = (np.abs(first) + np.abs(second)) / sine**3
    assert np.all(np.abs(there - back) <= 1e-13 * scale + 1e-15)


@SETTINGS
@given(seeds, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, size: int, exponent: int) -> None:
    pair = _pair(seed, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge("slerp", pair, t=0.3)
    scaled, _ = merge("slerp", [model * scale for model in pair], t=0.3)
    assert same_bytes(scaled, merged * scale)


@SETTINGS
@given(seeds, sizes, st.floats(0.0, 1.0))
def test_unit_vectors_stay_unit_vectors(seed: int, size: int, t: float) -> None:
    first, second = (array / np.linalg.norm(array) for array in _pair(seed, size + 2, F64))
    merged, report = merge("slerp", [first, second], t=t, compat="sd_mecha")
    sine = math.sqrt(max(1.0 - report["cosine"] ** 2, 1e-12))
    assert float(np.linalg.norm(merged)) == pytest.approx(1.0, abs=1e-13 / sine**2)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_identical_models(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    check_identical("slerp", seed, 2, size, dtype, with_base=False, t=0.3)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_opposite_models_are_interpolated_linearly(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    """cos = -1 says nothing about the way round: (1 - t) a + t (-a)."""
    model = _pair(seed, size, dtype)[0]
    merged, report = merge("slerp", [model, -model], t=0.25)
    assert report["linear"] is True
    check_reference(merged, 0.5 * widen(model), [model, -model], None)


@pytest.mark.parametrize(("compat", "factor"), [("none", 0.5), ("mergekit", math.sqrt(0.5))])
def test_zero_vector(compat: str, factor: float) -> None:
    """mergekit does not normalise a zero vector, finds a right angle, and gives 0.7071 of the other."""
    model = _pair(5, 60, F32)[0]
    merged, _ = merge("slerp", [np.zeros_like(model), model], t=0.5, compat=compat)
    check_reference(merged, factor * widen(model), [model, np.zeros_like(model)], None)


def test_threshold() -> None:
    """Cosine 0.8 is on the line below the threshold and on the sphere above."""
    pair = [np.array([1.0, 0.0]), np.array([0.8, 0.6])]
    assert merge("slerp", pair, t=0.5, dot_threshold=0.79)[1]["linear"] is True
    merged, report = merge("slerp", pair, t=0.5, dot_threshold=0.81)
    assert report["linear"] is False
    assert float(np.linalg.norm(merged)) == pytest.approx(1.0, abs=1e-15)


def test_threads() -> None:
    for dtype in (F32, BF16):
        check_threads("slerp", _pair(2, UNITS, dtype), t=0.4)


def test_refusals() -> None:
    first, second = _pair(1, 10, F32)
    with pytest.raises(sp.ParameterError, match="'t'"):
        sp.merge_tensors("slerp", [first, second])
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("slerp", [first, second], t=1.5)
    with pytest.raises(sp.MethodError):
        sp.merge_tensors("slerp", [first, second], first, t=0.5)
    with pytest.raises(sp.MethodError):
        sp.merge_tensors("slerp", [first], t=0.5)
