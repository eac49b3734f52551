"""Peak anonymous memory and time of a merge, measured from outside.

    python benchmarks/generate.py benchmarks/data
    python benchmarks/memory.py benchmarks/data [--method yoyo_scale] [--limit 400MB]

The merge runs in a process of its own, whose RssAnon in /proc/PID/status is sampled every few milliseconds: memory that
the process has allocated, without pages of the files it reads. The exit code is 1 if the peak is above the limit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from generate import parse_size

INTERVAL = 0.005

MERGE = """
import json, sys
import stockpot as sp
job = json.load(sys.stdin)
sp.merge(job["recipe"], job["output"], progress=False, **job["options"])
"""


class Measurement(NamedTuple):
    """What was seen of a process."""

    seconds: float
    peak_anonymous: int
    """Bytes: the largest RssAnon seen."""
    peak_resident: int
    """Bytes: the largest RssAnon + RssFile + RssShmem seen."""
    samples: int


def resident(pid: int) -> tuple[int, int]:
    """Anonymous and total resident bytes of a process; zeros once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^Rss(\w+):\s+(\d+) kB", status, re.MULTILINE)}
    return sizes.get("Anon", 0), sum(sizes.values())


def measure(recipe: dict[str, object], output: Path, options: dict[str, object]) -> Measurement:
    """Merge in another process and watch it. Raises CalledProcessError if it fails."""
    job = json.dumps({"recipe": recipe, "output": str(output), "options": options})
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", MERGE], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(job)
    process.stdin.close()
    anonymous = total = samples = 0
    while process.poll() is None:
        own, everything = resident(process.pid)
        anonymous, total = max(anonymous, own), max(total, everything)
        samples += 1
        time.sleep(INTERVAL)
    seconds = time.perf_counter() - begun
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, "merge")
    return Measurement(seconds, anonymous, total, samples)


def make_recipe(data: Path, method: str, parameters: dict[str, object]) -> dict[str, object]:
    """A recipe of the checkpoints that generate.py wrote."""
    models = sorted(data.glob("model-*"), key=lambda path: int(path.name.split("-")[1]))
    if not (data / "base").is_dir() or not models:
        raise FileNotFoundError(f"{data} has no base and model-0: write them with benchmarks/generate.py {data}")
    return {
        "merge_method": method,
        "base_model": str(data / "base"),
        "models": [{"model": str(model)} for model in models],
        "parameters": parameters,
    }


def bytes_below(folder: Path) -> int:
    """Sizes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Measure as the command line says; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="folder that generate.py wrote")
    parser.add_argument("--method", default="yoyo_scale", help="merge method (default yoyo_scale)")
    parser.add_argument(
        "--parameters", type=json.loads, default={}, metavar="JSON", help="the method's parameters, as JSON"
    )
    parser.add_argument("--output", type=Path, help="output folder (default: a temporary one beside the data)")
    parser.add_argument("--threads", type=int, default=0, help="workers (default: the usable CPUs)")
    parser.add_argument("--max-memory", help="bytes of buffers, or text such as 256MiB (default: the library's)")
    parser.add_argument(
        "--limit", type=parse_size, default=400_000_000, help="largest allowed anonymous memory (default 400MB)"
    )
    options = parser.parse_args()
    try:
        recipe = make_recipe(options.data.resolve(), options.method, options.parameters)
    except FileNotFoundError as error:
        parser.error(str(error))
    scratch = Path(tempfile.mkdtemp(prefix="merged-", dir=options.data))
    output = options.output or scratch / "output"
    try:
        measured = measure(recipe, output, {"threads": options.threads, "max_memory": options.max_memory})
        written = bytes_below(output)
    finally:
        shutil.rmtree(scratch)
    read = bytes_below(options.data)
    print(f"{options.method}: inputs {read / 1e9:.2f} GB, output {written / 1e9:.2f} GB")
    print(f"seconds: {measured.seconds:.1f}")
    print(f"peak anonymous memory: {measured.peak_anonymous / 1e6:.0f} MB (limit {options.limit / 1e6:.0f} MB)")
    print(f"peak resident memory:  {measured.peak_resident / 1e6:.0f} MB ({measured.samples} samples)")
    return 1 if measured.peak_anonymous > options.limit else 0


if __name__ == "__main__":
    sys.exit(main())
