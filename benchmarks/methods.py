"""Every merge method on arrays in memory: nanoseconds per element and GB/s.

    python benchmarks/methods.py                         bf16, f16 and f32; 2, 3 and 8 models; ten minutes or so
    python benchmarks/methods.py --only ties,linear --types bf16 --models 3
    python benchmarks/methods.py --quick

One tensor is merged by sp_method_merge, into the same result every time. ns/element is the median time over the
elements of one model. GB/s is the bytes of all inputs and the result, each once, over that time; a method that sweeps
more than once shows it as a lower rate. Spectral methods, which decompose matrices, have a smaller matrix of their own.
Parameters are the defaults, but for a density of 0.5 where there is one to trim or drop by, and t = 0.5 of slerp.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kernels import MethodCall, weights
from measure import PARAMETERS, Report, add_options, cores, names_in, spread, takes_base

import stockpot as sp
from stockpot.dtypes import resolve

COLUMNS = {
    "method": "method",
    "family": "family",
    "type": "type",
    "models": "models",
    "threads": "threads",
    "elements": "elements",
    "nanoseconds": "ns/element|.3f",
    "minimum": "min|.3f",
    "maximum": "max|.3f",
    "rate": "GB/s|.2f",
}


def shape(text: str) -> tuple[int, ...]:
    """The sides in 512x1024."""
    sides = tuple(int(side) for side in text.split("x") if side.isdigit())
    if len(sides) != 2 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 512x1024")
    return sides


def counts(text: str) -> list[int]:
    """The numbers in 2,3,8."""
    if not all(part.isdigit() and int(part) > 0 for part in names_in(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 2,3,8")
    return [int(part) for part in names_in(text)]


def measure(
    method: str, dtype: str, models: int, sides: tuple[int, ...], threads: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Rows of one method: one per number of threads, which take turns."""
    elements = math.prod(sides)
    arrays = [weights(elements, dtype, number).reshape(sides) for number in range(models + 1)]
    base = arrays[0] if takes_base(method) else None
    merged = MethodCall(method, PARAMETERS.get(method, {}), arrays[1:], base, np.ones_like(arrays[0]))
    calls = [merged.on(number) for number in threads]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, seconds in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call()
            if turn > 0:  # the first is a warm-up
                seconds.append(time.perf_counter() - begun)
    moved = (models + 1 + (base is not None)) * arrays[0].nbytes
    family = sp.method_schema(method)["family"]
    rows = []
    for number, seconds in zip(threads, times, strict=True):
        each = spread([1e9 * value / elements for value in seconds])
        row: dict[str, Any] = {"method": method, "family": family, "type": dtype, "models": models, "threads": number}
        row |= {"elements": elements, "rate": moved / elements / each.median}
        rows.append(row | {"nanoseconds": each.median, "minimum": each.minimum, "maximum": each.maximum})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names_in, default=[], metavar="METHODS", help="default: all that are registered")
    parser.add_argument("--types", type=names_in, default=["bf16", "f16", "f32"], help="default bf16,f16,f32")
    parser.add_argument("--models", type=counts, default=[2, 3, 8], metavar="COUNTS", help="default 2,3,8")
    parser.add_argument("--shape", type=shape, default=(2048, 2048), help="of the tensor (default 2048x2048)")
    parser.add_argument("--spectral-shape", type=shape, default=(512, 512), help="for spectral methods (512x512)")
    parser.add_argument("--threads", type=int, default=cores(), help="beside one (default: all cores)")
    add_options(parser, rounds=5)
    options = parser.parse_args(arguments)
    if options.quick:
        options.shape = options.spectral_shape = (32, 48)
        options.rounds, options.models = 1, [2]
    unknown = set(options.only) - set(sp.methods())
    if unknown:
        parser.error(f"there is no method {', '.join(sorted(unknown))}; they are {', '.join(sp.methods())}")
    report = Report("methods", Path.cwd(), options)
    threads = sorted({1, options.threads})
    for dtype in options.types:
        rows = []
        for method in options.only or sp.methods():
            schema = sp.method_schema(method)
            sides = options.spectral_shape if schema["family"] == "spectral" else options.shape
            most = schema["inputs"]["max_models"] or max(options.models)
            # Where none of the numbers asked for will do, as many as the method takes.
            for models in [number for number in options.models if number <= most] or [most]:
                rows += measure(method, dtype, models, sides, threads, options.rounds)
        report.table(f"{resolve(dtype).name}: {'x'.join(map(str, options.shape))}", rows, COLUMNS)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
