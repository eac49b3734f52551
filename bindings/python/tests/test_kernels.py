"""The kernels on arrays, against numpy in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import stockpot as sp
from checkpoint_files import Models
from stockpot.kernels import cosines

pytestmark = pytest.mark.usefixtures("library")

HALVES = [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn]


def arrays(count: int, size: int = 1000, dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.standard_normal(size).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: np.dtype(d).name)
@settings(deadline=None)
@given(values=hnp.arrays(np.float32, 64, elements=st.floats(width=32)))
def test_cast_rounds_as_ml_dtypes(values: np.ndarray, dtype: Any) -> None:
    narrow = sp.cast(values, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(dtype)
    np.testing.assert_array_equal(narrow.astype(np.float32), expected.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(narrow.astype(np.float32)), np.signbit(expected.astype(np.float32)))


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: np.dtype(d).name)
def test_widening_is_exact(dtype: Any) -> None:
    width = np.dtype(dtype).itemsize
    every = np.arange(256**width, dtype=f"u{width}").view(dtype)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(sp.cast(every, "float32"), every.astype(np.float32))
        np.testing.assert_array_equal(sp.cast(every, "float64"), every.astype(np.float64))


def test_cast_of_integers() -> None:
    np.testing.assert_array_equal(sp.cast(np.arange(5), "int64"), np.arange(5))
    with pytest.raises(sp.DTypeError):
        sp.cast(np.arange(5), "float32")


def test_combine() -> None:
    inputs = arrays(3, dtype=np.float64)
    expected = 0.5 * inputs[0] - 2 * inputs[1] + 0.25 * inputs[2]
    np.testing.assert_allclose(sp.combine(inputs, [0.5, -2, 0.25]), expected, rtol=1e-12, atol=1e-13)


def test_combine_of_equal_inputs_is_that_input() -> None:
    one = arrays(1)[0]
    np.testing.assert_array_equal(sp.combine([one] * 3, [0.2, 0.5, 0.3]), one)


def test_combine_mixed_types() -> None:
    inputs = [*arrays(1), arrays(1)[0].astype(ml_dtypes.bfloat16)]
    assert sp.combine(inputs, [0.5, 0.5]).dtype == np.float32
    assert sp.combine(inputs, [0.5, 0.5], dtype="bf16").dtype == ml_dtypes.bfloat16


def test_combine_refuses() -> None:
    inputs = arrays(2)
    with pytest.raises(sp.ArgumentError, match="2 inputs and 1 coefficients"):
        sp.combine(inputs, [1])
    with pytest.raises(sp.ArgumentError, match="empty"):
        sp.combine([], [])
    with pytest.raises(sp.ArgumentError):
        sp.combine(inputs, [1, float("inf")])
    with pytest.raises(sp.ShapeError, match=r"inputs\[1\]"):
        sp.combine([inputs[0], inputs[1][:5]], [1, 1])
    with pytest.raises(sp.DTypeError):
        sp.combine([np.arange(3), np.arange(3)], [1, 1])


def test_gram() -> None:
    reference, *inputs = arrays(4, dtype=np.float64)
    deltas = np.array(inputs) - reference
    np.testing.assert_allclose(sp.gram(inputs, reference), deltas @ deltas.T, rtol=1e-12, atol=1e-12)
    raw = np.array(inputs)
    np.testing.assert_allclose(sp.gram(inputs), raw @ raw.T, rtol=1e-12, atol=1e-12)
    assert (sp.gram([array[:0] for array in inputs]) == 0).all()


def test_gram_is_the_same_for_any_number_of_threads() -> None:
    inputs = arrays(3, 300_000)
    np.testing.assert_array_equal(sp.gram(inputs, inputs[0], threads=1), sp.gram(inputs, inputs[0], threads=7))


def test_gram_refuses() -> None:
    inputs = arrays(2)
    with pytest.raises(sp.ShapeError, match="reference has shape"):
        sp.gram(inputs, inputs[0][:3])
    with pytest.raises(sp.ArgumentError, match="empty"):
        sp.gram([])
    with pytest.raises(sp.DTypeError):
        sp.gram([np.arange(3)])


def test_geometric_median() -> None:
    points = np.array([[0.0, 0], [4, 0], [0, 3], [4, 4]])
    found = sp.geometric_median_weights(points @ points.T)
    assert found.weights.sum() == pytest.approx(1)
    assert found.iterations > 0
    median = found.weights @ points
    distances = np.linalg.norm(points - median, axis=1)
    np.testing.assert_allclose(((points - median) / distances[:, None]).sum(axis=0), 0, atol=1e-6)
    assert found.objective == pytest.approx(distances.mean(), rel=1e-9)


def test_geometric_median_at_a_point() -> None:
    points = np.array([[0.0, 0], [4, 0], [0, 3], [1, 1]])
    found = sp.geometric_median_weights(points @ points.T)
    np.testing.assert_allclose(found.weights, [0, 0, 0, 1], atol=1e-9)


def test_geometric_median_without_steps_is_the_mean() -> None:
    points = np.array([[0.0, 0], [4, 0], [0, 3]])
    found = sp.geometric_median_weights(points @ points.T, [1, 1, 2], maxiter=0)
    np.testing.assert_allclose(found.weights, [0.25, 0.25, 0.5])


def test_geometric_median_refuses() -> None:
    with pytest.raises(sp.ArgumentError, match="square"):
        sp.geometric_median_weights(np.zeros((2, 3)))
    with pytest.raises(sp.ArgumentError, match="2 numbers"):
        sp.geometric_median_weights(np.eye(2), [1])
    with pytest.raises(sp.ArgumentError):
        sp.geometric_median_weights(np.eye(2), [1, -1])
    with pytest.raises(sp.ArgumentError):
        sp.geometric_median_weights(np.eye(2), maxiter=-1)
    with pytest.raises(sp.NonFiniteError):
        sp.geometric_median_weights(np.array([[1, np.nan], [np.nan, 1]]))


def test_cosines() -> None:
    matrix = np.array([[4.0, 0, 2], [0, 0, 0], [2, 0, 1]])
    np.testing.assert_array_equal(cosines(matrix), [[1, 0, 1], [0, 0, 0], [1, 0, 1]])


def test_angles() -> None:
    base = {"w": np.zeros((2, 2), np.float32), "n": np.zeros(2), "ids": np.arange(3)}
    right = {"w": np.array([[1, 0], [0, 0]], np.float32), "n": np.array([1.0, 1]), "ids": np.arange(3)}
    up = {"w": np.array([[0, 2], [0, 0]], np.float32), "n": np.array([-1.0, -1]), "ids": np.arange(3)}
    found = sp.angles([right, up, base], base)
    assert set(found) == {"w", "n"}
    half = np.pi / 2
    np.testing.assert_allclose(found["w"], [[0, half, half], [half, 0, half], [half, half, 0]])
    np.testing.assert_allclose(found["n"], [[0, np.pi, half], [np.pi, 0, half], [half, half, 0]])


def test_angles_of_checkpoints(models: Models) -> None:
    from_paths = sp.angles(models.models, models.base)
    in_memory = sp.angles(models.tensors[1:], models.tensors[0])
    assert set(from_paths) == {"a.bias", "a.weight", "b.weight", "scale"}
    for name, matrix in from_paths.items():
        np.testing.assert_array_equal(matrix, in_memory[name])
        deltas = np.array([(m[name].astype(float) - models.tensors[0][name]).ravel() for m in models.tensors[1:]])
        norms = np.linalg.norm(deltas, axis=1)
        expected = np.arccos(np.clip(deltas @ deltas.T / np.outer(norms, norms), -1, 1))
        np.fill_diagonal(expected, 0)
        np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_angles_refuse(tmp_path: Path) -> None:
    base = {"w": np.zeros(3)}
    with pytest.raises(sp.MissingTensorError, match=r"models\[0\] has no tensor 'w'"):
        sp.angles([{}], base)
    with pytest.raises(sp.ShapeError, match="w has shape"):
        sp.angles([{"w": np.zeros(4)}], base)
    with pytest.raises(sp.ArgumentError, match="at least one model"):
        sp.angles([], base)
    with pytest.raises(sp.ArgumentError, match="base is a list"):
        sp.angles([base], [1])  # type: ignore[arg-type]
    with pytest.raises(sp.NotFoundError):
        sp.angles([base], tmp_path / "nothing")
