"""Tensor-level cases: run by a backend (the library, or the references), compared output by output."""

from __future__ import annotations

import re
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

MASK = re.compile(r"output_mask_(?P<scale>[\d.]+)_m(?P<model>\d+)")
"""One TALL mask of a checkpoint: of a model, for one value of tall_mask_lambda."""
ALL_MASKS = "output_masks"
"""The TALL masks of all models of one tensor, K x D."""
TASK_MODEL = re.compile(r"output_m(?P<model>\d+)")
"""A model that a TALL mask gives back: base + mask * multi-task vector."""


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

    def low_rank_plus_sparse(
        self, w: AnyArray, scale: AnyArray, parameters: Parameters
    ) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Left and right factor and sparse part of one matrix."""

    def checkpoint(
        self, method: str, models: Sequence[Tensors], base: Tensors | None, parameters: Parameters
    ) -> tuple[Tensors, Mapping[str, Report]]:
        """Merge checkpoints; the tensors, and what was decided for each."""

    def masks(self, models: Sequence[AnyArray], base: AnyArray, parameters: Parameters) -> AnyArray:
        """The TALL masks of one tensor, [K, ...]."""

    def checkpoint_masks(self, models: Sequence[Tensors], base: Tensors, parameters: Parameters) -> Sequence[Tensors]:
        """The TALL masks of every model, tensor by tensor."""


@dataclass
class _Runs:
    """Results of one case, by what was asked for (weights or task vector)."""

    case: Case
    mapped: Mapped
    backend: Backend
    done: dict[str, tuple[Tensors, Mapping[str, Report]]] = field(default_factory=dict)
    masked: dict[float | None, Sequence[Tensors]] = field(default_factory=dict)

    def __call__(self, output: str) -> tuple[Tensors, Mapping[str, Report]]:
        """Merge, or give the earlier result. A case of one tensor has it under the empty name."""
        if output not in self.done:
            parameters = self.backend.parameters(self.mapped)
            if output != "weights":
                parameters["output"] = output
            self.done[output] = self._merge(parameters)
        return self.done[output]

    def masks(self, scale: float | None = None) -> Sequence[Tensors]:
        """TALL masks of every model, for one value of tall_mask_lambda (None: the case's own)."""
        if scale not in self.masked:
            parameters = self.backend.parameters(self.mapped)
            if scale is not None:
                parameters["tall_mask_lambda"] = scale
            arrays = self.case.inputs()
            stored = self._stored()
            models = [name for name in self.case.participants() if name != "base"]
            if stored:
                base = stored["base"]
                found = self.backend.checkpoint_masks([stored[who] for who in models], base, parameters)
            else:
                whole = self.backend.masks([arrays[who] for who in models], arrays["base"], parameters)
                found = [{"": mask} for mask in whole]
            self.masked[scale] = found
        return self.masked[scale]

    def _stored(self) -> dict[str, dict[str, AnyArray]]:
        """The checkpoints of a case of several tensors; empty for a case of one."""
        arrays, names = self.case.inputs(), self.case.tensors()
        if not names:
            return {}
        return {who: {name: arrays[f"{who}::{name}"] for name in names} for who in self.case.participants()}

    def of_model(self, index: int) -> AnyArray:
        """The task vector of one model alone, as a `then` merges it."""
        arrays = self.case.inputs()
        parameters = self.backend.parameters(self.mapped) | {"output": "task_vector", "then": "sum"}
        merged, _ = self.backend.tensor(
            self.mapped.method, [arrays[f"model_{index}"]], arrays["base"], self.mapped.tensor_name, parameters
        )
        return merged

    def _merge(self, parameters: Parameters) -> tuple[Tensors, Mapping[str, Report]]:
        arrays = self.case.inputs()
        models = [name for name in self.case.participants() if name not in ("base", *self.mapped.inputs)]
        for name, parameter in self.mapped.inputs.items():
            parameters[parameter] = arrays[name].tolist()
        stored = self._stored()
        if stored:
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
    if mapped.call:
        return _decomposition(case, mapped, backend)
    reasons = []
    for output in case.outputs:
        if output.compared:
            reason = _compare(case, mapped, runs, output)
            if reason:
                reasons.append(f"{output.key}: {reason}")
    return reasons


def _compare(case: Case, mapped: Mapped, runs: _Runs, output: Output) -> str:
    golden = case.arrays[output.key]
    if output.kind.startswith("aux_processed_tv_"):
        return disagreement(runs.of_model(int(output.kind.rpartition("_")[2])), golden, output.rule)
    if output.kind.startswith("aux_"):
        _, reports = runs("weights")
        models = [name for name in case.participants() if name != "base"]
        report = reports.get(output.tensor, {})
        return auxiliary_disagreement(mapped.method, output.kind, report, golden, output.rule, len(models))
    mismatch = float(case.entry.get("mask_mismatch_fraction", 0.0))
    mask = _mask(runs, output)
    if mask is not None:
        return disagreement(mask, golden, output.rule, mismatch)
    if output.kind not in ("output", "output_tv"):
        return f"the runner does not know outputs of kind {output.kind!r}"
    merged, _ = runs("task_vector" if output.kind == "output_tv" else "weights")
    if output.tensor not in merged:
        return f"the merge has no tensor {output.tensor!r}"
    candidate = merged[output.tensor]
    if output.kind == "output" and candidate.shape != golden.shape:
        return f"shape {candidate.shape} instead of {golden.shape}"
    return disagreement(candidate, golden, output.rule, mismatch)


def _mask(runs: _Runs, output: Output) -> AnyArray | None:
    """The masks that an output holds, or the model that one gives back; None for other outputs."""
    if output.kind == ALL_MASKS:
        return np.stack([own[output.tensor] for own in runs.masks()])
    if match := MASK.fullmatch(output.kind):
        return runs.masks(float(match["scale"]))[int(match["model"])][output.tensor]
    if match := TASK_MODEL.fullmatch(output.kind):
        own = runs.masks()[int(match["model"])][output.tensor]
        vectors, _ = runs("task_vector")
        base = runs.case.arrays[f"base::{output.tensor}" if output.tensor else "base"]
        model: AnyArray = base + np.where(own, vectors[output.tensor], 0.0)
        return model
    return None


def _decomposition(case: Case, mapped: Mapped, backend: Backend) -> list[str]:
    """A matrix taken apart: the parts one by one, or their sum."""
    arrays = {parameter: case.inputs()[name] for name, parameter in mapped.inputs.items()}
    left, right, sparse = backend.low_rank_plus_sparse(arrays["w"], arrays["scale"], backend.parameters(mapped))
    low_rank = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    parts = {"output_low_rank": low_rank, "output_sparse": sparse, "output": low_rank + sparse}
    reasons = []
    for output in case.outputs:
        if output.compared:
            reason = disagreement(parts[output.kind], case.arrays[output.key], output.rule)
            if reason:
                reasons.append(f"{output.key}: {reason}")
    return reasons


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
