"""Kernels over task vectors: exact thresholds, elected signs, TALL masks, random masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import philox
from reference.arrays import BF16, F16, F32, F64, FLOAT_TYPES, AnyArray, random_models, widen
from reference.checks import SETTINGS, UNITS, seeds, sizes

TINY = float(np.finfo(np.float32).smallest_subnormal)


def _ranked(array: AnyArray, base: AnyArray | None) -> Any:
    """Magnitudes as they are ranked: in float32, unless an input is float64. Largest first."""
    difference = np.abs(widen(array) - (0.0 if base is None else widen(base))).reshape(-1)
    narrow = array.dtype != F64 and (base is None or base.dtype != F64)
    return np.sort(difference.astype(np.float32) if narrow else difference)[::-1]


def _check_threshold(array: AnyArray, base: AnyArray | None, rank: int) -> None:
    found = sp.magnitude_threshold(array, base, rank=rank)
    ranked = _ranked(array, base)
    assert found.threshold == ranked[rank - 1]
    assert found.above == int(np.sum(ranked > ranked[rank - 1]))
    assert found.equal == int(np.sum(ranked == ranked[rank - 1]))


@SETTINGS
@given(seeds, sizes, st.sampled_from(FLOAT_TYPES), st.booleans(), st.floats(0.0, 1.0))
def test_threshold(seed: int, size: int, dtype: np.dtype[Any], with_base: bool, share: float) -> None:
    base, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    _check_threshold(model, base if with_base else None, 1 + int(share * (size - 1)))


@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_threshold_of_many(dtype: np.dtype[Any]) -> None:
    base, (model,) = random_models(np.random.default_rng(5), 1, UNITS, dtype)
    for rank in (1, 2, UNITS // 3, UNITS - 1, UNITS):
        _check_threshold(model, base, rank)


@pytest.mark.parametrize(
    "values",
    [
        [0.5] * 40,
        [0.25, -0.5] * 20,
        [0.0, -0.0] * 20,
        [TINY, -TINY, 2 * TINY, 0.0] * 10,
        [3e38, -3e38, 1.0, TINY] * 10,
        [np.nextafter(np.float32(1.0), np.float32(2.0)), 1.0] * 20,
    ],
    ids=["all equal", "two values", "zeros", "subnormals", "ends of the range", "neighbours"],
)
def test_threshold_of_adversarial_data(values: list[float]) -> None:
    array = np.array(values, np.float32)
    for rank in (1, 19, 20, 21, 40):
        _check_threshold(array, None, rank)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_infinities_have_no_rank(value: float) -> None:
    with pytest.raises(sp.NonFiniteError, match="element 3"):
        sp.magnitude_threshold(np.array([1.0, 2.0, 3.0, value], np.float32), rank=1)


@pytest.mark.parametrize("rank", [0, -1, 41, 2.0, "1"])
def test_rank_out_of_range(rank: Any) -> None:
    with pytest.raises(sp.ArgumentError, match="rank"):
        sp.magnitude_threshold(np.ones(40, np.float32), rank=rank)


def _vote(deltas: Any, rule: str) -> Any:
    signs = np.sign(deltas)
    squares = np.sum(deltas * deltas, axis=tuple(range(1, deltas.ndim)), keepdims=True)
    shares = np.divide(deltas * deltas, squares, where=squares > 0, out=np.zeros_like(deltas))
    if rule == "mass":
        return np.sign(deltas.sum(axis=0))
    if rule == "count":
        return np.sign(signs.sum(axis=0))
    if rule == "normmass":
        return np.sign((signs * shares).sum(axis=0))
    return np.take_along_axis(signs, shares.argmax(axis=0)[None], axis=0)[0]


@pytest.mark.parametrize("rule", ["mass", "count", "normfrac", "normmass"])
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_signs(rule: str, dtype: np.dtype[Any]) -> None:
    """Elements on a grid of binary fractions, where every sum is exact; even votes by each rule."""
    rng = np.random.default_rng(3)
    base = (rng.integers(-8, 8, (37, 50)) / 4).astype(dtype)
    deltas = rng.integers(-2, 3, (4, 37, 50)) / 8.0
    models = [(widen(base) + delta).astype(dtype) for delta in deltas]
    vote = _vote(deltas, rule)
    decided = vote != 0 if rule in ("mass", "count") else np.abs(vote) > 0
    majority = 1 if vote.sum() >= 0 else -1
    for zero_sign, even in (("plus", 1), ("drop", 0), ("majority", majority)):
        signs = sp.elect_signs(models, base, rule=rule, zero_sign=zero_sign)
        assert signs.dtype == np.int8
        assert signs.shape == base.shape
        if rule == "normmass":
            continue_at = np.abs(_shares(deltas)) > 1e-12  # shares that cancel only up to a rounding decide nothing
            assert np.array_equal(signs[continue_at], vote[continue_at])
        else:
            assert np.array_equal(signs, np.where(decided, vote, even))


def _shares(deltas: Any) -> Any:
    squares = np.sum(deltas * deltas, axis=(1, 2), keepdims=True)
    return (np.sign(deltas) * deltas * deltas / squares).sum(axis=0)


def test_signs_that_cannot_be() -> None:
    base = np.zeros(4, np.float32)
    for chosen in ({"rule": "none"}, {"rule": "Mass"}, {"zero_sign": "minus"}):
        with pytest.raises(sp.ParameterError):
            sp.elect_signs([base], base, **chosen)
    with pytest.raises(sp.ArgumentError):
        sp.elect_signs([], base)
    with pytest.raises(sp.ShapeError):
        sp.elect_signs([base], base[:3])
    with pytest.raises(sp.NonFiniteError):
        sp.elect_signs([np.array([1, np.nan, 0, 0], np.float32)], base)


@SETTINGS
@given(st.integers(0, 5000), st.integers(0, 2000), st.floats(0.0, 1.0), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_random_mask_is_the_documented_stream(start: int, count: int, keep: float, seed: int, model: int) -> None:
    """docs/masks.md, step by step, in plain integers (reference/philox.py)."""
    name = "model.layers.7.mlp.up_proj.weight"
    mask = sp.random_mask(count, keep=keep, seed=seed, name=name, model=model, start=start)
    assert np.array_equal(mask, philox.kept(name, start + count, model, seed, keep)[start:])


@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=str)
def test_random_mask_is_what_methods_apply(dtype: np.dtype[Any]) -> None:
    base = np.zeros((71, 31), dtype)
    models = [np.ones((71, 31), dtype), np.ones((71, 31), dtype)]
    for model in range(2):
        weight = [float(index == model) for index in range(2)]
        merged = sp.dare_linear(models, base, density=0.4, rescale="none", weight=weight, random_seed=9, name="w")
        assert np.array_equal(widen(merged) == 1.0, sp.random_mask((71, 31), keep=0.4, seed=9, name="w", model=model))


def test_random_mask_refuses() -> None:
    for chosen in ({"keep": 1.5}, {"keep": -0.1}, {"seed": -1}, {"seed": 2**64}, {"model": -1}, {"start": -4}):
        with pytest.raises(sp.ArgumentError):
            sp.random_mask(10, **{"keep": 0.5, **chosen})


def test_tall_masks_of_scalars() -> None:
    masks = sp.tall_masks([np.float32(2.0), np.float32(1.0)], np.float32(1.0))
    assert masks.shape == (2,)
    assert masks.tolist() == [True, False]
