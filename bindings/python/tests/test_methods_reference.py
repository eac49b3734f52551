"""The references against the recorded results of the public implementations, without the library under test.

The tolerances are the golden set's own. The `compat` values reproduce known defects of a peer where its numbers
are recorded; nothing is left out but what the manifest marks as not comparable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goldens import mapping, mapping_masks
from goldens.compare import disagreement
from goldens.manifest import read_case, read_manifest
from goldens.rules import Mapped, Parameters, UnmappedError
from goldens.tensors import Report, Tensors, evaluate
from reference import dispatch, philox, scale_svd, tall_mask, vectors, yoyo_scale
from reference.arrays import AnyArray, Array, unpack_bits, widen

GOLDENS = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "goldens"
MANIFEST = read_manifest(GOLDENS)
COMPAT_METHODS = (
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "nearswap",
    "model_stock",
    "yoyo_scale",
    "ties",
    "dare_ties",
    "magnitude_prune",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
)

PEERS_OF_SPECTRAL: dict[str, Parameters] = {
    "tsvm": {"compat": "fusion_bench"},
    "iso_c": {"null_space": "complete", "exclude_keys": ["*text_projection*"]},
    "iso_cts": {"null_space": "complete"},
}
"""Public codes use the singular vectors that LAPACK makes up where there are none, and leave text projections."""

DIRECT = ("scale_svd", "oats")
"""Cases with an activation statistic among their inputs, which no mapping of models and base can carry."""


class References:
    """The references as a backend of the golden runner."""

    def methods(self) -> Collection[str]:
        """Names of the methods that have a reference."""
        return dispatch.METHODS

    def parameters(self, mapped: Mapped) -> Parameters:
        """As mapped; some references know the peers' variants."""
        parameters = dict(mapped.parameters)
        if mapped.compat and mapped.method in COMPAT_METHODS:
            parameters["compat"] = mapped.compat
        for name, value in PEERS_OF_SPECTRAL.get(mapped.method, {}).items():
            parameters.setdefault(name, value)
        return parameters

    def tensor(
        self,
        method: str,
        models: Sequence[AnyArray],
        base: AnyArray | None,
        name: str,
        parameters: Parameters,
    ) -> tuple[AnyArray, Report]:
        """Merge one tensor."""
        return dispatch.merge(method, models, base, name=name, **parameters)

    def checkpoint(
        self, method: str, models: Sequence[Tensors], base: Tensors | None, parameters: Parameters
    ) -> tuple[Tensors, Mapping[str, Report]]:
        """Merge every tensor."""
        return dispatch.merge_checkpoint(method, models, base, **parameters)

    def masks(self, models: Sequence[AnyArray], base: AnyArray, parameters: Parameters) -> AnyArray:
        """The TALL masks of one tensor."""
        return tall_mask.masks(models, base, **parameters)

    def checkpoint_masks(self, models: Sequence[Tensors], base: Tensors, parameters: Parameters) -> Sequence[Tensors]:
        """The TALL masks of every model, made of the checkpoints as one vector each."""
        joined, origin = dispatch.join(models, base)
        assert origin is not None
        parts = dispatch.parts_of(base)
        whole = tall_mask.masks(joined, origin, parts=parts, **parameters)
        cuts = np.cumsum([size for _, size in parts])[:-1]
        return [
            {name: own.reshape(base[name].shape) for (name, _), own in zip(parts, np.split(mask, cuts), strict=True)}
            for mask in whole
        ]


def _mapped(entry: Mapping[str, Any]) -> Mapped:
    return mapping.find(entry["method"], entry["implementation"], entry["parameters"])


def _entries() -> list[Any]:
    entries = [entry for entry in MANIFEST["cases"] if entry["compare"]]
    ours = [entry for entry in entries if entry["method"] not in DIRECT and _mapped(entry).method in dispatch.METHODS]
    return [pytest.param(entry, id=entry["id"]) for entry in ours]


