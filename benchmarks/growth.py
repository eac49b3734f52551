"""How time and memory grow: with bytes, with the number of models, with the number of tensors; and what a start costs.

    python benchmarks/growth.py                              all groups, some minutes and up to 9 GB of disk
    python benchmarks/growth.py --only bytes --maximum 1GB   one group: bytes, models, shards, experts, start
    python benchmarks/growth.py --quick

    bytes    1 MB to --maximum of inputs (three models and the base together), by tens
    models   2, 4, 8 and 16 models of --size each
    shards   128 models of 2 MB in 10 files each: 1,280 open files
    experts  20,000 tensors (51 layers of 128 experts) of 1 GB a model, against 147 tensors of as many bytes
    start    `stockpot --version`, and merges of the checkpoints of Tests/Fixtures/digits-vit (1 MB each)

Checkpoints are generated for a group and deleted after it. All runs are whole processes with a warm page cache; methods
take turns within a round. Peak anonymous memory comes from one more run, which is not timed. "ns/B" is the median time
over the bytes of all inputs: a flat column means that time grows with the bytes and nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generate import Model, model_of_bytes, parse_size, write_set
from measure import (
    DATA,
    Process,
    Report,
    add_options,
    bytes_of,
    inputs_of,
    make_recipe,
    merge,
    names_in,
    recipe_of,
    run,
    spread,
    tensor_files,
)

import stockpot as sp

GROUPS = ("bytes", "models", "shards", "experts", "start")
DIGITS = Path(__file__).resolve().parents[1] / "Tests" / "Fixtures" / "digits-vit"
EXPERTS = Model(51, 256, 96, 32000, "bf16", 500_000_000, experts=128)
FEW_EXPERTS = Model(2, 32, 16, 100, "bf16", 500_000_000, experts=4)

COLUMNS = {
    "what": "what",
    "method": "method",
    "models": "models",
    "tensors": "tensors",
    "files": "files",
    "megabytes": "MB read|.1f",
    "seconds": "seconds|.3f",
    "minimum": "min|.3f",
    "maximum": "max|.3f",
    "user": "user|.2f",
    "system": "system|.2f",
    "each": "ns/B|.3f",
    "peak": "peak MB|.1f",
}
START_COLUMNS = {key: COLUMNS[key] for key in ("what", "seconds", "minimum", "maximum", "user", "system")}


def rows_of(what: str, recipes: Mapping[str, dict[str, Any]], scratch: Path, rounds: int) -> list[dict[str, Any]]:
    """Run recipes in turns; a row for each."""
    runs: dict[str, list[Process]] = {method: [] for method in recipes}
    for recipe in recipes.values():
        for folder in inputs_of(recipe):
            run(["cat", *tensor_files(folder)])
    for _ in range(rounds):
        for method, recipe in recipes.items():
            runs[method].append(merge(recipe, scratch)[0])
    rows = []
    for method, recipe in recipes.items():
        watched, _ = merge(recipe, scratch, watch_memory=True)
        inputs = inputs_of(recipe)
        read = bytes_of(inputs)
        times = spread([one.seconds for one in runs[method]])
        with sp.open(inputs[0]) as first:
            tensors = len(first)
        row: dict[str, Any] = {"what": what, "method": method, "models": len(recipe["models"]), "tensors": tensors}
        row |= {"files": sum(len(tensor_files(folder)) for folder in inputs), "megabytes": read / 1e6}
        row |= {"seconds": times.median, "minimum": times.minimum, "maximum": times.maximum}
        row |= {
            "user": spread([one.user for one in runs[method]]).median,
            "system": spread([one.system for one in runs[method]]).median,
            "each": 1e9 * times.median / read,
            "peak": watched.peak_anonymous / 1e6,
        }
        rows.append(row)
    return rows


def generated(
    what: str, model: Model, models: int, methods: Sequence[str], scratch: Path, rounds: int
) -> list[dict[str, Any]]:
    """Rows of checkpoints that are written for them and deleted."""
    data = scratch / "data"
    try:
        write_set(data, model, models)
        return rows_of(what, {method: make_recipe(data, method) for method in methods}, scratch, rounds)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def by_bytes(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Time against the bytes of the inputs."""
    sizes = [float(10**power) for power in range(6, 13) if 10**power < options.maximum] + [options.maximum]
    rows = []
    for size in sizes:
        model = model_of_bytes(int(size / 4))
        rows += generated(f"{size / 1e6:,.0f} MB", model, 3, options.methods, scratch, options.rounds)
    report.table("bytes", rows, COLUMNS)


