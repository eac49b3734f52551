"""Merge six task fine-tunes of one small vision transformer with every method, and see which merge does best.

Each method is tried over a small grid of lambda and measured on the held-out images of all six tasks. Run by
`make compare`, in one or two minutes. Needs the stockpot package, NumPy and matplotlib. What is seen is in
docs/digits-vit.md.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from compare_grids import COMPRESSED, FAMILIES, LEFT_OUT, REFERENCE, TASKS, Variant, catalogue, choose
from compare_picture import draw
from compare_run import Row, Work, measure, models, run

import stockpot as sp

FIXTURE = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "digits-vit"
SHORT = ("identity", "rotated", "inverted", "shuffled", "parity", "mod 3")
OUTPUT = Path("demo-output") / "compare"
HEADER = ("method", "parameters", *SHORT, "mean", "seconds", "kB/task", "ratio")

WORKERS = {
    # Workers are the parallelism: more threads in NumPy's products would fight over the same CPUs.
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc hands freed arrays back to the system and takes them again zeroed, which costs a third of the time.
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 30)),
}
"""The environment of the worker processes."""


def compare(fixture: Path, variants: Sequence[Variant], processes: int) -> list[Row]:
    """Measure the base, the fine-tunes and all variants; rows in the order of the catalogue, for any `processes`."""
    works = [Work(fixture, variant) for variant in variants]
    with _environment(WORKERS), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        existing = [pool.submit(measure, fixture, path) for path in (fixture / "base", *models(fixture))]
        # Corrections take longest: they go first, so that no worker is left alone with them at the end.
        order = sorted(range(len(works)), key=lambda place: works[place].variant.family != COMPRESSED)
        futures = {pool.submit(run, works[place]): place for place in order}
        found: dict[int, list[Row]] = {}
        for done, future in enumerate(as_completed(futures), start=1):
            place = futures[future]
            found[place] = future.result()
            print(f"  {done:2} of {len(works)}  {works[place].variant.label}", file=sys.stderr, flush=True)
        rows = _references(*(future.result() for future in existing))
    return [*rows, *(row for place in range(len(works)) for row in found[place])]


def _references(base: dict[str, float], *tuned: dict[str, float]) -> list[Row]:
    """The base, each fine-tune on its own task, and the fine-tune that does best over all tasks."""
    own = {task: accuracies[task] for task, accuracies in zip(TASKS, tuned, strict=True)}
    rows = [
        Row(f"fine-tune {task}", "", REFERENCE, "", "", None, accuracies)
        for task, accuracies in zip(TASKS, tuned, strict=True)
    ]
    best = max(rows, key=lambda row: row.mean)
    return [
        Row("base", "", REFERENCE, "", "", None, base),
        replace(best, label="best single fine-tune", parameters=best.label.removeprefix("fine-tune ")),
        Row("six fine-tunes", "", REFERENCE, "each on its own task", "", None, own),
    ]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile; NumPy reads them when it is loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def best_rows(rows: Iterable[Row]) -> list[Row]:
    """Of each label the row with the highest mean (the first of equals), highest first."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.label not in best or row.mean > best[row.label].mean:
            best[row.label] = row
    return sorted(best.values(), key=lambda row: -row.mean)


def cells(row: Row, mark: str = "") -> list[str]:
    """What the table shows of a row."""
    numbers = [*(row.accuracies[task] for task in TASKS), row.mean]
    return [
        row.label,
        row.parameters,
        *(f"{100 * number:.1f}" for number in numbers[:-1]),
        f"{100 * numbers[-1]:.2f}{mark}",
        "" if row.seconds is None else f"{row.seconds:.2f}",
        "" if row.bytes_per_task is None else f"{row.bytes_per_task / 1000:.0f}",
        "" if row.compression is None else f"{row.compression:.1f}",
    ]