@pytest.mark.parametrize("entry", _entries())
def test_reference_agrees_with_the_public_implementation(entry: dict[str, Any]) -> None:
    assert evaluate(read_case(GOLDENS, entry), _mapped(entry), References()) == []


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry["id"])
        for entry in MANIFEST["cases"]
        if entry["method"] in DIRECT and entry["compare"]
    ],
)
def test_compression_agrees_with_the_public_implementation(entry: dict[str, Any]) -> None:
    """OATS' matrix and second moments, and AwRank's task vector and statistic; its second code fits once more."""
    case = read_case(GOLDENS, entry)
    oats = entry["method"] == "oats"
    matrix = case.arrays["weight"] if oats else case.arrays["model_0"] - case.arrays["base"]
    statistic = case.arrays["diag_approx" if oats else "scaler_row"].reshape(-1)
    refit = "iso_iasad" in entry["implementation"]
    low, sparse = scale_svd.low_rank_plus_sparse(widen(matrix), widen(statistic), refit=refit, **entry["parameters"])
    parts = {"output_low_rank": low, "output_sparse": sparse}
    for output in case.outputs:
        assert disagreement(parts.get(output.kind, low + sparse), case.arrays[output.key], output.rule) == ""


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry["id"])
        for entry in MANIFEST["cases"]
        if entry["method"] == "scale_svd_pipeline" and entry["compare"]
    ],
)
def test_compressed_task_vectors_agree_with_the_public_implementation(entry: dict[str, Any]) -> None:
    """What the pipeline merges, before it is merged."""
    case = read_case(GOLDENS, entry)
    known = {field.name for field in fields(scale_svd.Compression)}
    given = {name: value for name, value in entry["parameters"].items() if name in known}
    compared = 0
    for output in case.outputs:
        if output.kind.startswith("aux_processed_tv_"):
            model = case.arrays[f"model_{output.kind.rsplit('_', 1)[1]}"]
            delta = widen(model) - widen(case.arrays["base"])
            low, sparse = scale_svd.low_rank_plus_sparse(delta, **given)
            assert disagreement(low + sparse, case.arrays[output.key], output.rule) == ""
            compared += 1
    assert compared == len(case.participants()) - 1


def test_every_case_of_the_set_has_a_mapping() -> None:
    for entry in MANIFEST["cases"]:
        _mapped(entry)


def test_masks_can_all_be_said() -> None:
    assert not any(rule.pending for rules in mapping_masks.RULES.values() for rule in rules)


def test_bits_of_masks() -> None:
    """Bit j of byte b is element 8 b + j; the bits beyond the last element say nothing."""
    packed = np.array([0b00000101, 0b11111110], np.uint8)
    wanted = [[True, False, True], [False, False, False], [False, False, False]]
    assert unpack_bits(packed, (3, 3)).tolist() == wanted
    assert unpack_bits(packed[:1], ()).tolist() is True
    with pytest.raises(AssertionError):
        unpack_bits(packed, (3, 2))


def test_unknown_parameters_and_implementations_are_errors() -> None:
    linear = "arcee-ai/mergekit@0.1.5 (PyPI)::mergekit.merge_methods.api.merge_tensors('linear')"
    with pytest.raises(UnmappedError, match="'weights'"):
        mapping.find("linear", linear, {"weights": [1, 1]})
    with pytest.raises(UnmappedError, match="someone/else"):
        mapping.find("linear", "someone/else@1::average", {})
    with pytest.raises(UnmappedError, match="owner/repo"):
        mapping.find("linear", "mergekit", {})


def test_constrained_solution_is_optimal() -> None:
    """The enumeration satisfies the optimality conditions, and beats every random feasible point."""
    rng = np.random.default_rng(5)
    for count in (2, 3, 5, 7):
        deltas = rng.standard_normal((count, 12)) + rng.standard_normal(12)
        deltas *= rng.uniform(0.2, 3.0, (count, 1))
        gram, b = yoyo_scale.system(deltas)
        solution = yoyo_scale.constrained(gram, b)
        assert yoyo_scale.kkt_residual(gram, b, solution) < 1e-9
        value = 0.5 * solution @ gram @ solution - b @ solution
        for _ in range(200):
            point = rng.dirichlet(np.ones(count)) * rng.uniform()
            assert 0.5 * point @ gram @ point - b @ point >= value - 1e-9


