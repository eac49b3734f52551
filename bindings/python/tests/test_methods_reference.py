"""The references against the recorded results of the public implementations, without the library under test.

The tolerances are the golden set's own. The `compat` values reproduce known defects of a peer where its numbers
are recorded; nothing is left out but what the manifest marks as not comparable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goldens import mapping
from goldens.manifest import read_case, read_manifest
from goldens.rules import Mapped, Parameters, UnmappedError
from goldens.tensors import Report, Tensors, evaluate
from reference import dispatch, yoyo_scale
from reference.arrays import AnyArray

GOLDENS = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "goldens"
MANIFEST = read_manifest(GOLDENS)
COMPAT_METHODS = ("slerp", "model_stock", "yoyo_scale")


class References:
    """The references as a backend of the golden runner."""

    def methods(self) -> Collection[str]:
        """Names of the methods that have a reference."""
        return dispatch.METHODS

    def parameters(self, mapped: Mapped) -> Parameters:
        """As mapped; three references know the peers' variants."""
        parameters = dict(mapped.parameters)
        if mapped.compat and mapped.method in COMPAT_METHODS:
            parameters["compat"] = mapped.compat
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


def _mapped(entry: Mapping[str, Any]) -> Mapped:
    return mapping.find(entry["method"], entry["implementation"], entry["parameters"])


def _entries() -> list[Any]:
    entries = [entry for entry in MANIFEST["cases"] if entry["compare"]]
    ours = [entry for entry in entries if _mapped(entry).method in dispatch.METHODS]
    return [pytest.param(entry, id=entry["id"]) for entry in ours]


@pytest.mark.parametrize("entry", _entries())
def test_reference_agrees_with_the_public_implementation(entry: dict[str, Any]) -> None:
    assert evaluate(read_case(GOLDENS, entry), _mapped(entry), References()) == []


def test_every_case_of_the_set_has_a_mapping() -> None:
    for entry in MANIFEST["cases"]:
        _mapped(entry)


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
