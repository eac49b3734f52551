"""Merges of checkpoints that are not in the page cache, against `cat` of the same files.

    make benchmark-data
    python benchmarks/cold.py [--data benchmarks/data] [--rounds 5] [--only linear,model_stock]
    python benchmarks/cold.py --quick

Before every run each input is dropped from the page cache: fsync, then posix_fadvise(POSIX_FADV_DONTNEED), and mincore
tells whether it went. Where the system keeps files (another process maps them, or the file system does not do it), the
program says so and gives no figures. The floor is `cat` of what the method reads, to /dev/null; it writes nothing, as
the output of the merge goes to the page cache first. The disk's own cache, and a hypervisor's, are not ours to drop.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints import INPUTS, data_of
from measure import (
    DATA,
    Process,
    Report,
    add_options,
    bytes_of,
    cached_fraction,
    inputs_of,
    make_recipe,
    merge,
    names_in,
    run,
    spread,
    tensor_files,
)

DROPPED = 0.01
"""A file counts as dropped if less of it than this is left: the kernel may keep a few pages."""

COLUMNS = {
    "method": "method",
    "gigabytes": "GB read|.2f",
    "floor": "cat s|.2f",
    "floor_rate": "GB/s|.2f",
    "seconds": "merge s|.2f",
    "minimum": "min|.2f",
    "maximum": "max|.2f",
    "rate": "GB/s|.2f",
    "ratio": "ratio|.2f",
    "smallest": "min|.2f",
    "largest": "max|.2f",
}


def drop(files: Sequence[Path]) -> float:
    """Drop files from the page cache; the largest fraction of one that stays."""
    os.sync()  # what earlier runs wrote shall not be written during this one
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return max(cached_fraction(path) for path in files)


def measure(method: str, data: Path, scratch: Path, rounds: int) -> dict[str, Any] | float:
    """A row of the table, or the fraction of a file that cannot be dropped."""
    recipe = make_recipe(data, method, models=INPUTS)
    files = [file for folder in inputs_of(recipe) for file in tensor_files(folder)]
    floors: list[Process] = []
    runs: list[Process] = []
    for _ in range(rounds):
        left = drop(files)
        if left > DROPPED:
            return left
        floors.append(run(["cat", *files]))
        drop(files)
        runs.append(merge(recipe, scratch)[0])
    read = bytes_of(inputs_of(recipe))
    ratio = spread([one.seconds / floor.seconds for one, floor in zip(runs, floors, strict=True)])
    seconds = spread([one.seconds for one in runs])
    floor = spread([one.seconds for one in floors]).median
    return {
        "method": method,
        "gigabytes": read / 1e9,
        "floor": floor,
        "floor_rate": read / floor / 1e9,
        "seconds": seconds.median,
        "minimum": seconds.minimum,
        "maximum": seconds.maximum,
        "rate": read / seconds.median / 1e9,
        "ratio": ratio.median,
        "smallest": ratio.minimum,
        "largest": ratio.maximum,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="that generate.py wrote (default benchmarks/data)")
    parser.add_argument("--only", type=names_in, default=["linear", "model_stock"], metavar="METHODS")
    add_options(parser, rounds=5)
    options = parser.parse_args(arguments)
    with data_of(options, parser) as (data, scratch):
        report = Report("cold", data, options)
        rows = []
        for method in options.only:
            row = measure(method, data, scratch, options.rounds)
            if isinstance(row, float):
                report.note(f"{100 * row:.0f} % of a file stays in the page cache here: nothing cold can be measured")
                break
            rows.append(row)
        if rows:
            report.table(f"page cache cold, {options.rounds} rounds", rows, COLUMNS)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
