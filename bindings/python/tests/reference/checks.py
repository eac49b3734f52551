"""What the tests of every method share: calling the library, the inputs to try, and the properties all methods have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import stockpot as sp

from .arrays import (
    BF16,
    F8_E4M3FN,
    F8_E5M2,
    F16,
    F32,
    F64,
    FLOAT_TYPES,
    AnyArray,
    Array,
    arithmetic,
    assert_one_rounding,
    flatten,
    random_models,
    same_bytes,
    widen,
)

Report = dict[str, Any]

COUNTS = (1, 2, 5, 9)
SIZES = (0, 1, 7, 64)
MANY = 100
LARGE = 2**16 + 3
"""One unit of work of the engine, and three elements of the next."""
UNITS = 3 * 2**16 + 5

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""Reproducible runs: a failure of continuous integration is a failure at one's desk."""

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(2, 9)
sizes = st.integers(1, 300)
dtypes = st.sampled_from(FLOAT_TYPES)


def shapes_and_types(counts: Sequence[int] = COUNTS) -> list[Any]:
    """K x D x type: everything small, and the large counts and sizes in one wide and one narrow type each."""
    cases = [(k, d, dtype) for k in counts for d in SIZES for dtype in FLOAT_TYPES]
    cases += [(k, LARGE, dtype) for k in (2, 5) for dtype in (F32, BF16)]
    cases += [(MANY, d, dtype) for d in (7, 64) for dtype in (F32, F64, BF16)]
    return [pytest.param(*case, id=f"{case[0]}x{case[1]}-{case[2]}") for case in cases]


def mixtures() -> Iterator[tuple[np.dtype[Any], ...]]:
    """Types of base and three models."""
    yield F32, BF16, F16, F64
    yield BF16, F32, BF16, F32
    yield BF16, F16, F8_E4M3FN, F8_E5M2
    yield F16, BF16, F16, BF16
    yield F64, F8_E5M2, F32, F16
    yield F8_E4M3FN, F16, F16, BF16


def mixed_models(types: Sequence[np.dtype[Any]], size: int = 64) -> tuple[AnyArray, list[AnyArray]]:
    """A base and models of the given types."""
    base, models = random_models(np.random.default_rng(3), len(types) - 1, size, F64)
    typed = [array.astype(dtype) for array, dtype in zip([base, *models], types, strict=True)]
    return typed[0], typed[1:]


def merge(
    method: str, models: Sequence[AnyArray], base: AnyArray | None = None, **parameters: Any
) -> tuple[AnyArray, Report]:
    """The library's result and report; its warnings are for people and not for tests of numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.StockpotWarning)
        merged, report = sp.merge_tensors(method, models, base, return_report=True, **parameters)
    return np.asarray(merged), report


def inputs(models: Sequence[AnyArray], base: AnyArray | None) -> list[AnyArray]:
    """All inputs, the base first."""
    return [*([] if base is None else [base]), *models]


def reduction(arrays: Sequence[AnyArray], output: np.dtype[Any]) -> float:
    """Bound of a scalar product's error, relative to the product of the norms.

    Binary64 throughout: one roundoff per addition. Binary32 products: at most 64 additions in binary32, and the
    rounding of the two differences and of the product.
    """
    if arithmetic(arrays, output) == 2.0**-53:
        return max(arrays[0].size, 8) * 2.0**-53
    return (64 + 3) * 2.0**-24


def combination(arrays: Sequence[AnyArray], output: np.dtype[Any], *, weight: float = 1.0) -> Array:
    """Bound, per element, of the error of a linear combination before it is rounded to the output.

    Every term is a difference of two inputs times a coefficient: a roundoff each for difference, product and sum.
    `weight` bounds the coefficients.
    """
    values = flatten(arrays)
    total: Array = np.abs(values).sum(axis=0).reshape(arrays[0].shape)
    return 4.0 * weight * arithmetic(arrays, output) * total


def spread(arrays: Sequence[AnyArray]) -> Array:
    """Per element, the sum of distances from the first input: what an error of the coefficients is multiplied by."""
    values = flatten(arrays)
    total: Array = np.abs(values - values[0]).sum(axis=0).reshape(arrays[0].shape)
    return total


def check_threads(method: str, models: Sequence[AnyArray], base: AnyArray | None = None, **parameters: Any) -> None:
    """The same bytes and the same decisions for 1, 2 and 7 threads."""
    first, report = merge(method, models, base, threads=1, **parameters)
    for threads in (2, 7):
        again, other = merge(method, models, base, threads=threads, **parameters)
        assert same_bytes(first, again), f"{threads} threads give other bytes"
        assert report == other, f"{threads} threads give another report"


def check_identical(
    method: str, seed: int, count: int, size: int, dtype: np.dtype[Any], *, with_base: bool, **parameters: Any
) -> None:
    """Models that are all equal give that model, bit for bit."""
    base, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge(method, [model] * count, base if with_base else None, **parameters)
    assert same_bytes(merged, model)


def check_no_change(method: str, seed: int, count: int, size: int, dtype: np.dtype[Any], **parameters: Any) -> None:
    """Models equal to the base give the base, bit for bit: also zeros with a sign, and subnormals."""
    base = special_values(np.random.default_rng(seed), size, dtype)
    merged, _ = merge(method, [base.copy() for _ in range(count)], base, **parameters)
    assert same_bytes(merged, base)


def special_values(rng: np.random.Generator, size: int, dtype: np.dtype[Any]) -> AnyArray:
    """Random finite values with zeros of both signs and the smallest subnormals of the type among them."""
    values = np.asarray(rng.standard_normal(size)).astype(dtype)
    tiny = np.frombuffer((1).to_bytes(dtype.itemsize, "little"), dtype)[0]
    for index, value in enumerate((0.0, -0.0, tiny, -tiny)):
        values[index::11] = value
    return values


def check_reference(
    merged: AnyArray,
    expected: Array,
    models: Sequence[AnyArray],
    base: AnyArray | None,
    *,
    coefficients: float = 0.0,
    weight: float = 1.0,
) -> None:
    """The library against a reference: one rounding, the arithmetic before it, and an error of the coefficients.

    `coefficients` bounds how far each coefficient may be off, `weight` their size.
    """
    arrays = inputs(models, base)
    slack = combination(arrays, merged.dtype, weight=weight) + coefficients * spread(arrays)
    assert_one_rounding(merged, expected, slack)


def check_report_explains(
    merged: AnyArray, base: AnyArray, models: Sequence[AnyArray], coefficients: Sequence[float]
) -> None:
    """The output is base + sum of the reported coefficients times the task vectors, to one rounding."""
    origin = widen(base)
    expected = origin + sum(c * (widen(model) - origin) for c, model in zip(coefficients, models, strict=True))
    weight = 1.0 + float(np.sum(np.abs(coefficients)))
    check_reference(merged, expected, models, base, weight=weight)
