"""nuslerp: the library against its reference, whole tensors and slices, and what an interpolation has to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stockpot as sp
from reference import nuslerp, slerp, vectors
from reference.arrays import BF16, F32, F64, FLOAT_TYPES, AnyArray, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    SETTINGS,
    UNITS,
    check_identical,
    check_no_change,
    check_reference,
    check_threads,
    dtypes,
    inputs,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    sizes,
)

SHAPES = [(1,), (7,), (64,), (12, 31), (31, 12), (1, 40), (40, 1), (4, 3, 5), (6, 2, 3, 3), ()]
AXES: list[dict[str, Any]] = [
    {},
    {"nuslerp_flatten": False},
    {"nuslerp_flatten": False, "nuslerp_row_wise": True},
]


def _wide(seed: int, shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> tuple[AnyArray, list[AnyArray]]:
    """A base and two models that share half of their way from it."""
    return random_models(np.random.default_rng(seed), 2, shape, dtype, spread=0.4, common=0.4)


def _check(
    models: list[AnyArray], base: AnyArray | None, weight: list[float], dtype: np.dtype[Any] | None = None, **given: Any
) -> None:
    """The library against the reference.

    An error g of each scalar product moves a cosine by 3 g. A coefficient moves by at most its derivative times that:
    below 1 at an acute angle, and below 4 / sine^3 beyond.
    """
    merged, report = merge("nuslerp", models, base, weight=weight, dtype=dtype, **given)
    expected, cosine, linear = nuslerp.merge(models, base, weight=weight, **given)
    arrays = inputs(models, base)
    sine = np.sqrt(np.maximum(1.0 - cosine**2, 1e-16))
    derivative = float(np.max(np.where(linear, 0.0, np.where(cosine >= 0.0, 1.0, 4.0 / sine**3)), initial=0.0))
    slack = 3.0 * reduction(arrays, merged.dtype) * derivative
    largest = float(np.max(np.where(linear, 1.0, 1.0 / sine), initial=1.0))
    origin = [np.zeros_like(widen(models[0]))] if base is None else []
    check_reference(merged, expected, [*origin, *models], base, coefficients=slack, weight=2.0 * largest)
    if cosine.size == 1 and given.get("nuslerp_flatten") is not False:
        assert report["linear"] == bool(linear.item())
        assert report["cosine"] == pytest.approx(cosine.item(), abs=4.0 * reduction(arrays, merged.dtype))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("given", AXES, ids=str)
@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_reference(shape: tuple[int, ...], given: dict[str, Any], dtype: np.dtype[Any]) -> None:
    base, models = _wide(len(shape) + sum(shape), shape, dtype)
    _check(models, base, [0.3, 0.7], **given)
    _check(models, None, [2.0, 1.0], **given)


@pytest.mark.parametrize("given", AXES, ids=str)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_large(given: dict[str, Any], dtype: np.dtype[Any]) -> None:
    for shape in ((LARGE,), (300, 701), (3, 70_001)):
        base, models = _wide(1, shape, dtype)
        _check(models, base, [1.0, 3.0], **given)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types[:3])
    models[1] = (models[1].astype(F64) * -0.5).astype(models[1].dtype)
    _check(models, base, [0.4, 0.6], dtype=dtype)


def test_vectors() -> None:
    """Of whole tensors it is SLERP: of the models without a base, of the task vectors with one."""
    merged, report = merge("nuslerp", list(vectors.DELTAS[:2]))
    expected, _ = slerp.merge(vectors.DELTAS[0], vectors.DELTAS[1], t=0.5, dot_threshold=1.0)
    np.testing.assert_allclose(merged, expected, rtol=0.0, atol=1e-15)
    about, _ = merge("nuslerp", list(vectors.MODELS[:2]), vectors.BASE)
    np.testing.assert_allclose(about, vectors.BASE + expected, rtol=0.0, atol=1e-15)
    assert report["t"] == 0.5


def test_slices_are_merged_as_if_they_were_alone() -> None:
    _, models = _wide(2, (6, 50), F64)
    rows, _ = merge("nuslerp", models, weight=[1, 2], nuslerp_flatten=False)
    columns, report = merge("nuslerp", models, weight=[1, 2], nuslerp_flatten=False, nuslerp_row_wise=True)
    assert report["slices"] == 50
    for i in range(6):
        alone, _ = merge("nuslerp", [model[i].copy() for model in models], weight=[1, 2])
        assert same_bytes(rows[i].copy(), alone)
    for j in range(50):
        alone, _ = merge("nuslerp", [model[:, j].copy() for model in models], weight=[1, 2])
        np.testing.assert_allclose(columns[:, j], alone, rtol=1e-14, atol=1e-14)


def test_weights_that_cancel_meet_in_the_middle() -> None:
    base, models = _wide(3, 60, F32)
    merged, report = merge("nuslerp", models, base, weight=[0.5, -0.5])
    assert report["t"] == 0.5
    assert same_bytes(merged, merge("nuslerp", models, base)[0])


@pytest.mark.parametrize(("compat", "factor"), [("none", 0.25), ("mergekit", np.sin(np.pi / 8))])
def test_zero_vector(compat: str, factor: float) -> None:
    """mergekit takes a zero vector for orthogonal."""
    model = np.asarray(_wide(5, 60, F64)[1][0])
    for shape in ((60,), (12, 5)):
        pair = [np.zeros(shape), model.reshape(shape)]
        for axes in AXES:
            merged, _ = merge("nuslerp", pair, weight=[3, 1], compat=compat, **axes)
            np.testing.assert_allclose(merged, factor * pair[1], rtol=1e-14)


def test_sizes_do_not_matter_but_for_the_tool() -> None:
    """mergekit's floor of 1e-7 on norms bends the arc of tiny vectors."""
    _, models = _wide(6, 64, F64)
    merged, _ = merge("nuslerp", models)
    tiny = [model * 2.0**-60 for model in models]
    assert same_bytes(merge("nuslerp", tiny)[0], merged * 2.0**-60)
    expected, *_ = nuslerp.merge(tiny, compat="mergekit")
    tool, _ = merge("nuslerp", tiny, compat="mergekit")
    np.testing.assert_allclose(tool, expected, rtol=1e-14, atol=0.0)
    assert not np.allclose(tool, merged * 2.0**-60, rtol=1e-3, atol=0.0)


