"""Merges of whole checkpoints, as processes, against the least that moving their bytes takes.

    make benchmark-data                                       base and four fine-tunes of 1.4 GB each
    python benchmarks/checkpoints.py [--data benchmarks/data] [--rounds 5] [--only linear,ties]
    python benchmarks/checkpoints.py --quick                  generates tiny ones for itself

The floor is `cat` of three models to /dev/null and then `cp` of one of them: read three, write one. In every round the
floor and each method run once, in turns, with all inputs in the page cache; a ratio is a method's seconds over the
floor's of the same round, and medians of the ratios are compared with the goals. Methods that need the base read it as
a fourth input, which this floor does not hold: the column "own" divides by `cat` of what that method reads and `cp`.
Outputs are deleted between runs, outside the timed part. On a file system where `cp` shares blocks, the floor lacks the
writing, and the ratios are not comparable; the machine's line names the file system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from generate import Model, write_set
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

import stockpot as sp

GOALS = {
    "linear": 0.8,
    "task_arithmetic": 0.8,
    "model_stock": 1.1,
    "yoyo_scale": 1.1,
    "geometric_median": 1.1,
    "slerp": 1.1,
    "yoyo_fusion": 1.5,
    "ties": 1.8,
    "breadcrumbs": 1.8,
    "sce": 1.8,
    "tgmd": 1.8,
    "dare_ties": 2.0,
    "della": 2.0,
}
"""Method seconds over floor seconds, at most. Those that are not registered are left out."""

INPUTS = 3
TINY = Model(layers=1, width=64, hidden=128, vocabulary=100, dtype="bf16", shard_size=50_000)

COLUMNS = {
    "what": "what",
    "seconds": "seconds|.2f",
    "minimum": "min|.2f",
    "maximum": "max|.2f",
    "user": "user|.2f",
    "system": "system|.2f",
    "rate": "GB/s|.2f",
    "ratio": "ratio|.2f",
    "smallest": "min|.2f",
    "largest": "max|.2f",
    "goal": "goal|.1f",
    "met": "met",
    "own": "own|.2f",
}


class Floor:
    """`cat` of each checkpoint and `cp` of one."""

    def __init__(self, folders: Sequence[Path], copied: Path, scratch: Path) -> None:
        """Name what is read, what is copied, and where to."""
        self._folders, self._copied, self._scratch = folders, copied, scratch
        self.reads: list[dict[Path, Process]] = []
        """Per round."""
        self.copies: list[Process] = []

    def run(self) -> None:
        """One round."""
        self.reads.append({folder: run(["cat", *tensor_files(folder)]) for folder in self._folders})
        target = self._scratch / "copied"
        target.mkdir()
        try:
            self.copies.append(run(["cp", *tensor_files(self._copied), target]))
        finally:
            shutil.rmtree(target)

    def round(self, index: int, folders: Sequence[Path]) -> Process:
        """The floor of a merge that reads `folders`, in round `index`."""
        parts = [*(self.reads[index][folder] for folder in folders), self.copies[index]]
        return Process(*(sum(getattr(part, name) for part in parts) for name in ("seconds", "user", "system")))


class Contender(NamedTuple):
    """A method and what its runs took."""

    method: str
    recipe: dict[str, Any]
    runs: list[Process]
    goal: float | None


def warm(folders: Sequence[Path]) -> None:
    """Bring everything into the page cache, and let nothing be written that was left from before."""
    os.sync()
    for folder in [*folders, *folders]:  # twice, since the cache may prefer what it has seen twice
        run(["cat", *tensor_files(folder)])


def note_if_cold(folders: Sequence[Path], report: Report) -> None:
    """Say so if the page cache has not kept everything."""
    held = {file: cached_fraction(file) for folder in folders for file in tensor_files(folder)}
    least = min(held, key=held.__getitem__)
    if held[least] < 0.999:
        where = f"{least.parent.name}/{least.name}"
        report.note(f"WARNING: {100 * held[least]:.1f} % of {where} is in the page cache: the runs were not warm")


def row(name: str, runs: Sequence[Process], moved: int) -> dict[str, Any]:
    """Times of one line of the table."""
    seconds = spread([one.seconds for one in runs])
    return {
        "what": name,
        "seconds": seconds.median,
        "minimum": seconds.minimum,
        "maximum": seconds.maximum,
        "user": spread([one.user for one in runs]).median,
        "system": spread([one.system for one in runs]).median,
        "bytes": moved,
        "rate": moved / seconds.median / 1e9,
        "all": [one.seconds for one in runs],
    }


def measure(data: Path, scratch: Path, options: argparse.Namespace, report: Report) -> None:
    """All rounds, and the table."""
    contenders = [
        Contender(method, make_recipe(data, method, models=2 if method == "slerp" else INPUTS), [], GOALS.get(method))
        for method in options.only or [name for name in GOALS if name in sp.methods()]
    ]
    floor_inputs = inputs_of(make_recipe(data, "linear", models=INPUTS))
    everything = list(dict.fromkeys([*floor_inputs, *(path for one in contenders for path in inputs_of(one.recipe))]))
    warm(everything)
    floor = Floor(everything, floor_inputs[0], scratch)
    for _ in range(options.rounds):
        floor.run()
        for one in contenders:
            seen, _ = merge(one.recipe, scratch, "--threads", str(options.threads))
            one.runs.append(seen)
    note_if_cold(everything, report)
    written = bytes_of(floor_inputs[:1])
    rounds = range(options.rounds)
    fixed = [floor.round(index, floor_inputs) for index in rounds]
    rows = [row("floor: cat 3, cp 1", fixed, bytes_of(floor_inputs) + 2 * written)]
    for one in contenders:
        read = inputs_of(one.recipe)
        own = [floor.round(index, read) for index in rounds]
        ratio = spread([seen.seconds / least.seconds for seen, least in zip(one.runs, fixed, strict=True)])
        figures = row(one.method, one.runs, bytes_of(read) + written)
        figures |= {"ratio": ratio.median, "smallest": ratio.minimum, "largest": ratio.maximum, "goal": one.goal}
        figures["met"] = None if one.goal is None else "yes" if ratio.median <= one.goal else "no"
        figures["own"] = spread([s.seconds / least.seconds for s, least in zip(one.runs, own, strict=True)]).median
        rows.append(figures)
    sizes = f"{len(floor_inputs)} models of {written / 1e9:.3g} GB, {options.rounds} rounds, page cache warm"
    report.table(sizes, rows, COLUMNS)


@contextmanager
def data_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[tuple[Path, Path]]:
    """Lend the checkpoints to measure with, tiny ones if it is to be quick, and a folder for outputs beside them."""
    if not options.quick and not options.data.is_dir():
        parser.error(f"{options.data} is not there: make benchmark-data writes it, or name another folder with --data")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=None if options.quick else options.data) as folder:
        if options.quick:
            write_set(Path(folder), TINY, INPUTS)
            options.rounds = 1
        yield (Path(folder) if options.quick else options.data), Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="that generate.py wrote (default benchmarks/data)")
    parser.add_argument("--only", type=names_in, default=[], metavar="METHODS", help="default: those that have a goal")
    parser.add_argument("--threads", type=int, default=0, help="workers (default: the usable CPUs)")
    add_options(parser, rounds=5)
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(sp.methods())
    if unknown:
        parser.error(f"there is no method {', '.join(sorted(unknown))}; they are {', '.join(sp.methods())}")
    with data_of(options, parser) as (data, scratch):
        report = Report("checkpoints", data, options)
        try:
            measure(data, scratch, options, report)
        except FileNotFoundError as error:
            parser.error(str(error))
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
