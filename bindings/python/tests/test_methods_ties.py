"""ties: the library against its reference, what trimming keeps to the element, votes that are even, and scopes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens.library import Library
from reference import dispatch, task_vectors, vectors
from reference.arrays import (
    BF16,
    F16,
    F32,
    F64,
    AnyArray,
    arithmetic,
    assert_one_rounding,
    random_models,
    same_bytes,
    widen,
)
from reference.checks import (
    LARGE,
    MANY,
    SETTINGS,
    UNITS,
    check_no_change,
    check_threads,
    counts,
    dtypes,
    merge,
    mixed_models,
    mixtures,
    reduction,
    seeds,
    shapes_and_types,
    sizes,
)
from reference.task_vector_checks import (
    ADVERSARIAL,
    adversarial,
    check_contradiction,
    check_equal_models,
    check_method,
    check_permutation,
    check_scaling,
    check_task_vector,
    check_trim,
    dyadic_weights,
    grid_models,
)

COUNTS = (1, 2, 3, 5, 9)
ELECTIONS = ("mass", "count", "none")


@pytest.mark.parametrize(("count", "size", "dtype"), shapes_and_types(COUNTS))
def test_reference(count: int, size: int, dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(count * 1000 + size), count, size, dtype)
    weight = dyadic_weights(count, size)
    check_method("ties", models, base, density=0.4, weight=weight, lambda_=0.5)
    check_method("ties", models, base, density=0.2, trim="inclusive", elect="count", zero_sign="drop")


@pytest.mark.parametrize("types", list(mixtures()), ids=str)
@pytest.mark.parametrize("dtype", [None, F32, F64, BF16], ids=str)
def test_mixed_types(types: tuple[np.dtype[Any], ...], dtype: np.dtype[Any] | None) -> None:
    base, models = mixed_models(types)
    check_method("ties", models, base, density=[0.3, 0.5, 0.9], dtype=dtype)


def test_many_large() -> None:
    base, models = random_models(np.random.default_rng(1), MANY, LARGE, F32)
    check_method("ties", models, base, density=0.2)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_variants_with_even_votes(count: int, dtype: np.dtype[Any]) -> None:
    """Every election, rule for zero votes and merge, on a grid where votes are even and magnitudes equal."""
    base, models = grid_models(np.random.default_rng(count), count, 400, dtype)
    weight = dyadic_weights(count, 3)
    for elect, zero_sign, rule in itertools.product(ELECTIONS, ("plus", "majority", "drop"), ("mean", "sum", "max")):
        if rule == "max" and elect == "none":
            continue  # two signs of one magnitude: either is the largest
        chosen = {"elect": elect, "zero_sign": zero_sign, "merge": rule, "density": 0.6, "trim": "inclusive"}
        check_method("ties", models, base, **chosen)
        check_method("ties", models, base, weight=weight, **chosen)


@pytest.mark.parametrize("elect", ["normfrac", "normmass"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_elections_by_share(elect: str, dtype: np.dtype[Any]) -> None:
    """Norms differ by orders of magnitude, so that a share elects another sign than the mass does."""
    rng = np.random.default_rng(4)
    base, models = random_models(rng, 4, 3000, dtype, common=0.0)
    scaled = [(base + (model - base) * 2.0**-index).astype(dtype) for index, model in enumerate(models)]
    merged, _ = check_method("ties", scaled, base, elect=elect, density=0.5)
    assert not same_bytes(merged, merge("ties", scaled, base, density=0.5)[0])


def test_largest_of_both_signs_without_an_election() -> None:
    base, models = random_models(np.random.default_rng(5), 5, 3000, F64)
    check_method("ties", models, base, elect="none", merge="max")


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64], ids=str)
def test_trimming_to_the_element(kind: str, size: int, dtype: np.dtype[Any]) -> None:
    delta = adversarial(kind, size, dtype)
    for density in (0.001, 0.2, 0.5, 0.999, 1.0):
        check_trim("ties", delta, density, "exact")
        check_trim("ties", delta, density, "inclusive")
    check_trim("ties", delta, 0.0, "exact")


@pytest.mark.parametrize("kind", ["equal", "two values"])
@pytest.mark.parametrize("density", [0.3, 0.7])
def test_trimming_over_several_units_of_work(kind: str, density: float) -> None:
    """The first of equals are those of the lowest index, whichever thread meets them first."""
    delta = adversarial(kind, UNITS)
    check_trim("ties", delta, density, "exact")
    check_trim("ties", delta, density, "inclusive")


def test_ranks_are_those_of_float32() -> None:
    """1 - 2^-25 and 1 are equal as float32, and the first of equals stays; with an F64 input they are not equal."""
    for dtype, kept in ((F32, [2.0**-25, 1.0]), (F64, [1.0, 0.0])):
        merged, _ = merge("ties", [np.array([2.0**-25, 0.0], dtype)], np.ones(2, dtype), density=0.5)
        assert merged.tolist() == kept


@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_density_one_keeps_everything(dtype: np.dtype[Any]) -> None:
    base, models = random_models(np.random.default_rng(6), 3, 500, dtype)
    whole, _ = merge("ties", models, base)
    assert same_bytes(whole, merge("ties", models, base, density=1.0, trim="inclusive")[0])
    assert same_bytes(whole, merge("ties", models, base, density=[1.0, 1.0, 1.0])[0])
    single, _ = merge("ties", models[:1], base)
    check_equal_models("ties", 6, 1, 500, dtype)
    assert_one_rounding(single, widen(models[0]), 2.0**-52 * (np.abs(widen(base)) + np.abs(widen(models[0]))))


@pytest.mark.parametrize(
    ("compat", "meaning"),
    [
        ("ties_merging", {"trim": "inclusive", "zero_sign": "majority"}),
        ("fusion_bench", {"trim": "inclusive", "zero_sign": "majority"}),
        ("merge_lm", {"trim": "inclusive", "zero_sign": "majority"}),
        ("sd_mecha", {"trim": "inclusive", "zero_sign": "drop"}),
        ("mergekit", {"trim": "exact", "zero_sign": "plus"}),
    ],
)
def test_presets(compat: str, meaning: dict[str, str]) -> None:
    """A compat stands for parameters that are not given, and given ones hold."""
    for seed, count in itertools.product(range(3), (2, 3, 4)):
        base, models = grid_models(np.random.default_rng(seed), count, 101)
        for density in (0.25, 0.5, 0.8):
            preset, _ = check_method("ties", models, base, compat=compat, density=density)
            options = task_vectors.Options(trim_density=density, trim=meaning["trim"])
            e = task_vectors.prepared(models, base, options, None)
            even = not task_vectors.vote(e, "mass").sum()  # then the official tools take the negative entries
            counts_otherwise = compat in ("merge_lm", "sd_mecha")  # from the other side: one element more
            if not even and not counts_otherwise:
                assert same_bytes(preset, merge("ties", models, base, density=density, **meaning)[0])
            check_method("ties", models, base, compat=compat, density=density, zero_sign="plus", trim="exact")


def test_an_even_majority() -> None:
    """One + and one - elected, and an even vote: + as ours, - under the official tools' presets."""
    base = np.zeros(3, np.float32)
    models = [np.array([1.0, -1.0, 0.5], np.float32), np.array([1.0, -1.0, -0.5], np.float32)]
    for compat, last in (("none", 0.5), ("ties_merging", -0.5), ("fusion_bench", -0.5), ("merge_lm", -0.5)):
        merged, _ = merge("ties", models, base, zero_sign="majority", compat=compat)
        assert merged.tolist() == [1.0, -1.0, last], compat