@SETTINGS
@given(seeds, sizes, dtypes, st.sampled_from(AXES))
def test_identical_models(seed: int, size: int, dtype: np.dtype[Any], given: dict[str, Any]) -> None:
    check_identical("nuslerp", seed, 2, size, dtype, with_base=False, weight=[0.3, 0.7], **given)
    check_identical("nuslerp", seed, 2, size, dtype, with_base=True, weight=[0.3, 0.7], **given)
    check_no_change("nuslerp", seed, 2, size, dtype, weight=[0.3, 0.7], **given)


@SETTINGS
@given(seeds, sizes, st.floats(0.05, 0.95))
def test_swapping_models_and_weights(seed: int, size: int, share: float) -> None:
    base, models = _wide(seed, size + 2, F64)
    there, _ = merge("nuslerp", models, base, weight=[1.0 - share, share])
    back, _ = merge("nuslerp", models[::-1], base, weight=[share, 1.0 - share])
    scale = np.sum(np.abs(np.stack([widen(base), *map(widen, models)])), axis=0)
    assert np.all(np.abs(there - back) <= 1e-12 * scale)


def test_threads() -> None:
    for dtype in (F32, BF16):
        for shape in ((UNITS,), (301, 700)):
            base, models = _wide(2, shape, dtype)
            for axes in AXES:
                check_threads("nuslerp", models, base, **axes)


def test_refusals() -> None:
    base, models = _wide(1, 10, F32)
    for wrong in ([models[0]], [*models, base]):
        with pytest.raises(sp.MethodError):
            sp.merge_tensors("nuslerp", wrong)
    with pytest.raises(sp.ParameterError, match="weight"):
        sp.merge_tensors("nuslerp", models, weight=[1.0, 2.0, 3.0])
