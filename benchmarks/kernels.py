"""Kernels of the C interface against memcpy, at sizes of the L2 cache, the L3 cache and memory.

    python benchmarks/kernels.py                          bf16 and f32, one thread and all cores; about five minutes
    python benchmarks/kernels.py --only gram --types f16  rows whose name contains "gram"
    python benchmarks/kernels.py --quick

Bytes per element are those that the formula must read and write, each array once, whatever the kernel does in truth:
a kernel that sweeps twice shows it as a lower rate. GB/s is those bytes over the median time. The ratio is that rate
over memcpy's, where a copy of n bytes moves 2 n: both sides run in turns, move as many bytes, and use as many threads.

All arrays of one call together fill half a cache ("L2": half of each core's that works), or four times the L3 cache
("memory"). Results go to the same arrays in every call, so no page is new. Kernels that take `threads` start them in
every call, which small arrays show. Those that do not (cast, random_mask), and memcpy, work on as many parts as there
are threads, called from Python threads that are kept; calls release the lock of the interpreter.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import Report, add_options, cache_sizes, cores, names_in, spread, takes_base
from numpy.typing import NDArray

from stockpot import _abi
from stockpot._lib import call, lib
from stockpot.dtypes import array_dtype, resolve
from stockpot.views import borrow, view_table

Array = NDArray[Any]
Work = Callable[[], object]

MODELS = 3
SAMPLE = 0.005
"""Seconds that one sample takes at least: calls are repeated until then."""


class Arrays:
    """Inputs and results of one type and size; they live as long as this object, so views may hold addresses."""

    def __init__(self, dtype: str, elements: int, models: int = MODELS) -> None:
        """Make the inputs: a base, and models that are near it."""
        self.elements = elements
        self.base = weights(elements, dtype, 0)
        self.models = [weights(elements, dtype, number + 1) for number in range(models)]
        self._results: list[Array] = []

    def result(self, dtype: str) -> Array:
        """Memory for a result, every page of it touched."""
        array = np.ones(self.elements, array_dtype(resolve(dtype)))
        self._results.append(array)
        return array


class Kernel(NamedTuple):
    """A function of the C interface, as it is measured."""

    name: str
    formula: str
    read: int
    """Bytes per element, all inputs together."""
    written: int
    make: Callable[[Arrays, int], Sequence[Work]]
    """From arrays and threads: what is called, one thing here, or as many as there are threads, each in its own."""


def weights(count: int, dtype: str, number: int) -> Array:
    """A model's weights: the base (number 0), or the base plus its own noise."""
    block = min(count, 1 << 20)
    values = np.float32(0.02) * np.random.default_rng(0).standard_normal(block, np.float32)
    if number:
        values += np.float32(0.0002) * np.random.default_rng(number).standard_normal(block, np.float32)
    return np.resize(values.astype(array_dtype(resolve(dtype))), count)


def bind(function: str, *arguments: Any) -> Work:
    """A call with everything prepared, so that little of Python is measured."""
    native = getattr(lib(), function)

    def work() -> None:
        if native(*arguments, None) != 0:
            call(function, *arguments)  # raises, with the message

    return work


class MethodCall:
    """`sp_method_merge` with everything prepared: one tensor of some models, into the same result every time."""

    def __init__(
        self, method: str, parameters: Mapping[str, object], models: Sequence[Array], base: Array | None, out: Array
    ) -> None:
        """Make the method's handle; it is freed with this object."""
        self._handle = _abi.Method()
        self._arrays = (models, base, out)  # views hold addresses only
        call("sp_method_create", method.encode(), json.dumps(dict(parameters)).encode(), ctypes.byref(self._handle))

    def on(self, threads: int) -> Work:
        """The call with a number of threads."""
        models, base, out = self._arrays
        origin = None if base is None else view(base)
        table = view_table([borrow(model) for model in models])
        native = bind("sp_method_merge", self._handle, table, len(models), origin, b"tensor", threads, view(out))

        def work(owner: MethodCall = self) -> None:
            native()  # `owner` keeps the handle and the arrays alive

        return work

    def __del__(self) -> None:
        lib().sp_method_free(self._handle)


def view(array: Array) -> Any:
    """A pointer to the sp_view of an array, which must outlive it."""
    return ctypes.byref(borrow(array).view())


