"""Compare the library with a golden set: `python run.py DIR [--only method,method]`, or `make goldens DIR=...`.

One line is printed for every case that failed or was skipped, with the reason; the last line counts. The exit code
is 1 if a case failed. Skipped are only the cases that the manifest marks as not comparable, and those that need a
method or a part of the recipe grammar that the library does not have yet.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from goldens import mapping, models
from goldens.library import Library
from goldens.manifest import read_case, read_manifest
from goldens.rules import UnmappedError
from goldens.tensors import evaluate

MOST_REASONS = 3


class Result(NamedTuple):
    """What became of one case."""

    identity: str
    outcome: str
    """passed, failed or skipped"""
    reason: str


def run(folder: Path, only: Sequence[str] = ()) -> Iterator[Result]:
    """Run every case of a golden set whose method is among `only`, or whose id begins so (none: all)."""
    manifest = read_manifest(folder)
    backend = Library()
    for entry in manifest["cases"]:
        if _is_wanted(entry, only):
            yield _result(entry, lambda entry: _tensor_case(folder, entry, backend))
    for entry in manifest["model_cases"]:
        if _is_wanted(entry, only):
            yield _result(entry, lambda entry: models.evaluate(folder, entry))


def _is_wanted(entry: Mapping[str, Any], only: Sequence[str]) -> bool:
    return not only or entry["method"] in only or any(str(entry["id"]).startswith(name) for name in only if "-" in name)


def _tensor_case(folder: Path, entry: Mapping[str, Any], backend: Library) -> list[str]:
    mapped = mapping.find(entry["method"], entry["implementation"], entry["parameters"])
    models.require_method(mapped.method)
    return evaluate(read_case(folder, dict(entry)), mapped, backend)


def _result(entry: Mapping[str, Any], execute: Callable[[Mapping[str, Any]], list[str]]) -> Result:
    identity = str(entry["id"])
    if not entry["compare"]:
        return Result(identity, "skipped", "the manifest marks it as not comparable")
    try:
        reasons = execute(entry)
    except models.LaterError as error:
        return Result(identity, "skipped", str(error))
    except UnmappedError as error:
        return Result(identity, "failed", f"not mapped: {error}")
    except Exception as error:  # whatever a case runs into is that case's failure
        return Result(identity, "failed", f"{type(error).__name__}: {error}")
    if not reasons:
        return Result(identity, "passed", "")
    more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return Result(identity, "failed", "; ".join(reasons[:MOST_REASONS]) + more)


def summary(results: Sequence[Result]) -> str:
    """The closing line."""
    count = Counter(result.outcome for result in results)
    return f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="DIR", help="golden set: a folder with manifest.json")
    parser.add_argument(
        "--only", default="", help="methods or beginnings of ids (with a dash), separated by commas (default: all)"
    )
    options = parser.parse_args(arguments)
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    if not (options.folder / "manifest.json").is_file():
        parser.error(f"{options.folder} has no manifest.json")
    results = []
    for result in run(options.folder, only):
        results.append(result)
        if result.outcome != "passed":
            print(f"{result.outcome}: {result.identity}: {result.reason}", flush=True)
    print(summary(results))
    return 1 if any(result.outcome == "failed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