VECTORS: list[tuple[str, int, Parameters, Array]] = [
    ("ties", 3, {"density": 0.5, "trim": "inclusive", "merge": "mean"}, vectors.TIES_MEAN),
    ("ties", 3, {"density": 0.5, "trim": "inclusive", "normalize": False}, vectors.TIES_SUM),
    ("ties", 3, {"density": 0.5, "trim": "inclusive", "merge": "max"}, vectors.TIES_MAX),
    ("ties", 3, {"density": 0.5, "compat": "ties_merging"}, vectors.TIES_MEAN),
    ("ties", 3, {"density": 0.5}, vectors.TIES_EXACT),
    ("dare_ties", 3, {"trim_density": 0.5, "normalize": True}, vectors.TIES_EXACT),
    ("ties_soup", 3, {}, vectors.TIES_SOUP),
    ("tsd", 3, {"density": 1.0}, vectors.TIES_SOUP),
    ("dare_linear", 3, {}, sum(vectors.DELTAS)),
    ("tgmd", 3, {"density": 1.0}, vectors.TGMD),
    ("magmax", 3, {}, vectors.MAGMAX),
    ("tall_mask", 3, {}, sum(vectors.DELTAS)),
    ("consensus_ta", 3, {}, vectors.CONSENSUS),
    ("tsvm", 3, {}, vectors.TSVM),
    ("tsvm", 3, {"variant": "eigen"}, vectors.TSVM),
    ("iso_c", 3, {}, vectors.ISO_C),
    ("iso_cts", 3, {"common_space_fraction": 0.8}, vectors.ISO_C),
    ("iso_cts", 2, {"common_space_fraction": 0.4}, vectors.ISO_CTS_PAIR),
    ("scale_svd", 1, {"statistics": vectors.SCALE_SVD_STATISTIC}, vectors.SCALE_SVD_ROW),
    (
        "scale_svd",
        1,
        {"statistics": vectors.SCALE_SVD_STATISTIC, "mask_strategy": "global"},
        vectors.SCALE_SVD_GLOBAL,
    ),
]


@pytest.mark.parametrize(("method", "count", "given", "expected"), VECTORS)
def test_task_vectors_worked_out_by_hand(method: str, count: int, given: Parameters, expected: Array) -> None:
    vector, _ = dispatch.merge(method, vectors.MODELS[:count], vectors.BASE, output="task_vector", **given)
    np.testing.assert_allclose(vector, expected, rtol=0.0, atol=vectors.ATOL)


def test_masks_worked_out_by_hand() -> None:
    masks = tall_mask.masks(vectors.MODELS, vectors.BASE)
    assert np.array_equal(masks.sum(axis=0), vectors.TALL_COUNTS)


def test_philox_gives_the_published_numbers() -> None:
    """The known answers of Random123 for philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    known = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones, ones), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, answer in known:
        assert philox.blocks(np.array([counter]), key).tolist() == [list(answer)]


def test_fnv_gives_the_published_numbers() -> None:
    """From the table of the authors (Fowler, Noll, Vo)."""
    assert philox.fnv1a("") == 0xCBF29CE484222325
    assert philox.fnv1a("a") == 0xAF63DC4C8601EC8C
    assert philox.fnv1a("foobar") == 0x85944171F73967E8


def test_random_stream() -> None:
    """Word e mod 4 of block e div 4; nothing kept at 0, everything at 1; its own bits for model, name and seed."""
    whole = philox.stream("a.weight", 1003, 2, 7)
    key = philox.fnv1a("a.weight") ^ 7
    block = philox.blocks(np.array([[250, 0, 2, 0]]), (key % 2**32, key >> 32))
    assert whole[1000:].tolist() == block[0, :3].tolist()
    assert np.array_equal(philox.stream("a.weight", 40, 2, 7), whole[:40])
    assert not philox.kept("a", 1000, 0, 0, 0.0).any()
    assert philox.kept("a", 1000, 0, 0, 1.0).all()
    size = 100_000
    draws = [philox.kept(name, size, model, seed, 0.5) for name in "ab" for model in (0, 1) for seed in (0, 1)]
    signs = 2.0 * np.stack(draws) - 1.0
    correlation = signs @ signs.T / size - np.eye(len(draws))
    assert np.abs(correlation).max() < 5.0 / size**0.5
    assert np.abs(signs.mean(axis=1)).max() < 5.0 / size**0.5
