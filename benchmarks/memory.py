"""Peak anonymous memory and time of a merge, measured from outside.

    python benchmarks/generate.py benchmarks/data
    python benchmarks/memory.py benchmarks/data [--method yoyo_scale] [--limit 400MB]

The merge runs in a process of its own, whose RssAnon in /proc/PID/status is sampled every few milliseconds: memory that
the process has allocated, without pages of the files it reads. The exit code is 1 if the peak is above the limit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from generate import parse_size
from measure import bytes_of, inputs_of, make_recipe, merge


def main() -> int:
    """Measure as the command line says; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="folder that generate.py wrote")
    parser.add_argument("--method", default="yoyo_scale", help="merge method (default yoyo_scale)")
    parser.add_argument(
        "--parameters", type=json.loads, default={}, metavar="JSON", help="the method's parameters, as JSON"
    )
    parser.add_argument("--output", type=Path, help="where the output is made for a while (default: beside the data)")
    parser.add_argument("--threads", type=int, default=0, help="workers (default: the usable CPUs)")
    parser.add_argument("--max-memory", help="bytes of buffers, or text such as 256MiB (default: the library's)")
    parser.add_argument(
        "--limit", type=parse_size, default=400_000_000, help="largest allowed anonymous memory (default 400MB)"
    )
    options = parser.parse_args()
    try:
        recipe = make_recipe(options.data, options.method, options.parameters)
    except FileNotFoundError as error:
        parser.error(str(error))
    given = ["--threads", str(options.threads)]
    if options.max_memory is not None:
        given += ["--max-memory", options.max_memory]
    scratch = Path(tempfile.mkdtemp(prefix="merged-", dir=options.output or options.data))
    try:
        seen, written = merge(recipe, scratch, *given, watch_memory=True)
    finally:
        shutil.rmtree(scratch)
    print(f"{options.method}: inputs {bytes_of(inputs_of(recipe)) / 1e9:.2f} GB, output {written / 1e9:.2f} GB")
    print(f"seconds: {seen.seconds:.1f}")
    print(f"peak anonymous memory: {seen.peak_anonymous / 1e6:.0f} MB (limit {options.limit / 1e6:.0f} MB)")
    print(f"peak resident memory:  {seen.peak_resident / 1e6:.0f} MB ({seen.samples} samples)")
    return 1 if seen.peak_anonymous > options.limit else 0


if __name__ == "__main__":
    sys.exit(main())
