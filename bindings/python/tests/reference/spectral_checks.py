"""Checks that the tests of the spectral methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import stockpot as sp

from . import dispatch
from .arrays import BF16, F16, F32, F64, AnyArray, Array, assert_one_rounding, random_models, same_bytes, widen
from .checks import check_reference, combination, merge

NAME = "model.layers.3.mlp.up_proj.weight"
RELATIVE = 1e-5
"""Of the largest element: what float32 leaves of singular vectors whose gaps are those of full-rank noise."""

SHAPES = [(24, 24), (48, 32), (32, 48), (40, 7), (7, 40), (1, 30), (30, 1), (1, 1)]
TYPES = (F32, BF16, F16, F64)


def task_vector(method: str, models: Sequence[AnyArray], base: AnyArray, *, name: str = NAME, **given: Any) -> Array:
    """lambda * tau in F64."""
    vector, _ = merge(method, models, base, name=name, output="task_vector", dtype=F64, **given)
    return widen(vector)


def assert_close(found: Array, expected: Array, relative: float = RELATIVE) -> None:
    """To a share of the largest element expected."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    worst = float(np.abs(found - expected).max(initial=0.0))
    assert worst <= relative * float(np.abs(expected).max(initial=0.0)), worst


def check_spectral(
    method: str,
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = NAME,
    relative: float = RELATIVE,
    **given: Any,
) -> Array:
    """The library's task vector against the reference's."""
    found = task_vector(method, models, base, name=name, **given)
    expected, _ = dispatch.merge(method, models, base, name=name, output="task_vector", **given)
    assert_close(found, expected, relative)
    return found


def check_weights(method: str, models: Sequence[AnyArray], base: AnyArray, **given: Any) -> None:
    """In the base's type: base + task vector, rounded once, but for the error of the task vector."""
    merged, _ = merge(method, models, base, name=NAME, **given)
    expected, _ = dispatch.merge(method, models, base, name=NAME, **given)
    assert merged.dtype == base.dtype
    off = RELATIVE * float(np.abs(expected - widen(base)).max(initial=0.0))
    assert_one_rounding(merged, expected, off + combination([base, *models], merged.dtype, weight=4.0))


def low_rank_models(
    rng: np.random.Generator, count: int, shape: tuple[int, int], rank: int
) -> tuple[AnyArray, list[AnyArray]]:
    """Task vectors of a low rank over a base of zeros, in F64, so that nothing rounds them to full rank."""
    rows, columns = shape
    models = [rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)) for _ in range(count)]
    return np.zeros(shape), models


def check_not_matrices(method: str, expected: str = "mean", **given: Any) -> None:
    """Vectors, kernels, scalars and excluded names take the mean (or the sum) of the weighted task vectors."""
    rng = np.random.default_rng(11)
    weight = [0.5, 2.0, 1.25]
    for shape, name in (((50,), "bias"), ((4, 3, 3, 3), "conv"), ((), "scale"), ((12, 9), "text.proj"), ((0, 4), "e")):
        base, models = random_models(rng, 3, shape, F32)
        vector = task_vector(method, models, base, name=name, weight=weight, exclude_keys=["*.proj"], **given)
        parts = [own * (widen(model) - widen(base)) for own, model in zip(weight, models, strict=True)]
        total = np.sum(parts, axis=0)
        np.testing.assert_allclose(vector, total / 3 if expected == "mean" else total, rtol=1e-12, atol=1e-13)
        merged, _ = merge(method, models, base, name=name, exclude_keys=["*.proj"], **given)
        want = widen(base) + sum(widen(m) - widen(base) for m in models) / (3 if expected == "mean" else 1)
        check_reference(merged, want, models, base, weight=4.0)


