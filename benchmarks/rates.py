"""What `stockpot plan` expects of a merge, against what it takes; and the rates from which it expects it.

    make benchmark-data
    python benchmarks/rates.py [--data benchmarks/data] [--rounds 3] [--only linear,ties]
    python benchmarks/rates.py --quick

Each method of the Gram and the elementwise family merges three models (one or two where it takes no more) as a process
with a warm page cache. "GB/s" is what belongs into Sources/MergeEngine/Plan+Estimate.swift on the machine of the rates:
bytes read and written over user and system seconds, less those of a process that only plans. "expected" is the plan's
figure on this machine, and "off" the measured seconds, without those of the plan, over it: 2 where it takes twice as
long as was said. The speed of the machine next to that of the rates comes first, as it is measured again by each plan.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints import INPUTS, data_of, note_if_cold, warm
from measure import DATA, Report, add_options, inputs_of, make_recipe, merge, names_in, run, spread

import stockpot as sp

COLUMNS = {
    "method": "method",
    "models": "models",
    "moved": "GB moved|.2f",
    "seconds": "seconds|.2f",
    "processor": "user+sys|.2f",
    "rate": "GB/s|.2f",
    "expected": "expected|.2f",
    "off": "off|.2f",
}
FACTORS = {"passthrough": {"scale": 0.9}}
"""Parameters beside those of `PARAMETERS`: with none, `passthrough` copies."""


def rated() -> list[str]:
    """The methods that have a rate."""
    return [name for name in sp.methods() if sp.method_schema(name)["family"] != "spectral"]


def measure(method: str, data: Path, scratch: Path, rounds: int) -> tuple[dict[str, Any], list[float]]:
    """A row of the table, and the speed of the machine as each of its plans has measured it."""
    most = sp.method_schema(method)["inputs"]["max_models"] or INPUTS
    recipe = make_recipe(data, method, FACTORS.get(method), models=min(most, INPUTS))
    file = scratch / "plan.json"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "stockpot", "plan", "--json", str(file)]
    starts, runs, plans = [], [], []
    for _ in range(rounds):
        starts.append(run(command))
        runs.append(merge(recipe, scratch)[0])
        plans.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    seconds = spread([one.seconds for one in runs]).median - spread([one.seconds for one in starts]).median
    processor, begun = (spread([one.user + one.system for one in some]).median for some in (runs, starts))
    expected = spread([plan["expected_seconds"] for plan in plans]).median
    moved = plans[0]["bytes_to_read"] + plans[0]["bytes_to_write"]
    row = {"method": method, "models": len(recipe["models"]), "moved": moved / 1e9, "seconds": seconds}
    row |= {"processor": processor - begun, "rate": moved / max(processor - begun, 1e-3) / 1e9}
    row |= {"expected": expected, "off": seconds / expected}
    return row, [plan["machine_speed"] for plan in plans]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="that generate.py wrote (default benchmarks/data)")
    parser.add_argument("--only", type=names_in, default=None, metavar="METHODS", help="default: all that have a rate")
    add_options(parser, rounds=3)
    options = parser.parse_args(arguments)
    with data_of(options, parser) as (data, scratch):
        report = Report("rates", data, options)
        folders = inputs_of(make_recipe(data, "ties", models=INPUTS))
        warm(folders)
        rows, speeds = [], []
        for method in options.only or rated():
            row, measured = measure(method, data, scratch, options.rounds)
            rows.append(row)
            speeds += measured
        speed = spread(speeds)
        report.note(f"speed of this machine: {speed.median:.2f} ({speed.minimum:.2f} to {speed.maximum:.2f})")
        report.table(f"page cache warm, {options.rounds} rounds", rows, COLUMNS)
        off = spread([row["off"] for row in rows])
        note_if_cold(folders, report)
        report.note(f"off: {off.median:.2f} ({off.minimum:.2f} to {off.maximum:.2f})")
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
