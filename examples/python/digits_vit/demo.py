"""Merge five fine-tunes of one small vision transformer three ways, and measure what comes out.

Run by `make demo`. Needs the stockpot package and NumPy; takes a few seconds. The checkpoints of
Tests/Fixtures/digits-vit were trained on the same task, recognising rotated digits, with other data, learning rates
and seeds.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forward import Tensors, accuracy

import stockpot as sp

FIXTURE = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "digits-vit"
TASK = "rotated"
MEMBERS = tuple(f"soup-{index}" for index in range(5))
SHOWN = 5

MERGES: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("YOYO Scale", "yoyo_scale", {}, True),
    ("Model Stock", "model_stock", {}, True),
    ("YOYO-Fusion", "yoyo_fusion", {"anchor_index": 0, "use_geometric_median": True}, False),
)
"""Name, method, parameters, and whether the method takes the base model."""


def recipe(fixture: Path, method: str, parameters: dict[str, Any], takes_base: bool) -> dict[str, Any]:
    """The recipe of one merge: mergekit's grammar, as a dictionary."""
    made: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(fixture / member)} for member in MEMBERS],
        "parameters": parameters,
    }
    if takes_base:
        made["base_model"] = str(fixture / "base")
    return made


def merge_all(fixture: Path, output: Path) -> dict[str, Path]:
    """Run the merges; the folder of each by name."""
    output.mkdir(parents=True, exist_ok=True)
    folders = {}
    for name, method, parameters, takes_base in MERGES:
        folder = output / method.replace("_", "-")
        sp.merge(recipe(fixture, method, parameters, takes_base), folder, progress=False, overwrite=True)
        folders[name] = folder
    return folders


def measure(fixture: Path, folders: dict[str, Path]) -> list[tuple[str, float]]:
    """Accuracy of base, members and merges, in that order."""
    heads, evaluation = _read(fixture / "heads.safetensors"), _read(fixture / "eval.safetensors")
    checkpoints = {name: fixture / name for name in ("base", *MEMBERS)} | folders
    return [(name, accuracy(_read(path), heads, evaluation, TASK)) for name, path in checkpoints.items()]


def _read(path: Path) -> Tensors:
    return dict(sp.open(path).items())


def show_accuracy(rows: Sequence[tuple[str, float]]) -> None:
    """Print the table of accuracies, with a bar from 80 to 100 per cent."""
    print(f"Accuracy on the {TASK!r} test images\n")
    for name, value in rows:
        if name in (MEMBERS[0], MERGES[0][0]):
            print()
        print(f"  {name:<12} {100 * value:6.2f} %  {'#' * round((100 * value - 80) * 2)}")
    best = max(value for name, value in rows if name in MEMBERS)
    print(f"\n  best member {100 * best:.2f} %; a merge costs no training and runs as one model\n")


def read_lambdas(path: Path) -> list[tuple[str, list[float]]]:
    """Tensor names and coefficients of yoyo_scale.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        return [(row[0], [float(value) for value in row[1:]]) for row in rows]


def show_lambdas(records: Sequence[tuple[str, list[float]]], everything: bool) -> None:
    """Print the coefficients per model over all tensors, and those of single tensors."""
    print(f"YOYO Scale: lambda of each member over {len(records)} tensors\n")
    print(f"  {'':<8}" + "".join(f"{member:>9}" for member in MEMBERS) + f"{'sum':>9}")
    columns = list(zip(*([*values, sum(values)] for _, values in records), strict=True))
    summaries = {
        "mean": [sum(column) / len(column) for column in columns],
        "minimum": [min(column) for column in columns],
        "maximum": [max(column) for column in columns],
    }
    for label, values in summaries.items():
        print(f"  {label:<8}" + "".join(f"{value:9.4f}" for value in values))
    if everything:
        _show_rows("All tensors", records)
        return
    ordered = sorted(records, key=lambda record: sum(record[1]))
    _show_rows("The members disagree most on (least sum)", ordered[:SHOWN])
    _show_rows("The members agree most on (greatest sum)", ordered[-SHOWN:])


def _show_rows(title: str, records: Iterable[tuple[str, list[float]]]) -> None:
    print(f"\n  {title}")
    for name, values in records:
        short = name.removeprefix("visual.").replace("transformer.resblocks.", "blocks.")
        cells = "".join(f"{value:8.4f}" for value in values)
        print(f"    {short:<32}{cells}{sum(values):9.4f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge, measure, and say where the merged checkpoints are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (default: demo-output)")
    parser.add_argument("--fixture", type=Path, default=FIXTURE, help="folder with base/ and soup-0/ to soup-4/")
    parser.add_argument("--all", action="store_true", help="show the lambdas of every tensor")
    options = parser.parse_args(arguments)
    folders = merge_all(options.fixture, options.output)
    show_accuracy(measure(options.fixture, folders))
    show_lambdas(read_lambdas(folders["YOYO Scale"] / "yoyo_scale.csv"), options.all)
    print("\nMerged checkpoints:")
    for name, folder in folders.items():
        print(f"  {name:<12} {folder}")


if __name__ == "__main__":
    main()
