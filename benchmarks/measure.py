"""What the benchmark programs share: the machine's line, timed processes, statistics, tables and recipes.

Not a program. Every figure that a benchmark prints is made here in one way: wall seconds of a monotonic clock, user and
system seconds of the process and its children as the kernel counted them, medians with the smallest and the largest,
and ratios within one round, so that a machine that changes its speed changes both sides of a ratio.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import stockpot as sp

BUSY = 0.5
"""Load average above which a wall-clock figure is worth little."""

INTERVAL = 0.005
"""Seconds between two looks at a process's memory."""

DATA = Path(__file__).resolve().parent / "data"
"""Where `make benchmark-data` writes."""

HALF = {"density": 0.5}
PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "slerp": {"t": 0.5},
    "nearswap": {"t": 0.001},
    **dict.fromkeys(
        ("ties", "dare_linear", "dare_ties", "tgmd", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear"), HALF
    ),
}
"""Parameters that differ from the defaults: at density 1 nothing is trimmed or dropped, and nothing timed."""


class Spread(NamedTuple):
    """Median, smallest and largest of repeated measurements."""

    median: float
    minimum: float
    maximum: float


def spread(values: Sequence[float]) -> Spread:
    """Summarise at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


# ---- The machine


class Machine(NamedTuple):
    """What a figure cannot be read without."""

    cpu: str
    cores: int
    memory: int
    kernel: str
    file_system: str
    load: float
    library: str

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory / 2**30:.0f} GiB, {self.kernel}, {self.file_system}, "
            f"load {self.load:.2f}, {self.library}"
        )


def machine(folder: Path) -> Machine:
    """Describe the machine, and the file system that holds `folder`."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    build = sp.build_info()
    return Machine(
        cpu=name[1] if name else platform.machine(),
        cores=cores(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system(folder),
        load=os.getloadavg()[0],
        library=f"stockpot {build['version']} for {build['target']}, OpenBLAS {build['openblas_core']}",
    )


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def file_system(folder: Path) -> str:
    """Type of the file system that holds a folder, from /proc/mounts."""
    best, kind = "", "unknown file system"
    path = str(folder.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, point, found, *_ = line.split(" ")
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def cache_sizes() -> dict[int, int]:
    """Bytes of the data caches of the first CPU by level; what is usual where the system does not tell."""
    sizes = {1: 32 << 10, 2: 1 << 20, 3: 32 << 20}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) << 10
    return sizes


# ---- Processes


class Process(NamedTuple):
    """What was seen of a process that ended well."""

    seconds: float
    user: float
    system: float
    peak_anonymous: int = 0
    """Bytes: the largest RssAnon seen; 0 where memory was not watched."""
    peak_resident: int = 0
    samples: int = 0


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    watch_memory: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Run a command to its end, without its output.

    Args:
        command: program and arguments.
        watch_memory: sample its memory from a thread; not for a run whose time matters.
        environment: variables beside those of this process. Python keeps what it compiles, as it does for users.

    Raises:
        RuntimeError: the exit code was not 0; the text ends with what the command wrote to its standard error.
    """
    variables = {**os.environ, **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=variables)
        watcher = _Watcher(process.pid) if watch_memory else None
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if watcher is not None:
            watcher.stop()
        if process.returncode != 0:
            errors.seek(0)
            told = errors.read().decode("utf-8", "replace")[-2000:]
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{told}")
    seen = (watcher.anonymous, watcher.resident, watcher.samples) if watcher is not None else (0, 0, 0)
    return Process(seconds, usage.ru_utime, usage.ru_stime, *seen)


class _Watcher(threading.Thread):
    """Samples RssAnon of a process until it is told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = self.samples = 0
        self._status = Path(f"/proc/{pid}/status")
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.is_set():
            try:
                text = self._status.read_text(encoding="utf-8")
            except (FileNotFoundError, ProcessLookupError):
                return
            sizes = {name: int(size) * 1024 for name, size in re.findall(r"^Rss(\w+):\s+(\d+) kB", text, re.MULTILINE)}
            self.anonymous = max(self.anonymous, sizes.get("Anon", 0))
            self.resident = max(self.resident, sum(sizes.values()))
            self.samples += 1
            self._done.wait(INTERVAL)

    def stop(self) -> None:
        """Wait for the last sample."""
        self._done.set()
        self.join()


# ---- Merges


def takes_base(method: str) -> bool:
    """Whether a method reads the base's weights."""
    return sp.method_schema(method)["inputs"]["base"] == "required"


def make_recipe(
    data: Path, method: str, parameters: Mapping[str, object] | None = None, models: int | None = None
) -> dict[str, Any]:
    """A recipe of checkpoints that generate.py wrote.

    Args:
        data: folder with base/, model-0/, ...
        method: name of a merge method.
        parameters: of the method; None for those of `PARAMETERS`.
        models: how many; None for all.

    Raises:
        FileNotFoundError: the folder has too few checkpoints.
    """
    found = sorted(data.glob("model-*"), key=lambda path: int(path.name.split("-")[1]))
    wanted = len(found) if models is None else models
    if not (data / "base").is_dir() or len(found) < max(1, wanted):
        raise FileNotFoundError(
            f"{data} lacks base or {max(1, wanted)} models: write them with make benchmark-data, or "
            f"python benchmarks/generate.py {data}"
        )
    return recipe_of(method, data / "base", found[:wanted], parameters)


def recipe_of(
    method: str, base: Path, models: Sequence[Path], parameters: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """A recipe of checkpoints; it names the base only where the method reads it."""
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(model.resolve())} for model in models],
        "parameters": dict(PARAMETERS.get(method, {}) if parameters is None else parameters),
    }
    if takes_base(method):
        recipe["base_model"] = str(base.resolve())
    return recipe