def test_settings_that_contradict() -> None:
    for chosen in (
        {"normalize": True, "merge": "sum"},
        {"normalize": True, "merge": "max"},
        {"normalize": False, "merge": "mean"},
        {"normalize": False, "merge": "max"},
    ):
        check_contradiction("ties", "normalize", **chosen)
    base, models = random_models(np.random.default_rng(0), 3, 50, F32)
    mean, _ = merge("ties", models, base, normalize=True, merge="mean")
    assert same_bytes(mean, merge("ties", models, base)[0])
    total, _ = merge("ties", models, base, normalize=False, merge="sum")
    assert same_bytes(total, merge("ties", models, base, normalize=False)[0])


def test_vectors() -> None:
    models, base = list(vectors.MODELS), vectors.BASE
    cases: list[tuple[dict[str, Any], AnyArray]] = [
        ({"trim": "inclusive", "density": 0.5}, vectors.TIES_MEAN),
        ({"trim": "inclusive", "density": 0.5, "normalize": False}, vectors.TIES_SUM),
        ({"trim": "inclusive", "density": 0.5, "merge": "max"}, vectors.TIES_MAX),
        ({"density": 0.5}, vectors.TIES_EXACT),
    ]
    for chosen, expected in cases:
        merged, _ = merge("ties", models, base, **chosen)
        np.testing.assert_allclose(merged, base + expected, rtol=0.0, atol=vectors.ATOL)


