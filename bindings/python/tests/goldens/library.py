"""The library, through its Python package, as a backend of the golden runner."""

from __future__ import annotations

import functools
import json
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import stockpot as sp
from reference.arrays import AnyArray, read_checkpoint, unpack_bits

from .rules import Mapped, Parameters
from .tensors import Report, Tensors


@functools.cache
def schema(method: str) -> dict[str, Any]:
    """The parameters of a method by name."""
    return {parameter["name"]: parameter for parameter in sp.method_schema(method)["parameters"]}


def base_required(method: str) -> bool:
    """Whether the method cannot do without a base."""
    return sp.method_schema(method)["inputs"]["base"] == "required"


def with_compat(mapped: Mapped) -> Parameters:
    """The parameters of a case, with `compat` where the method's schema offers that value."""
    parameters = dict(mapped.parameters)
    offered = schema(mapped.method).get("compat", {}).get("choices") or ()
    if mapped.compat in offered:
        parameters["compat"] = mapped.compat
    return parameters


def read_report(output: Path) -> dict[str, Report]:
    """What merge_report.json says was decided for every tensor."""
    report = json.loads((output / "merge_report.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry["decision"] for entry in report["tensors"]}


def merge(recipe: Mapping[str, Any] | Path, output: Path, shard_size: int | None = None) -> None:
    """Merge as a recipe says, without a bar; warnings are not the runner's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.StockpotWarning)
        sp.merge(recipe, output, progress=False, shard_size=shard_size)


def recipe(method: str, models: Sequence[Path], base: Path | None, parameters: Parameters) -> dict[str, Any]:
    """A recipe with the parameters where the grammar wants them: lists of per-model values at their models."""
    known = schema(method)
    entries: list[dict[str, Any]] = [{"model": str(model), "parameters": {}} for model in models]
    shared = {}
    for name, value in parameters.items():
        if isinstance(value, list) and not value:
            continue
        if isinstance(value, list) and known.get(name, {}).get("per_model"):
            for entry, own in zip(entries, value, strict=True):
                entry["parameters"][name] = own
        else:
            shared[name] = value
    made: dict[str, Any] = {"merge_method": method, "models": entries, "parameters": shared}
    if base is not None:
        made["base_model"] = str(base)
    return made


class Library:
    """Arrays in memory by `merge_tensors`, checkpoints by `save` and `merge`."""

    def methods(self) -> Collection[str]:
        """Names of the methods the library has."""
        return sp.methods()

    def parameters(self, mapped: Mapped) -> Parameters:
        """The parameters of a case, with `compat` where the method takes that value."""
        return with_compat(mapped)

    def tensor(
        self,
        method: str,
        models: Sequence[AnyArray],
        base: AnyArray | None,
        name: str,
        parameters: Parameters,
    ) -> tuple[AnyArray, Report]:
        """Merge arrays in memory."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sp.StockpotWarning)
            merged, report = sp.merge_tensors(method, models, base, name=name, return_report=True, **parameters)
        return np.asarray(merged), report

    def low_rank_plus_sparse(
        self, w: AnyArray, scale: AnyArray, parameters: Parameters
    ) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Decompose one matrix."""
        return sp.low_rank_plus_sparse(w, scale.reshape(-1), **parameters)

    def checkpoint(
        self, method: str, models: Sequence[Tensors], base: Tensors | None, parameters: Parameters
    ) -> tuple[Tensors, Mapping[str, Report]]:
        """Write the checkpoints to a temporary folder and merge them there."""
        with tempfile.TemporaryDirectory(prefix="goldens-") as temporary:
            output, _ = _merged(Path(temporary), method, models, base, parameters)
            weights = output / "merged" if (output / "merged").is_dir() else output
            reported = weights if (weights / "merge_report.json").exists() else output
            return read_checkpoint(weights), read_report(reported)

    def masks(self, models: Sequence[AnyArray], base: AnyArray, parameters: Parameters) -> AnyArray:
        """The TALL masks of one tensor, [K, ...]."""
        return np.asarray(sp.tall_masks(models, base, **parameters))

    def checkpoint_masks(self, models: Sequence[Tensors], base: Tensors, parameters: Parameters) -> Sequence[Tensors]:
        """The TALL masks of every model, unpacked from the files beside the merge."""
        with tempfile.TemporaryDirectory(prefix="goldens-") as temporary:
            output, paths = _merged(Path(temporary), "tall_mask", models, base, parameters)
            stored = [read_checkpoint(output / "masks" / path.name) for path in paths]
            return [{name: unpack_bits(own[name], base[name].shape) for name in base} for own in stored]


def _merged(
    folder: Path, method: str, models: Sequence[Tensors], base: Tensors | None, parameters: Parameters
) -> tuple[Path, list[Path]]:
    """Checkpoints written to a folder and merged there: the output, and where the models are."""
    paths = [folder / f"model-{index}" for index in range(len(models))]
    for path, tensors in zip(paths, models, strict=True):
        sp.save(tensors, path)
    base_path = None
    if base is not None:
        base_path = folder / "base"
        sp.save(base, base_path)
    output = folder / "output"
    merge(recipe(method, paths, base_path, parameters), output)
    return output, paths
