"""Checks that the tests of the methods on task vectors share, each of them a call per property."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import stockpot as sp

from . import dispatch, philox, task_vectors
from .arrays import F32, F64, AnyArray, Array, assert_one_rounding, random_models, same_bytes, widen
from .checks import Report, check_reference, inputs, merge, reduction

DYADIC = (1.0, 0.5, 2.0, 0.25, -0.5)
"""Weights whose products with task vectors are exact, so that no vote turns on a rounding."""

LARGEST = 16.0
"""No coefficient of a mean over dyadic weights is larger: at most 2, over a sum of at least 1/8 unless it is 0."""

NAME = "model.layers.3.mlp.up_proj.weight"


def dyadic_weights(count: int, seed: int = 0, *, positive: bool = False) -> list[float]:
    """One weight per model."""
    offered = [weight for weight in DYADIC if weight > 0.0 or not positive]
    chosen: list[float] = np.random.default_rng(seed).choice(offered, count).tolist()
    return chosen


def grid_models(
    rng: np.random.Generator, count: int, shape: int | tuple[int, ...], dtype: np.dtype[Any] = F32, levels: int = 3
) -> tuple[AnyArray, list[AnyArray]]:
    """Sixty-fourths of at most 8 bits: differences are exact, and zeros, equal magnitudes and even votes abound."""
    base = rng.integers(-96, 97, shape)
    models = [base + rng.integers(-levels, levels + 1, shape) for _ in range(count)]
    return (base / 64).astype(dtype), [(model / 64).astype(dtype) for model in models]


def check_method(
    method: str,
    models: Sequence[AnyArray],
    base: AnyArray,
    *,
    name: str = NAME,
    coefficients: float = 0.0,
    dtype: np.dtype[Any] | None = None,
    **given: Any,
) -> tuple[AnyArray, Report]:
    """The library against the reference: one rounding, the arithmetic, and an error of the coefficients."""
    merged, report = merge(method, models, base, name=name, dtype=dtype, **given)
    expected, _ = dispatch.merge(method, models, base, name=name, **given)
    assert merged.dtype == (dtype or base.dtype)
    check_reference(merged, expected, models, base, coefficients=coefficients, weight=LARGEST)
    return merged, report


def check_permutation(
    method: str, seed: int, count: int, size: int, dtype: np.dtype[Any], *, per_model: Sequence[str] = (), **given: Any
) -> None:
    """Models and their parameters in another order: within the same rounding of the same value."""
    rng = np.random.default_rng(seed)
    base, models = random_models(rng, count, size, dtype)
    order = rng.permutation(count)
    expected, _ = dispatch.merge(method, models, base, **given)
    moved = {key: [value[i] for i in order] if key in per_model else value for key, value in given.items()}
    for arrays, parameters in ((models, given), ([models[i] for i in order], moved)):
        merged, _ = merge(method, arrays, base, **parameters)
        check_reference(merged, expected, models, base, weight=LARGEST)


def check_scaling(method: str, seed: int, count: int, size: int, exponent: int, **given: Any) -> None:
    """Inputs times a power of two give the result times it, bit for bit."""
    base, models = random_models(np.random.default_rng(seed), count, size, F32)
    scale = np.float32(2.0**exponent)
    merged, _ = merge(method, models, base, name=NAME, **given)
    scaled, _ = merge(method, [model * scale for model in models], base * scale, name=NAME, **given)
    assert same_bytes(scaled, merged * scale)


def check_equal_models(method: str, seed: int, count: int, size: int, dtype: np.dtype[Any], **given: Any) -> None:
    """Models that are all equal give that model, but for the last bits of an F64 and the sign of a zero.

    A sum x_0 + d_i has no way to tell -0.0 from 0.0 where d_i is 0.
    """
    base, (model,) = random_models(np.random.default_rng(seed), 1, size, dtype)
    merged, _ = merge(method, [model] * count, base, **given)
    if dtype == F64:
        assert_one_rounding(merged, model, 4.0 * count * 2.0**-53 * (np.abs(base) + np.abs(model)))
    else:
        assert merged.dtype == dtype
        assert np.array_equal(widen(merged), widen(model))


def check_task_vector(method: str, models: Sequence[AnyArray], base: AnyArray, **given: Any) -> Array:
    """output: task_vector, in F64, is lambda * tau; base + it is what the weights are."""
    vector, _ = merge(method, models, base, name=NAME, output="task_vector", dtype=F64, **given)
    expected, _ = dispatch.merge(method, models, base, name=NAME, output="task_vector", **given)
    size = np.sum([np.abs(widen(array)) for array in inputs(models, base)], axis=0)
    np.testing.assert_array_less(np.abs(vector - expected), 4.0 * LARGEST * 2.0**-53 * size + 1e-300)
    weights, _ = merge(method, models, base, name=NAME, dtype=F64, **given)
    np.testing.assert_array_less(np.abs(widen(base) + vector - weights), 2.0 * 2.0**-53 * size + 1e-300)
    return widen(vector)


def changed(method: str, base: AnyArray, model: AnyArray, *, name: str = NAME, **given: Any) -> Array:
    """lambda * tau of a single model."""
    vector, _ = merge(method, [model], base, name=name, output="task_vector", dtype=F64, **given)
    return widen(vector)


def check_contradiction(method: str, message: str, **given: Any) -> None:
    """Settings that cannot both hold are refused, with their names."""
    base, models = random_models(np.random.default_rng(0), 2, 8, F32)
    with pytest.raises(sp.ParameterError, match=message):
        sp.merge_tensors(method, models, base, **given)


ADVERSARIAL = ("equal", "two values", "denormals", "zeros", "one element", "powers")


def adversarial(kind: str, size: int, dtype: np.dtype[Any] = F32) -> AnyArray:
    """A task vector, over a base of zeros, whose magnitudes are hard to rank: of both signs, in no order."""
    rng = np.random.default_rng(size)
    sign = rng.choice([-1.0, 1.0], size)
    tiny = float(np.frombuffer((1).to_bytes(dtype.itemsize, "little"), dtype)[0])
    magnitude = {
        "equal": np.full(size, 0.75),
        "two values": np.where(rng.random(size) < 0.4, 0.5, 0.25),
        "denormals": rng.integers(0, 5, size) * tiny,
        "zeros": np.where(rng.random(size) < 0.95, 0.0, 1.0),
        "one element": np.where(np.arange(size) == size // 2, 1.0, 0.0),
        "powers": 2.0 ** rng.integers(-12, 12, size),
    }[kind]
    return np.asarray(sign * magnitude).astype(dtype)


def check_trim(method: str, delta: AnyArray, share: float, rule: str, *, key: str = "density", **given: Any) -> None:
    """What stays of one model is exactly what the rule says: how many, which of equals, and unchanged."""
    base = np.zeros_like(delta)
    settings: dict[str, Any] = {key: share, "trim": rule, **given}
    vector = changed(method, base, delta, **settings)
    size = np.abs(widen(delta))
    if rule == "exact":
        number = 0 if share == 0.0 else min(size.size, max(1, int(share * size.size)))
        if share >= 1.0:
            number = size.size
        kept = np.zeros(size.size, bool)
        kept[sorted(range(size.size), key=lambda index: (-size[index], index))[:number]] = True
    else:
        k = size.size - int(share * size.size)
        kept = np.ones(size.size, bool) if share >= 1.0 or k == 0 else size >= sorted(size)[k - 1]
    assert np.array_equal(vector, np.where(kept, widen(delta), 0.0))


def rescale_error(
    models: Sequence[AnyArray], base: AnyArray, *, weight: Any = 1.0, name: str = NAME, output: Any = None, **given: Any
) -> float:
    """How far l1 rescaling may move a coefficient: two sums of magnitudes, times the largest factor."""
    options = task_vectors.Options(**{key: given[key] for key in ("density", "random_seed", "rescale") if key in given})
    deltas = task_vectors.task_vectors(models, base)
    bare, scaled = task_vectors.dropped(deltas, options, [(name, base.size)], wide=True)
    factor = np.abs(scaled).max(axis=1, initial=0.0) / np.maximum(np.abs(bare).max(axis=1, initial=0.0), 1e-300)
    largest = float((factor * np.abs(task_vectors.per_model(weight, len(models)))).max())
    return 2.0 * largest * reduction([*models, base], output or base.dtype)


def check_stream(method: str, name: str, size: int, seed: int, density: float, **given: Any) -> None:
    """Model by model, the elements kept are those of the documented stream, and unchanged without rescaling."""
    base = np.zeros(size, np.float32)
    model = np.arange(1, size + 1, dtype=np.float32)
    for index in (0, 2):
        models = [base.copy() for _ in range(3)]
        models[index] = model
        vector, _ = merge(
            method,
            models,
            base,
            name=name,
            output="task_vector",
            dtype=F64,
            density=density,
            random_seed=seed,
            rescale="none",
            **given,
        )
        kept = philox.kept(name, size, index, seed, density)
        assert np.array_equal(widen(vector), np.where(kept, widen(model), 0.0))


def drawn(
    method: str, size: int, *, name: str = NAME, seed: int = 0, model: int = 0, density: float, **given: Any
) -> AnyArray:
    """Which elements of model `model` the library keeps, of a task vector of ones."""
    base = np.zeros(size, np.float32)
    models = [base.copy() for _ in range(model + 1)]
    models[model] = np.ones(size, np.float32)
    vector, _ = merge(
        method,
        models,
        base,
        name=name,
        output="task_vector",
        density=density,
        random_seed=seed,
        rescale="none",
        **given,
    )
    kept: AnyArray = widen(vector) != 0.0
    return kept


def check_rates_and_independence(method: str, **given: Any) -> None:
    """Keep rates, and correlations between models, tensors and seeds, within five deviations."""
    size = 2**17
    for density in (0.1, 0.5, 0.9):
        draws = [
            drawn(method, size, density=density, **given),
            drawn(method, size, density=density, model=1, **given),
            drawn(method, size, density=density, name="model.layers.4.mlp.up_proj.weight", **given),
            drawn(method, size, density=density, seed=1, **given),
        ]
        deviation = (density * (1.0 - density)) ** 0.5
        normal = (np.stack(draws) - density) / deviation
        assert np.abs(normal.mean(axis=1)).max() < 5.0 / size**0.5
        correlation = normal @ normal.T / size - np.eye(len(draws))
        correlation[np.diag_indices(len(draws))] = 0.0
        assert np.abs(correlation).max() < 5.0 / size**0.5
        again = drawn(method, size, density=density, **given)
        assert np.array_equal(draws[0], again)


def check_della(method: str, density: float, epsilon: float, **given: Any) -> None:
    """The rate grows with the rank of the magnitude; words that are not near their probability decide as they must."""
    size = 2**16
    model = np.random.default_rng(3).standard_normal(size).astype(np.float32)
    base = np.zeros(size, np.float32)
    vector = changed(
        method,
        base,
        model,
        density=density,
        epsilon=epsilon,
        drop="della",
        rescale="none",
        random_seed=5,
        **given,
    )
    kept = vector != 0.0
    assert np.array_equal(vector, np.where(kept, widen(model), 0.0))
    options = task_vectors.Options(density, "della", epsilon)
    chance = np.asarray(task_vectors.keep_probability(widen(model), density, options, wide=False))
    allowed = 0.02 * abs(epsilon)
    word = philox.stream(NAME, size, 0, 5) / 2.0**32
    assert kept[word < chance - allowed].all()
    assert not kept[word > chance + allowed].any()
    quartile = 4 * np.argsort(np.argsort(np.abs(model))) // size
    for index in range(4):
        members = quartile == index
        rate, wanted = kept[members].mean(), chance[members].mean()
        assert abs(rate - wanted) < 5.0 * (wanted * (1.0 - wanted) / members.sum()) ** 0.5 + allowed