def check_exclusion_is_by_name(method: str, **given: Any) -> None:
    """A pattern that does not fit changes nothing, a glob and an exact name do."""
    base, models = random_models(np.random.default_rng(12), 3, (12, 9), F32)
    plain = task_vector(method, models, base, **given)
    assert np.array_equal(plain, task_vector(method, models, base, exclude_keys=["other", "*bias"], **given))
    excluded = task_vector(method, models, base, exclude_keys=[NAME], **given)
    assert np.array_equal(excluded, task_vector(method, models, base, exclude_keys=["*.mlp.*"], **given))
    assert np.abs(excluded - plain).max() > 1e-3


def check_convolutions(method: str, **given: Any) -> None:
    """reshape_conv takes a kernel as a matrix of its output channels."""
    base, models = random_models(np.random.default_rng(13), 3, (12, 3, 3, 2), F32)
    flat = [model.reshape(12, 18) for model in models]
    vector = task_vector(method, models, base, reshape_conv=True, **given)
    expected = task_vector(method, flat, base.reshape(12, 18), **given)
    assert np.array_equal(vector.reshape(12, 18), expected)
    assert np.abs(vector - task_vector(method, models, base, **given)).max() > 1e-3


def check_permutation(method: str, **given: Any) -> None:
    """The order of the models says nothing."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        base, models = random_models(rng, 4, (30, 20), F32)
        one = task_vector(method, models, base, **given)
        order = rng.permutation(4)
        assert_close(task_vector(method, [models[i] for i in order], base, **given), one)


def check_signs(method: str, **given: Any) -> None:
    """All task vectors turned turn the result; rows and columns turned or exchanged go with it."""
    base, models = random_models(np.random.default_rng(14), 3, (30, 20), F64)
    rng = np.random.default_rng(15)
    one = task_vector(method, models, base, **given)
    opposite = task_vector(method, [2.0 * base - model for model in models], base, **given)
    assert_close(opposite, -one)
    rows, columns = rng.choice([-1.0, 1.0], (30, 1)), rng.choice([-1.0, 1.0], (1, 20))
    turned = task_vector(method, [rows * model * columns for model in models], rows * base * columns, **given)
    assert_close(turned, rows * one * columns)
    order = rng.permutation(30)
    moved = task_vector(method, [model[order] for model in models], base[order], **given)
    assert_close(moved, one[order])


def check_transposition(method: str, **given: Any) -> None:
    """The transposed matrices give the transposed result."""
    base, models = random_models(np.random.default_rng(16), 3, (30, 20), F64)
    one = task_vector(method, models, base, **given)
    assert_close(task_vector(method, [model.T.copy() for model in models], base.T.copy(), **given), one.T)


def check_scale(method: str, **given: Any) -> None:
    """Task vectors of any size: the result has it too, and lambda scales it."""
    base, models = random_models(np.random.default_rng(17), 3, (30, 20), F64)
    zero = np.zeros_like(base)
    deltas = [model - base for model in models]
    one = task_vector(method, deltas, zero, **given)
    for exponent in (-60, -20, 20, 60):
        scaled = task_vector(method, [2.0**exponent * delta for delta in deltas], zero, **given)
        assert_close(scaled, 2.0**exponent * one)
    np.testing.assert_allclose(task_vector(method, deltas, zero, lambda_=0.3, **given), 0.3 * one, rtol=1e-12)
    assert_close(task_vector(method, deltas, zero, weight=0.5, **given), 0.5 * one)


def check_nothing_to_merge(method: str, **given: Any) -> None:
    """Models equal to the base give its bytes."""
    for dtype in TYPES:
        typed, _ = random_models(np.random.default_rng(18), 1, (12, 9), dtype)
        typed[0, 0], typed[1, 1] = 0.0, -0.0
        merged, _ = merge(method, [typed.copy(), typed.copy()], typed, **given)
        assert same_bytes(merged, typed)


def check_refused(method: str, **given: Any) -> None:
    """Values out of range are errors."""
    base, models = random_models(np.random.default_rng(19), 2, (6, 5), F32)
    for name, value in given.items():
        with pytest.raises(sp.ParameterError, match=name):
            sp.merge_tensors(method, models, base, **{name: value})