@SETTINGS
@given(seeds, counts, sizes)
def test_permutation(seed: int, count: int, size: int) -> None:
    density = np.random.default_rng(seed).uniform(0.1, 1.0, count).tolist()
    chosen = {"density": density, "weight": dyadic_weights(count, seed)}
    check_permutation("ties", seed, count, size, F32, per_model=("density", "weight"), **chosen)


@SETTINGS
@given(seeds, counts, sizes, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_is_exact(seed: int, count: int, size: int, exponent: int) -> None:
    check_scaling("ties", seed, count, size, exponent, density=0.5)


@SETTINGS
@given(seeds, counts, sizes, dtypes)
def test_models_equal_to_the_base_give_the_base(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_no_change("ties", seed, count, size, dtype, density=0.3)


@SETTINGS
@given(seeds, st.integers(1, 9), sizes, dtypes)
def test_equal_models(seed: int, count: int, size: int, dtype: np.dtype[Any]) -> None:
    check_equal_models("ties", seed, count, size, dtype)


def test_task_vector() -> None:
    base, models = random_models(np.random.default_rng(8), 3, 200, F32)
    check_task_vector("ties", models, base, density=0.4, weight=[0.5, 1.0, 2.0])


def test_threads() -> None:
    for dtype in (F32, BF16):
        base, models = random_models(np.random.default_rng(2), 3, UNITS, dtype)
        check_threads("ties", models, base, density=0.3)
        check_threads("ties", models, base, density=0.3, trim="inclusive", zero_sign="majority", elect="count")


def _checkpoint(count: int, dtype: np.dtype[Any]) -> tuple[dict[str, AnyArray], list[dict[str, AnyArray]]]:
    """Tensors whose order in the file is not that of their names, of very different sizes."""
    shapes = {"z.weight": (13, 7), "a.bias": (5,), "m.weight": (300,), "b.norm": (31,)}
    rng = np.random.default_rng(count)
    drawn = {name: grid_models(rng, count, shape, dtype) for name, shape in shapes.items()}
    base = {name: drawn[name][0] for name in shapes}
    return base, [{name: drawn[name][1][index] for name in shapes} for index in range(count)]


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_scopes(scope: str, dtype: np.dtype[Any]) -> None:
    """model: one threshold per model, equal magnitudes in the order of names, one majority; norms over everything."""
    for chosen in (
        {"density": 0.35},
        {"density": [0.2, 0.5, 0.1], "elect": "count", "zero_sign": "majority", "trim": "inclusive"},
        {"density": 0.5, "elect": "mass", "zero_sign": "majority", "normalize": False},
    ):
        base, models = _checkpoint(3, dtype)
        parameters = {**chosen, "scope": scope}
        merged, _ = Library().checkpoint("ties", models, base, parameters)
        expected, _ = dispatch.merge_checkpoint("ties", models, base, **parameters)
        for name, want in expected.items():
            assert_one_rounding(merged[name], want, 8.0 * arithmetic([base[name]], merged[name].dtype))


@pytest.mark.parametrize("compat", ["ties_merging", "fusion_bench", "merge_lm", "sd_mecha"])
def test_presets_of_checkpoints(compat: str) -> None:
    """Three of the public tools join all tensors; sd-mecha does not."""
    base, models = _checkpoint(4, F32)
    merged, _ = Library().checkpoint("ties", models, base, {"compat": compat, "density": 0.3})
    expected, _ = dispatch.merge_checkpoint("ties", models, base, compat=compat, density=0.3)
    for name, want in expected.items():
        assert_one_rounding(merged[name], want, 8.0 * arithmetic([base[name]], merged[name].dtype))


@pytest.mark.parametrize("rescale", ["l1", True, "inverse", "none", False])
@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=str)
def test_rescale(rescale: str | bool, dtype: np.dtype[Any]) -> None:
    """mergekit's parameter: what makes up for the trim, by the sums of magnitudes or the density."""
    base, models = random_models(np.random.default_rng(21), 3, 500, dtype)
    given = {"density": 0.4, "rescale": rescale, "weight": [1.0, 0.5, 2.0]}
    merged, report = check_method("ties", models, base, coefficients=20.0 * reduction([*models, base], dtype), **given)
    plain, _ = merge("ties", models, base, density=0.4, weight=[1.0, 0.5, 2.0])
    assert same_bytes(merged, plain) == (rescale in ("none", False))
    assert ("rescale" in report) == (rescale not in ("none", False))


def test_int8_mask_changes_nothing() -> None:
    base, models = random_models(np.random.default_rng(22), 3, 500, F32)
    plain, _ = merge("ties", models, base, density=0.4)
    assert same_bytes(merge("ties", models, base, density=0.4, int8_mask=True)[0], plain)