def pieces(array: Array, count: int) -> list[Array]:
    """An array in `count` parts, without a copy."""
    edges = [len(array) * part // count for part in range(count + 1)]
    return [array[first:last] for first, last in itertools.pairwise(edges)]


def kernels(dtype: str) -> list[Kernel]:
    """Every kernel worth a row, for three models of one type."""
    size = resolve(dtype).size
    other = "bf16" if size == 4 else "f32"
    coefficients = (ctypes.c_double * MODELS)(*[1 / MODELS] * MODELS)
    numbers = ctypes.POINTER(ctypes.c_double)
    gram = (ctypes.c_double * MODELS**2)()
    threshold = ctypes.c_double()

    def models(arrays: Arrays) -> Any:
        return view_table([borrow(model) for model in arrays.models])

    def cast(source: str) -> Callable[[Arrays, int], list[Work]]:
        def make(arrays: Arrays, threads: int) -> list[Work]:
            given = arrays.base if source == dtype else arrays.result(source)
            made = arrays.result(other if source == dtype else dtype)
            parts = zip(pieces(given, threads), pieces(made, threads), strict=True)
            return [bind("sp_cast", view(one), view(two)) for one, two in parts]

        return make

    def combine(arrays: Arrays, threads: int) -> list[Work]:
        return [bind("sp_combine", models(arrays), MODELS, coefficients, threads, view(arrays.result(dtype)))]

    def gram_of(reference: bool) -> Callable[[Arrays, int], list[Work]]:
        def make(arrays: Arrays, threads: int) -> list[Work]:
            origin = view(arrays.base) if reference else None
            return [bind("sp_gram", models(arrays), MODELS, origin, threads, ctypes.cast(gram, numbers))]

        return make

    def magnitude(reference: bool) -> Callable[[Arrays, int], list[Work]]:
        def make(arrays: Arrays, threads: int) -> list[Work]:
            origin = view(arrays.base) if reference else None
            rank = max(1, arrays.elements // 2)
            place = ctypes.byref(threshold)
            work = bind("sp_magnitude_threshold", view(arrays.models[0]), origin, rank, threads, place, None, None)
            return [work]

        return make

    def signs(arrays: Arrays, threads: int) -> list[Work]:
        out = view(arrays.result("int8"))
        return [bind("sp_elect_signs", models(arrays), MODELS, view(arrays.base), b"mass", b"plus", threads, out)]

    def masks(arrays: Arrays, threads: int) -> list[Work]:
        out = view_table([borrow(arrays.result("bool")) for _ in range(MODELS)])
        return [bind("sp_tall_masks", models(arrays), MODELS, view(arrays.base), None, None, threads, out)]

    def random(arrays: Arrays, threads: int) -> list[Work]:
        pointers = ctypes.POINTER(ctypes.c_uint8)
        parts = pieces(arrays.result("uint8"), threads)
        return [bind("sp_random_mask", 0, b"t", 0, 0.5, 0, len(part), part.ctypes.data_as(pointers)) for part in parts]

    def method(name: str, **parameters: object) -> Callable[[Arrays, int], list[Work]]:
        def make(arrays: Arrays, threads: int) -> list[Work]:
            base = arrays.base if takes_base(name) else None
            return [MethodCall(name, parameters, arrays.models, base, arrays.result(dtype)).on(threads)]

        return make

    wide = resolve(other).size
    three, four = MODELS * size, (MODELS + 1) * size
    return [
        Kernel(f"cast to {other}", "y = x", size, wide, cast(dtype)),
        Kernel(f"cast from {other}", "y = x", wide, size, cast(other)),
        Kernel("combine", "y = sum c_i x_i", three, size, combine),
        Kernel("gram", "<x_i, x_j>", three, 0, gram_of(False)),
        Kernel("centred gram", "<x_i - r, x_j - r>", four, 0, gram_of(True)),
        Kernel("threshold", "n/2-th largest |x|", size, 0, magnitude(False)),
        Kernel("threshold of a difference", "n/2-th largest |x - r|", 2 * size, 0, magnitude(True)),
        Kernel("elect_signs", "sign of sum d_i", four, 1, signs),
        Kernel("tall_masks", "|d_i| > l |tau - d_i|", four, MODELS, masks),
        Kernel("random_mask", "Philox < keep", 0, 1, random),
        Kernel("linear", "mean x_i, NaN is an error", three, size, method("linear")),
        Kernel("linear, no scan", "mean x_i", three, size, method("linear", on_non_finite="ignore")),
        Kernel("task_arithmetic", "x_0 + sum d_i", four, size, method("task_arithmetic")),
        Kernel("model_stock", "x_0 + t mean d_i", four, size, method("model_stock")),
    ]


def memcpy(size: int, threads: int) -> list[Work]:
    """Copies that move `size` bytes together: half of them read, half written."""
    function = ctypes.CDLL(None).memcpy
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    arrays = (np.ones(size // 2, np.uint8), np.ones(size // 2, np.uint8))
    parts = zip(pieces(arrays[0], threads), pieces(arrays[1], threads), strict=True)

    def copy(source: Array, target: Array) -> Work:
        # The default arguments keep the arrays alive.
        def work(to: int = target.ctypes.data, of: int = source.ctypes.data, keep: object = (source, target)) -> None:
            function(to, of, len(source))

        return work

    return [copy(source, target) for source, target in parts]


class Sampler:
    """Times calls: enough of them at a time for the clock, in threads that are kept."""

    def __init__(self, works: Sequence[Work], pool: ThreadPoolExecutor, least: float) -> None:
        """Call once, and find out how many calls a sample takes."""
        self._works, self._pool = works, pool
        self._calls = 1
        self.sample()
        while (seconds := self.sample()) * self._calls < least:
            self._calls = max(2 * self._calls, min(round(1.2 * least / max(seconds, 1e-9)), 64 * self._calls))

    def sample(self) -> float:
        """Seconds per call."""

        def repeat(work: Work) -> None:
            for _ in range(self._calls):
                work()

        begun = time.perf_counter()
        if len(self._works) == 1:
            repeat(self._works[0])
        else:
            list(self._pool.map(repeat, self._works))
        return (time.perf_counter() - begun) / self._calls


def measure(kernel: Kernel, dtype: str, footprint: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row: the kernel and memcpy in turns."""
    each = kernel.read + kernel.written
    elements = max(64, footprint // each)
    arrays = Arrays(dtype, elements)
    moved = elements * each
    with ThreadPoolExecutor(threads) as pool:
        sides = [
            Sampler(works, pool, options.sample) for works in (kernel.make(arrays, threads), memcpy(moved, threads))
        ]
        times = [[side.sample() for side in sides] for _ in range(options.rounds)]
    ours = spread([moved / own / 1e9 for own, _ in times])
    ratio = spread([copy / own for own, copy in times])
    return {
        "kernel": kernel.name,
        "formula": kernel.formula,
        "type": dtype,
        "bytes": f"{kernel.read}+{kernel.written}",
        "elements": elements,
        "threads": threads,
        "rate": ours.median,
        "minimum": ours.minimum,
        "maximum": ours.maximum,
        "memcpy": spread([moved / copy / 1e9 for _, copy in times]).median,
        "ratio": ratio.median,
    }


COLUMNS = {
    "kernel": "kernel",
    "formula": "formula",
    "type": "type",
    "threads": "threads",
    "bytes": "B/element",
    "rate": "GB/s|.2f",
    "minimum": "min|.2f",
    "maximum": "max|.2f",
    "memcpy": "memcpy|.2f",
    "ratio": "ratio|.2f",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=names_in, default=["bf16", "f32"], help="of the inputs (default bf16,f32)")
    parser.add_argument("--threads", type=int, default=cores(), help="of the second half of each table (default: all)")
    parser.add_argument("--only", type=names_in, default=[], metavar="NAMES", help="kernels whose name contains one")
    add_options(parser, rounds=15)
    options = parser.parse_args(arguments)
    caches = cache_sizes()
    sizes = {"L2": caches[2] // 2, "L3": caches[3] // 2, "memory": 4 * caches[3]}
    options.sample = SAMPLE
    if options.quick:
        sizes, options.rounds, options.sample = {"tiny": 1 << 14}, 2, 1e-4
    report = Report("kernels", Path.cwd(), options)
    for place, size in sizes.items():
        rows = []
        for dtype in options.types:
            for kernel in kernels(dtype):
                if options.only and not any(name in kernel.name for name in options.only):
                    continue
                for threads in sorted({1, options.threads}):
                    footprint = size * threads if place == "L2" else size
                    rows.append(measure(kernel, dtype, footprint, threads, options))
        report.table(f"{place}: {size / 2**20:.3g} MiB{' per thread' if place == 'L2' else ''}", rows, COLUMNS)
    report.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
