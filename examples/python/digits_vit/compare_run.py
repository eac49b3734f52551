"""Merging and measuring for `compare.py`: one variant after the other, in one process or several.

A merge that has a lambda is made once, as a task vector (`output: task_vector`); the grid then adds it to the base with
`task_arithmetic`, so that no singular value decomposition is repeated.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from collect_statistics import collect
from compare_grids import COMPRESSED, EXTRACTED_AGAINST, TASKS, Variant
from forward import Array, DigitsViT, Tensors

import stockpot as sp

Accuracies = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `value` is that of the variant's tuned parameter. `seconds` is the time of the merge in one thread, its task vector
    included. For compressed forms there are the bytes that each task takes beside the merged model (mean), and how
    often that goes into a task model.
    """

    label: str
    method: str
    family: str
    parameters: str
    tuned: str
    value: float | None
    accuracies: Accuracies
    seconds: float | None = None
    bytes_per_task: int | None = None
    compression: float | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over the tasks."""
        return sum(self.accuracies.values()) / len(self.accuracies)


@dataclass(frozen=True)
class Work:
    """What a worker needs to know: the folder of the fixture, and one variant of it."""

    fixture: Path
    variant: Variant

    def rows(self) -> list[Row]:
        """Merge and measure all values of the variant. Its files are temporary."""
        with tempfile.TemporaryDirectory(prefix="stockpot-compare-") as folder:
            if self.variant.family == COMPRESSED:
                return list(_compressed(self, Path(folder)))
            return list(_merged(self, Path(folder)))

    def recipe(self, **parameters: Any) -> dict[str, Any]:
        """The recipe that merges the six fine-tunes as the variant says."""
        made: dict[str, Any] = {
            "merge_method": self.variant.method,
            "models": [{"model": str(path)} for path in models(self.fixture)],
            "parameters": {**self.variant.parameters, **parameters},
        }
        if self.variant.takes_base:
            made["base_model"] = str(self.fixture / "base")
        return made

    def row(self, value: float | None, accuracies: Accuracies, seconds: float, **sizes: Any) -> Row:
        """A row of this variant."""
        variant = self.variant
        parameters = [f"{name}={given}" for name, given in variant.parameters.items()]
        if value is not None:
            parameters.append(f"{variant.tuned}={value:g}")
        shown = ", ".join(parameters)
        names = (variant.label, variant.method, variant.family, shown, variant.tuned)
        return Row(*names, value, accuracies, seconds, **sizes)


class Evaluation:
    """The held-out images of all tasks. Tasks that show the same images share one forward pass."""

    def __init__(self, fixture: Path) -> None:
        self._heads = read(fixture / "heads.safetensors")
        self._data = read(fixture / "eval.safetensors")

    def accuracies(self, tensors: Tensors, tasks: Sequence[str] = TASKS) -> Accuracies:
        """Share of each task's held-out images that the checkpoint classifies rightly, in float32."""
        images: list[Array] = []
        places = []
        for task in tasks:
            shown = self._data[f"{task}.images"]
            same = [place for place, other in enumerate(images) if np.array_equal(other, shown)]
            if not same:
                images.append(shown)
            places.append(same[0] if same else len(images) - 1)
        features = DigitsViT(tensors, dtype=np.float32).features(np.concatenate(images))
        parts = np.split(features, np.cumsum([len(part) for part in images])[:-1])
        return {task: self._accuracy(parts[place], task) for task, place in zip(tasks, places, strict=True)}

    def _accuracy(self, features: Array, task: str) -> float:
        logits = features @ self._heads[f"{task}.weight"].T + self._heads[f"{task}.bias"]
        return float(np.mean(logits.argmax(axis=1) == self._data[f"{task}.labels"]))


@cache
def evaluation(fixture: Path) -> Evaluation:
    """The evaluation of a fixture, read once per process."""
    return Evaluation(fixture)


def read(path: Path) -> Tensors:
    """All tensors of a checkpoint."""
    return dict(sp.open(path).items())


def models(fixture: Path) -> list[Path]:
    """The folders of the six fine-tunes, in the order of the tasks."""
    return [fixture / f"task-{task}" for task in TASKS]


def run(work: Work) -> list[Row]:
    """The rows of one variant: what a worker is handed."""
    return work.rows()


def measure(fixture: Path, checkpoint: Path) -> Accuracies:
    """Accuracies of a checkpoint that exists already: the base, or a fine-tune."""
    return evaluation(fixture).accuracies(read(checkpoint))


def _merge(recipe: dict[str, Any], output: Path) -> float:
    """Merge in one thread, for workers share the machine; the seconds it took."""
    started = time.perf_counter()
    sp.merge(recipe, output, threads=1, progress=False, overwrite=True)
    return time.perf_counter() - started


def _merged(work: Work, folder: Path) -> Iterator[Row]:
    measured = evaluation(work.fixture)
    output = folder / "merged"
    if not work.variant.values:
        seconds = _merge(work.recipe(), output)
        yield work.row(None, measured.accuracies(read(output)), seconds)
        return
    vector = folder / "vector"
    seconds = _merge({**work.recipe(output="task_vector"), "dtype": "float32"}, vector)
    scaled = {"merge_method": "task_arithmetic", "base_model": str(work.fixture / "base"), "models": [str(vector)]}
    for value in work.variant.values:
        adding = _merge({**scaled, "parameters": {"lambda": value}}, output)
        yield work.row(value, measured.accuracies(read(output)), seconds + adding)


def _compressed(work: Work, folder: Path) -> Iterator[Row]:
    """Each task with its own model, rebuilt from the merged one and the task's mask or correction."""
    given = work.recipe()
    merged, kept = folder / "out" / "merged", folder / "out" / "masks"
    if work.variant.method == "scale_svd":
        merged, kept = folder / "merged", folder / "out" / "corrections"
        parameters = {"lambda": EXTRACTED_AGAINST}
        _merge({**given, "merge_method": "task_arithmetic", "parameters": parameters}, merged)
        given["base_model"] = str(merged)
    if work.variant.statistics:
        for model, task in zip(given["models"], TASKS, strict=True):
            model["statistics"] = str(folder / f"{task}-statistics.safetensors")
            collect(Path(model["model"]), task).save(Path(model["statistics"]))
    for value in work.variant.values:
        recipe = {**given, "parameters": {**given["parameters"], work.variant.tuned: value}}
        seconds = _merge(recipe, folder / "out")
        yield _rebuilt(work, value, merged, kept, seconds)


def _rebuilt(work: Work, value: float, merged: Path, kept: Path, seconds: float) -> Row:
    measured = evaluation(work.fixture)
    accuracies: Accuracies = {}
    summaries: list[dict[str, Any]] = []
    rebuilt = merged.parent / "rebuilt"
    for model, task in zip(models(work.fixture), TASKS, strict=True):
        report = sp.reconstruct(merged, kept / model.name, rebuilt, threads=1, progress=False, overwrite=True)
        summaries.append(report["summary"])
        accuracies |= measured.accuracies(read(rebuilt), (task,))
    stored = sum(summary["correction_bytes"] for summary in summaries)
    replaced = sum(summary["model_bytes"] for summary in summaries)
    sizes = {"bytes_per_task": round(stored / len(summaries)), "compression": replaced / stored}
    return work.row(value, accuracies, seconds, **sizes)