def inputs_of(recipe: Mapping[str, Any]) -> list[Path]:
    """The checkpoints whose weights a recipe reads."""
    base = [Path(recipe["base_model"])] if "base_model" in recipe else []
    return base + [Path(entry["model"]) for entry in recipe["models"]]


def tensor_files(folder: Path) -> list[Path]:
    """The .safetensors files of a checkpoint."""
    return sorted(folder.glob("*.safetensors"))


def bytes_of(folders: Iterable[Path]) -> int:
    """Sizes of the tensor files of checkpoints."""
    return sum(file.stat().st_size for folder in folders for file in tensor_files(folder))


def merge(
    recipe: Mapping[str, Any], scratch: Path, *options: str, watch_memory: bool = False, keep: bool = False
) -> tuple[Process, int]:
    """Run `stockpot merge` as a user would, in a process of its own, into scratch/merged.

    The output is deleted after the clock has stopped, unless it is to be kept.

    Returns:
        What was seen, and the bytes of tensors written.
    """
    file, output = scratch / "recipe.yaml", scratch / "merged"
    file.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    try:
        command = [sys.executable, "-m", "stockpot", "merge", "--quiet", *options, str(file), str(output)]
        return run(command, watch_memory=watch_memory), bytes_of([output])
    finally:
        if not keep:
            shutil.rmtree(output, ignore_errors=True)


def cached_fraction(path: Path) -> float:
    """How much of a file is in the page cache, by mincore(2): 0 to 1."""
    size, page = path.stat().st_size, os.sysconf("SC_PAGE_SIZE")
    if size == 0:
        return 1.0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    with path.open("rb") as file:
        address = libc.mmap(None, size, 1, 1, file.fileno(), 0)  # PROT_READ, MAP_SHARED
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    pages = ctypes.create_string_buffer((size + page - 1) // page)
    try:
        if libc.mincore(address, size, pages) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        libc.munmap(address, size)
    return sum(byte & 1 for byte in pages.raw) / len(pages)


# ---- What programs print and write


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """--quick, --rounds and --json, which every program has."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"of measurement (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the program runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write machine and figures as JSON")


def names_in(text: str) -> list[str]:
    """The names in "linear,ties"."""
    return [name.strip() for name in text.split(",") if name.strip()]


class Report:
    """Prints the machine, then tables; keeps every figure for --json."""

    def __init__(self, program: str, folder: Path, options: argparse.Namespace) -> None:
        """Print the machine's line, and a warning where other work is running."""
        self._machine = machine(folder)
        self._record: dict[str, Any] = {
            "program": program,
            "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
            "machine": self._machine._asdict(),
            "tables": {},
        }
        self._path: Path | None = options.json
        print(self._machine.line(), flush=True)
        if self._machine.load > BUSY:
            print(f"WARNING: the load is {self._machine.load:.2f}: other work is running, and wall times include it")

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Print rows and keep them.

        Args:
            name: heading, and key in the JSON.
            rows: one mapping per row.
            columns: title by key, with a format after a bar where the value is a number: "GB/s|.1f".
        """
        self._record["tables"][name] = [dict(row) for row in rows]
        cells = [[title.partition("|")[0] for title in columns.values()]]
        for row in rows:
            cells.append([_cell(row.get(key), title.partition("|")[2]) for key, title in columns.items()])
        widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
        left = [isinstance(rows[0].get(key), str) if rows else True for key in columns]
        print(f"\n{name}")
        for texts in cells:
            padded = [
                cell.ljust(width) if is_left else cell.rjust(width)
                for cell, width, is_left in zip(texts, widths, left, strict=True)
            ]
            print("  " + "  ".join(padded).rstrip(), flush=True)

    def note(self, text: str) -> None:
        """Print a line and keep it."""
        self._record.setdefault("notes", []).append(text)
        print(text, flush=True)

    def save(self) -> None:
        """Write the JSON, if it was asked for."""
        if self._path is not None:
            self._path.write_text(json.dumps(self._record, indent=1, default=str) + "\n", encoding="utf-8")


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if form and not isinstance(value, str) else str(value)
