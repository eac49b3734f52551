"""dare_ties: the library against its reference, and the order of dropping, rescaling, trimming and election."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens.library import Library
from reference import dispatch, philox, vectors
from reference.arrays import BF16, F16, F32, F64, arithmetic, assert_one_rounding, random_models, same_bytes, widen
from reference.checks import (
    LARGE,
    SETTINGS,
    UNITS,
    check_no_change,
    check_threads,
    counts,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    ADVERSARIAL,
    NAME,
    adversarial,
    changed,
    check_contradiction,
    check_della,
    check_equal_models,
    check_method,
    check_permutation,
    check_rates_and_independence,
    check_scaling,
    check_stream,
    check_task_vector,
    check_trim,
    dyadic_weights,
    grid_models,
    rescale_error,
)


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types((1, 2, 3, 5, 9)))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size)
    check_method("dare_ties", models, base, density=0.6, rescale="none", weight=weight, random_seed=size)
    check_method("dare_ties", models, base, density=0.5, rescale="inverse", trim_density=0.4)
    if dtype in (F32, F64):  # among the few values of a narrow type, a factor may decide a vote or a rank by rounding
        given = {"density": 0.7, "weight": weight, "random_seed": 114514}
        check_method("dare_ties", models, base, coefficients=rescale_error(models, base, **given), **given)


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("dare_ties", models, base, density=[0.3, 0.5, 0.9], rescale="none", dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), 40, LARGE, F32)
    check_method("dare_ties", models, base, density=0.5, rescale="inverse", normalize=True)


@pytest.mark.parametrize("elect", ["mass", "count", "none"])
@pytest.mark.parametrize("zero_sign", ["plus", "majority", "drop"])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
def test_variants_with_even_votes(elect: str, zero_sign: str, dtype: np.dtype[Any]) -> None:
    base, models = grid_models(np.random.default_rng(1), 4, 600, dtype)
    for rule in ("mean", "sum"):
        given = {"elect": elect, "zero_sign": zero_sign, "merge": rule, "density": 0.5, "rescale": "inverse"}
        check_method("dare_ties", models, base, **given)
        check_method("dare_ties", models, base, trim_density=0.3, trim="inclusive", **given)


@pytest.mark.parametrize("name", ["", NAME])
@pytest.mark.parametrize("size", [5, 1000, UNITS])
@pytest.mark.parametrize("seed", [0, 114514])
def test_documented_stream(name: str, size: int, seed: int) -> None:
    check_stream("dare_ties", name, size, seed, 0.3)


def test_rates_and_independence() -> None:
    check_rates_and_independence("dare_ties")


def test_the_masks_of_dare_linear() -> None:
    """One model has nothing to elect: the same elements, the same factor."""
    base, models = random_models(np.random.default_rng(6), 1, 3000, F32)
    for rescale in ("l1", "inverse", "none"):
        given = {"name": NAME, "density": 0.3, "rescale": rescale, "random_seed": 9}
        linear, _ = merge("dare_linear", models, base, **given)
        assert same_bytes(merge("dare_ties", models, base, **given)[0], linear)


@pytest.mark.parametrize("density", [0.5, 0.9])
@pytest.mark.parametrize("epsilon", [0.2, -0.1])
def test_della(density: float, epsilon: float) -> None:
    check_della("dare_ties", density, epsilon)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("size", [1, 7, 1001])
def test_trimming_to_the_element(kind: str, size: int) -> None:
    delta = adversarial(kind, size)
    for density in (0.001, 0.2, 0.999, 1.0):
        check_trim("dare_ties", delta, density, "exact", key="trim_density")
        check_trim("dare_ties", delta, density, "inclusive", key="trim_density")


def test_trimming_counts_what_was_dropped() -> None:
    """trim_density is a share of all elements, taken from those that dropping has left."""
    model = np.random.default_rng(7).standard_normal(1000).astype(np.float32)
    kept = np.where(philox.kept(NAME, 1000, 0, 0, 0.5), widen(model), 0.0)
    wanted = np.zeros(1000)
    order = np.argsort(-np.abs(kept), kind="stable")[:200]
    wanted[order] = kept[order]
    given = {"density": 0.5, "trim_density": 0.2}
    bare = changed("dare_ties", np.zeros(1000, np.float32), model, rescale="none", **given)
    assert np.array_equal(bare, wanted)
    doubled = changed("dare_ties", np.zeros(1000, np.float32), model, rescale="inverse", **given)
    assert np.array_equal(doubled, 2.0 * wanted)


def test_density_one_is_ties() -> None:
    base, models = random_models(np.random.default_rng(8), 4, 2000, F32)
    for chosen in ({"normalize": True}, {"normalize": False}, {"merge": "max"}):
        whole, _ = merge("dare_ties", models, base, **chosen)
        assert same_bytes(whole, merge("ties", models, base, **chosen)[0])
        trimmed, _ = merge("dare_ties", models, base, trim_density=0.3, **chosen)
        assert same_bytes(trimmed, merge("ties", models, base, density=0.3, **chosen)[0])
    total, _ = merge("dare_ties", models, base)
    assert same_bytes(total, merge("ties", models, base, normalize=False)[0])


def test_preset() -> None:
    """fusion_bench: inclusive trimming, the majority for even votes, and 1/density."""
    base, models = grid_models(np.random.default_rng(3), 4, 501)
    given = {"density": 0.5, "trim_density": 0.2}
    preset, _ = check_method("dare_ties", models, base, compat="fusion_bench", **given)
    meaning = {"trim": "inclusive", "zero_sign": "majority", "rescale": "inverse"}
    assert same_bytes(preset, merge("dare_ties", models, base, name=NAME, **given, **meaning)[0])


def test_settings_that_contradict() -> None:
    check_contradiction("dare_ties", "normalize", normalize=True, merge="sum")
    check_contradiction("dare_ties", "normalize", normalize=False, merge="mean")
    check_contradiction("dare_ties", "normalize", normalize=True, merge="max")


def test_vectors() -> None:
    merged, _ = merge("dare_ties", list(vectors.MODELS), vectors.BASE, trim_density=0.5, normalize=True)
    np.testing.assert_allclose(merged, vectors.BASE + vectors.TIES_EXACT, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation_without_dropping(seed: int, count: int, size: int) -> None:
    weight = dyadic_weights(count, seed)
    check_permutation("dare_ties", seed, count, size, F32, per_model=("weight",), weight=weight, trim_density=0.5)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("dare_ties", seed, count, size, exponent, density=0.5, trim_density=0.5)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("dare_ties", seed, count, size, dtype, density=0.3)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("dare_ties", seed, count, size, dtype, normalize=True)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("dare_ties", models, base, density=0.4, rescale="inverse", weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("dare_ties", models, base, density=0.3)
        check_threads("dare_ties", models, base, density=0.3, trim_density=0.1, zero_sign="majority")


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_scopes(scope: str) -> None:
    """Dropping and rescaling go by tensor and name; trimming and majority by scope."""
    rng = np.random.default_rng(5)
    drawn = {name: grid_models(rng, 3, shape) for name, shape in (("z", (40, 9)), ("a", (17,)), ("k", (200,)))}
    base = {name: pair[0] for name, pair in drawn.items()}
    models = [{name: pair[1][index] for name, pair in drawn.items()} for index in range(3)]
    parameters = {"density": 0.5, "rescale": "inverse", "trim_density": 0.2, "zero_sign": "majority", "scope": scope}
    merged, _ = Library().checkpoint("dare_ties", models, base, parameters)
    expected, _ = dispatch.merge_checkpoint("dare_ties", models, base, **parameters)
    for name, want in expected.items():
        assert_one_rounding(merged[name], want, 8.0 * arithmetic([base[name]], F32))


def test_a_mean_is_not_rescaled_unless_asked_for() -> None:
    """Of what is left it is a mean already: 8 equal task vectors, half of each dropped, come out as they are."""
    base = np.zeros(4000, np.float32)
    model = np.random.default_rng(31).standard_normal(4000).astype(np.float32)
    given: dict[str, Any] = {"density": 0.5, "normalize": True}
    mean, _ = merge("dare_ties", [model] * 8, base, **given)
    assert np.array_equal(mean[mean != 0.0], model[mean != 0.0])
    asked, _ = merge("dare_ties", [model] * 8, base, rescale=True, **given)
    tool, _ = merge("dare_ties", [model] * 8, base, compat="mergekit", **given)
    assert same_bytes(asked, tool)
    assert float(np.median(asked[mean != 0.0] / model[mean != 0.0])) == pytest.approx(2.0, rel=0.05)
