"""Tensor-level cases: run by a backend (the library, or the references), compared output by output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reference.arrays import AnyArray

from .compare import auxiliary_disagreement, disagreement, statistics_disagreement
from .manifest import Case, Output
from .rules import Mapped, Parameters

Report = Mapping[str, Any]
Tensors = Mapping[str, AnyArray]


class Backend(Protocol):
    """What can merge."""

    def methods(self) -> Collection[str]:
        """Names of the methods it has."""

    def parameters(self, mapped: Mapped) -> Parameters:
        """The parameters of a case, with `compat` where the method takes that value."""

    def tensor(
        self,
        method: str,
        models: Sequence[AnyArray],
        base: AnyArray | None,
        name: str,
        parameters: Parameters,
    ) -> tuple[AnyArray, Report]:
        """Merge one tensor; the result and what was decided."""

    def checkpoint(
        self, method: str, models: Sequence[Tensors], base: Tensors | None, parameters: Parameters
    ) -> tuple[Tensors, Mapping[str, Report]]:
        """Merge checkpoints; the tensors, and what was decided for each."""


@dataclass
class _Runs:
    """Results of one case, by what was asked for (weights or task vector)."""

    case: Case
    mapped: Mapped
    backend: Backend
    done: dict[str, tuple[Tensors, Mapping[str, Report]]] = field(default_factory=dict)

    def __call__(self, output: str) -> tuple[Tensors, Mapping[str, Report]]:
        """Merge, or give the earlier result. A case of one tensor has it under the empty name."""
        if output not in self.done:
            parameters = self.backend.parameters(self.mapped)
            if output != "weights":
                parameters["output"] = output
            self.done[output] = self._merge(parameters)
        return self.done[output]

    def _merge(self, parameters: Parameters) -> tuple[Tensors, Mapping[str, Report]]:
        arrays = self.case.inputs()
        participants = self.case.participants()
        models = [name for name in participants if name != "base"]
        names = self.case.tensors()
        if names:
            stored = {who: {name: arrays[f"{who}::{name}"] for name in names} for who in participants}
            return self.backend.checkpoint(
                self.mapped.method, [stored[who] for who in models], stored.get("base"), parameters
            )
        merged, report = self.backend.tensor(
            self.mapped.method,
            [arrays[who] for who in models],
            arrays.get("base"),
            self.mapped.tensor_name,
            parameters,
        )
        return {"": merged}, {"": report}


def evaluate(case: Case, mapped: Mapped, backend: Backend) -> list[str]:
    """Run a case; the reasons why it fails (none: it passes)."""
    if mapped.pending:
        return [f"the runner cannot express {mapped.pending}"]
    runs = _Runs(case, mapped, backend)
    if "statistics" in case.entry:
        return _statistics(case, runs)
    reasons = []
    for output in case.outputs:
        if output.compared:
            reason = _compare(case, mapped, runs, output)
            if reason:
                reasons.append(f"{output.key}: {reason}")
    return reasons


def _compare(case: Case, mapped: Mapped, runs: _Runs, output: Output) -> str:
    golden = case.arrays[output.key]
    if output.kind.startswith("aux_"):
        _, reports = runs("weights")
        models = [name for name in case.participants() if name != "base"]
        report = reports.get(output.tensor, {})
        return auxiliary_disagreement(mapped.method, output.kind, report, golden, output.rule, len(models))
    if output.kind not in ("output", "output_tv"):
        return f"the runner does not know outputs of kind {output.kind!r}"
    merged, _ = runs("task_vector" if output.kind == "output_tv" else "weights")
    if output.tensor not in merged:
        return f"the merge has no tensor {output.tensor!r}"
    candidate = merged[output.tensor]
    if output.kind == "output" and candidate.shape != golden.shape:
        return f"shape {candidate.shape} instead of {golden.shape}"
    mismatch = float(case.entry.get("mask_mismatch_fraction", 0.0))
    return disagreement(candidate, golden, output.rule, mismatch)


def _statistics(case: Case, runs: _Runs) -> list[str]:
    arrays = case.inputs()
    expected: dict[str, Any] = case.entry["statistics"]
    as_vector = any(output.kind.endswith("_tv") for output in case.outputs)
    merged, _ = runs("task_vector" if as_vector else "weights")
    base, model = arrays["base"], arrays["model_0"]
    candidate = merged[""].reshape(base.shape)
    if as_vector:
        candidate = np.asarray(candidate, np.float64) + base.astype(np.float64)
    reason = statistics_disagreement(candidate, base, model, expected)
    return [reason] if reason else []
