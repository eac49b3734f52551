"""Model-level cases: whole checkpoints merged by a mergekit YAML, or as the YOYO tools do."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import stockpot as sp
from reference.arrays import AnyArray, read_checkpoint

from . import library, mapping, threshold_ties
from .compare import disagreement

LATER_KEYS = ("slices", "modules")
"""Keys of a recipe that arrive with the issue 'Recipes'."""

PEER_FILES = {"README.md", "mergekit_config.yml"}
"""What mergekit writes about its own run."""

LAMBDA_TOLERANCE = 1.1e-6
"""Two numbers printed with six decimals may each be off by half of the last one; a tenth is for the arithmetic."""


class LaterError(Exception):
    """A case that needs a feature of a later issue."""


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def evaluate(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """Run a model-level case; the reasons why it fails. Raises LaterError."""
    with tempfile.TemporaryDirectory(prefix="goldens-") as temporary:
        output = Path(temporary) / "merged"
        if "config" in entry:
            _run_yaml(folder, entry, output)
        else:
            _run_mapped(folder, entry, output)
        return _compare(folder, entry, output)


def _run_yaml(folder: Path, entry: Mapping[str, Any], output: Path) -> None:
    config = (folder / entry["config"]).resolve()
    recipe = yaml.safe_load(config.read_text(encoding="utf-8"))
    require_method(recipe["merge_method"])
    with inside(folder / "models"):
        later = [key for key in LATER_KEYS if recipe.get(key)]
        if later:
            require_keys(config, later)
        library.merge(config, output, _shard_size(entry.get("command", "")))


def require_method(method: str) -> None:
    """Raises LaterError if the library has no such method."""
    if method not in sp.methods():
        raise LaterError(f"the library has no method {method!r} yet (arrives with 'Seed methods')")


def require_keys(config: Path, keys: list[str]) -> None:
    """Raises LaterError if the library does not understand these keys of a recipe."""
    try:
        sp.plan(config, strict=True)
    except sp.RecipeError:
        raise LaterError(f"the recipe uses {', '.join(keys)} (arrives with 'Recipes')") from None


def _shard_size(command: str) -> int | None:
    match = re.search(r"--out-shard-size (\d+)([KMGkmg]?)\b", command)
    if match is None:
        return None
    return int(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2].upper()]


def _run_mapped(folder: Path, entry: Mapping[str, Any], output: Path) -> None:
    """Merge as the YOYO tools do; YOYO Scale takes the first input as its base."""
    mapped = mapping.find(entry["method"], entry["implementation"], entry["parameters"])
    require_method(mapped.method)
    inputs = [_input(folder, name) for name in entry["inputs"]]
    takes_base = library.base_required(mapped.method)
    base, models = (inputs[0], inputs[1:]) if takes_base else (None, inputs)
    recipe = library.recipe(mapped.method, models, base, library.with_compat(mapped))
    recipe["out_dtype"] = "bfloat16"
    source = mapped.config_source
    if source is not None:
        named = {f"model_{index}": str(path) for index, path in enumerate(models)}
        recipe["config_source"] = named.get(source, source)
    library.merge(recipe, output)


def _input(folder: Path, name: str) -> Path:
    """Inputs are named relative to models/ or to models/inputs/."""
    for parent in (folder / "models", folder / "models" / "inputs"):
        if (parent / name).is_dir():
            return (parent / name).resolve()
    raise FileNotFoundError(f"input {name!r} is not in the golden set")


def _compare(folder: Path, entry: Mapping[str, Any], output: Path) -> list[str]:
    reasons = list(_file_differences(entry, output))
    merged = read_checkpoint(output)
    reasons += _layout_differences(entry["tensors"], merged)
    tolerance = entry["tolerance"]
    golden = read_checkpoint(folder / entry[tolerance["reference"]])
    mismatch = entry.get("mismatch_fraction", {})
    for name, want in golden.items():
        if name not in merged or merged[name].shape != want.shape:
            continue  # told by the layout
        reason = disagreement(merged[name], want, tolerance, float(mismatch.get(name, 0.0)))
        if reason and not threshold_ties.explained(folder / "models", output, name, merged[name], want, tolerance):
            reasons.append(f"{name}: {reason}")
    lambdas = folder / entry["output_dir"] / "yoyo_scale.csv"
    if lambdas.exists() and (output / lambdas.name).exists():
        reasons += lambda_differences(output / lambdas.name, lambdas)
    return reasons


def _file_differences(entry: Mapping[str, Any], output: Path) -> Iterator[str]:
    """Every file of the golden that is neither weights nor about the peer's own run has its counterpart."""
    present = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    for name in entry["files"]:
        is_weights = name.endswith((".safetensors", ".safetensors.index.json"))
        if not is_weights and name not in PEER_FILES and name not in present:
            yield f"the output has no {name}"
    if "--out-shard-size" in entry.get("command", "") and "model.safetensors.index.json" not in present:
        yield "the output is not sharded"


def _layout_differences(want: Mapping[str, Any], merged: Mapping[str, AnyArray]) -> list[str]:
    """Names, shapes and element types."""
    reasons = [f"{name}: missing" for name in want if name not in merged]
    reasons += [f"{name}: not in the golden" for name in merged if name not in want]
    for name, array in merged.items():
        if name not in want:
            continue
        if list(array.shape) != want[name]["shape"]:
            reasons.append(f"{name}: shape {list(array.shape)} instead of {want[name]['shape']}")
        if str(array.dtype) != want[name]["dtype"]:
            reasons.append(f"{name}: {array.dtype} instead of {want[name]['dtype']}")
    return reasons


def _read_lambdas(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row[0]: row[1:] for row in csv.reader(file)}


def lambda_differences(ours: Path, golden: Path) -> list[str]:
    """yoyo_scale.csv: the same header and tensors; the same numbers to their six decimals."""
    got, want = _read_lambdas(ours), _read_lambdas(golden)
    if got.pop("tensor_name", None) != want.pop("tensor_name", None):
        return ["yoyo_scale.csv: another header"]
    reasons = [f"yoyo_scale.csv: {name} is missing" for name in want if name not in got]
    for name in sorted(set(want) & set(got)):
        left, right = np.array(got[name], np.float64), np.array(want[name], np.float64)
        same = left.shape == right.shape
        if not same or not np.allclose(left, right, rtol=0.0, atol=LAMBDA_TOLERANCE, equal_nan=True):
            reasons.append(f"yoyo_scale.csv: {name} has {got[name]} instead of {want[name]}")
    return reasons