def by_models(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Time against the number of models."""
    rows = []
    for count in (2, 3) if options.quick else (2, 4, 8, 16):
        model = model_of_bytes(options.size)
        rows += generated(f"{count} models", model, count, options.methods, scratch, options.rounds)
    report.table("models", rows, COLUMNS)


def by_shards(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Very many models in many files."""
    count, size = (8, 20_000) if options.quick else (128, 2_000_000)
    model = model_of_bytes(size).in_shards(10)
    report.table(
        "shards", generated(f"{count} x 10 files", model, count, options.methods, scratch, options.rounds), COLUMNS
    )


def by_experts(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Very many small tensors against few large ones of as many bytes."""
    many = FEW_EXPERTS if options.quick else EXPERTS
    few = model_of_bytes(many.bytes)
    rows = generated("experts", many, 3, options.methods, scratch, options.rounds)
    rows += generated("dense", few, 3, options.methods, scratch, options.rounds)
    report.table("experts", rows, COLUMNS)
    for one, other in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        more = one["seconds"] - other["each"] * one["megabytes"] / 1e3
        tensor = 1e6 * more / (one["tensors"] - other["tensors"])
        ratio = one["each"] / other["each"]
        report.note(
            f"{one['method']}: {ratio:.2f} times the time per byte, {tensor:.1f} microseconds per further tensor"
        )


def by_start(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """What a process costs before it does anything."""
    command = [sys.executable, "-m", "stockpot"]
    recipes = {}
    for method in options.methods:
        recipe = recipe_of(method, DIGITS / "base", [DIGITS / f"soup-{index}" for index in range(5)])
        recipes[f"stockpot merge, {method} of 5 x {bytes_of(inputs_of(recipe)[:1]) / 1e6:.1f} MB"] = recipe
    runs: dict[str, list[Process]] = {}
    for _ in range(options.rounds + 1):
        for name, rest in (("python -c pass", None), ("stockpot --version", ["--version"])):
            done = run([sys.executable, "-c", "pass"] if rest is None else [*command, *rest])
            runs.setdefault(name, []).append(done)
        for name, recipe in recipes.items():
            runs.setdefault(name, []).append(merge(recipe, scratch)[0])
    rows = []
    for name, all_runs in runs.items():
        warm = all_runs[1:]  # the first reads files and compiles
        times = spread([one.seconds for one in warm])
        row: dict[str, Any] = {
            "what": name,
            "seconds": times.median,
            "minimum": times.minimum,
            "maximum": times.maximum,
        }
        row |= {
            "user": spread([one.user for one in warm]).median,
            "system": spread([one.system for one in warm]).median,
        }
        rows.append(row)
    report.table("start", rows, START_COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names_in, default=list(GROUPS), metavar="GROUPS", help="default: all")
    parser.add_argument("--methods", type=names_in, default=["linear", "model_stock", "ties"], metavar="METHODS")
    parser.add_argument("--maximum", type=parse_size, default=5_000_000_000, help="of the group bytes (default 5GB)")
    parser.add_argument("--size", type=parse_size, default=100_000_000, help="of a model in models (default 100MB)")
    parser.add_argument("--scratch", type=Path, default=DATA, help="for checkpoints (default benchmarks/data)")
    add_options(parser, rounds=5)
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(GROUPS)
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}; they are {', '.join(GROUPS)}")
    if options.quick:
        options.maximum, options.size, options.rounds = 1_000_000, 100_000, 1
        options.scratch = None
    else:
        options.scratch.mkdir(parents=True, exist_ok=True)
    groups = {"bytes": by_bytes, "models": by_models, "shards": by_shards, "experts": by_experts, "start": by_start}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as folder:
        report = Report("growth", Path(folder), options)
        for name in options.only:
            groups[name](options, Path(folder), report)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
