"""nearswap: the library against its reference, and what a bounded step has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import nearswap
from reference.arrays import BF16, F32, F64, FLOAT_TYPES, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    SETTINGS,
    SIZES,
    UNITS,
    check_no_change,
    check_reference,
    check_threads,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    seeds,
    sizes,
)


def _pair(seed: int, size: int, dtype: np.dtype[Any]) -> tuple[AnyArray, list[AnyArray]]:
    return random_models(np.random.default_rng(seed), 1, size, dtype)


@pytest.mark.parametrize("size", [*SIZES, 1000, LARGE])
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("compat", ["none", "mergekit"])
def test_reference(size: int, dtype: np.dtype[Any], compat: str) -> None:
    base, models = _pair(size, size, dtype)
    for t in (0.0, 1e-7, 0.05, 0.2, 10.0):
        merged, _ = merge("nearswap", models, base, t=t, compat=compat)
        check_reference(merged, nearswap.merge(models, base, t=t, compat=compat), models, base)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types[:2])
    merged, _ = merge("nearswap", models, base, t=0.1, dtype=dtype)
    check_reference(merged, nearswap.merge(models, base, t=0.1), models, base)


@SETTINGS
@given(seeds, sizes, dtypes, st.floats(0.0, 0.5))
def test_a_weight_moves_by_t_at_most(seed: int, size: int, dtype: np.dtype[Any], t: float) -> None:
    """And where the model is no farther, it is the model's, bit for bit."""
    base, (model,) = _pair(seed, size, dtype)
    merged, report = merge("nearswap", [model], base, t=t)
    origin, target = widen(base), widen(model)
    distance = np.abs(target - origin)
    near = distance <= (np.float32(t) if dtype not in (F32, F64) else t)
    assert same_bytes(merged[near], model[near])
    assert report["swapped"] == pytest.approx(near.mean(), abs=1e-12)
    moved = widen(merge("nearswap", [model.astype(F64)], base.astype(F64), t=t)[0]) - origin
    assert np.all(np.abs(moved) <= t * (1 + 1e-12) + 1e-15 * np.abs(origin))
    assert np.all(moved * (target - origin) >= 0.0)


@SETTINGS
@given(seeds, sizes, dtypes)
def test_the_ends(seed: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = _pair(seed, size, dtype)
    assert same_bytes(merge("nearswap", models, base, t=0.0)[0], base)
    assert same_bytes(merge("nearswap", models, base, t=1e6)[0], models[0])
    check_no_change("nearswap", seed, 1, size, dtype, t=0.1)


def test_the_floor_of_the_tool() -> None:
    """Differences below 1e-6 are taken for 1e-6: a step of 1e-9 is a thousandth of the way."""
    base, model = np.zeros(1), np.array([2.0**-30])
    assert merge("nearswap", [model], base, t=1e-9)[0][0] == model[0]
    tool, _ = merge("nearswap", [model], base, t=1e-9, compat="mergekit")
    assert float(tool[0]) == pytest.approx(1e-3 * 2.0**-30, rel=1e-12)


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = _pair(2, UNITS, dtype)
        check_threads("nearswap", models, base, t=0.1)


def test_refusals() -> None:
    base, models = random_models(np.random.default_rng(1), 2, 10, F32)
    with pytest.raises(sp.ParameterError, match="'t'"):
        sp.merge_tensors("nearswap", models[:1], base)
    with pytest.raises(sp.ParameterError):
        sp.merge_tensors("nearswap", models[:1], base, t=-1.0)
    with pytest.raises(sp.MethodError):
        sp.merge_tensors("nearswap", models, base, t=0.1)