def table(rows: Sequence[Row], *, marked: bool) -> list[list[str]]:
    """The header and the rows as text; the best of each label with a star if `marked`."""
    best = set(map(id, best_rows(rows))) if marked else set()
    tuned = {row.label for row in rows if row.value is not None}
    body = [cells(row, "*" if marked and id(row) in best and row.label in tuned else "") for row in rows]
    return [list(HEADER), *body]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns side by side: text to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def pad(column: int, text: str) -> str:
        # The star stands beside the number's column, not in it.
        return text.ljust(widths[column]) if column < 2 else (text if "*" in text else text + " ").rjust(widths[column])

    return "\n".join("  ".join(pad(column, text) for column, text in enumerate(line)).rstrip() for line in lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", "---", *["---:"] * (len(lines[0]) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def save(rows: Sequence[Row], output: Path) -> list[Path]:
    """Write compare.csv (every row, all digits), compare.md (both tables) and compare.png."""
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"compare.{suffix}" for suffix in ("csv", "md", "png")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ("label", "method", "family", "parameters", "tuned", "value")
        sizes = ("seconds", "bytes_per_task", "compression")
        writer.writerow([*names, *TASKS, "mean", *sizes])
        for row in rows:
            accuracies = [row.accuracies[task] for task in TASKS]
            first, last = ([getattr(row, name) for name in group] for group in (names, sizes))
            writer.writerow([*first, *accuracies, row.mean, *last])
    text = f"# Best of each method\n\n{markdown(table(best_rows(rows), marked=False))}\n\n"
    text += f"# All\n\n`*`: the best of its method.\n\n{markdown(table(rows, marked=True))}\n"
    paths[1].write_text(text, encoding="utf-8")
    draw(rows, best_rows(rows), FAMILIES, paths[2])
    return paths


def _methods(text: str) -> list[str]:
    """The value of --methods, or a sentence about what is wrong with it."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    compared = sorted({variant.method for variant in catalogue()})
    for name in names:
        if name in LEFT_OUT:
            raise argparse.ArgumentTypeError(f"{name} is left out: it {LEFT_OUT[name]}")
        if name not in compared:
            near = difflib.get_close_matches(name, compared, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(compared)}"
            raise argparse.ArgumentTypeError(f"there is no method {name}; {advice}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", 1)[0] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""\
A task vector is what fine-tuning changed: fine-tune minus base. Most methods merge the six
task vectors into one and add it to the base, times lambda. Too small a lambda teaches the
base nothing, too large a one breaks it, so each method is tried over a grid and the best
mean accuracy is marked with a star.

TALL masks and corrections are no single model: each task keeps a little beside the merged
model, from which its own model is rebuilt. kB/task is what it keeps, and ratio how often
that goes into a whole model.

Lambda is chosen on the images that are reported, so the best rows are somewhat optimistic.
""",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder (default: {OUTPUT})")
    parser.add_argument("--fixture", type=Path, default=FIXTURE, help="folder with base/, task-*/ and eval.safetensors")
    parser.add_argument("--methods", type=_methods, metavar="A,B", help="only these, as `stockpot methods` names them")
    parser.add_argument("--quick", action="store_true", help="two values of each grid")
    processes = os.cpu_count() or 1
    parser.add_argument("--processes", type=int, default=processes, help=f"workers (default: {processes}, the CPUs)")
    return parser


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Merge, measure, print and save; the rows of the table."""
    options = _parser().parse_args(arguments)
    started = time.perf_counter()
    variants = choose(options.methods, options.quick)
    rows = compare(options.fixture, variants, max(1, options.processes))
    print(aligned(table(rows, marked=True)))
    print("\nThe best of each method, by mean accuracy (per cent)\n")
    print(aligned(table(best_rows(rows), marked=False)))
    print()
    for name in sp.methods():
        if name in LEFT_OUT:
            print(f"Left out: {name}, which {LEFT_OUT[name]}")
        elif name not in {variant.method for variant in catalogue()}:
            print(f"Left out: {name}, which compare_grids.py does not know yet")
    for path in save(rows, options.output):
        print(f"Saved {path}")
    print(f"{len(rows)} rows in {time.perf_counter() - started:.0f} s")
    return rows


if __name__ == "__main__":
    main()
