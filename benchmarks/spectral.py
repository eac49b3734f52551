"""Times of the spectral methods and their linear algebra, against the same by numpy.linalg.svd.

    python benchmarks/spectral.py [--sizes 1536x1536,1536x6144] [--models 3] [--iterations 3] [--threads 2]
    python benchmarks/spectral.py --quick
    python benchmarks/spectral.py --peer /path/to/a/python/with/torch [--repeats 5] [--errors]

Inputs and results are float32, but numpy.linalg computes float32 matrices in float64 and rounds: the ratio compares
with a float64 decomposition, and says nothing of a float32 one. --peer does: the same formulas with torch.linalg.svd in
float32, run by the given Python in a process of its own on the same inputs, saved as .npy.

Both sides use the same number of threads: the library as its `threads`, numpy's BLAS by the environment, for which the
program starts itself again. (A single polar_factor or truncated_svd of the library uses one; a merge shares the
work on its matrix.) On a busy machine numpy's BLAS threads wait for one another, and a ratio with --threads above
1 is worth nothing; a load is reported. They run alternately, and the medians are printed with their ratio (above 1: the
library is faster) and the largest difference of the results over the largest element. --errors compares both with the
same formulas in float64 as well: the largest error over the largest element, and the Frobenius norm of the error over
that of the result.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import stockpot as sp

Array = NDArray[Any]
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
DEFAULT_SIZES = "1536x1536,1536x6144"
QUICK_SIZES = "96x96,80x320"


class Problem(NamedTuple):
    """A base and models of one shape."""

    base: Array
    models: list[Array]


class Contest(NamedTuple):
    """The same by both sides."""

    name: str
    ours: Callable[[], Array]
    theirs: Callable[[], Array]
    exact: Callable[[], Array]


def make_problem(rows: int, columns: int, models: int) -> Problem:
    """Random float32 matrices: task vectors with a falling spectrum, as fine-tunes have."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((rows, columns), np.float32)
    deltas = []
    for _ in range(models):
        rank = max(1, min(rows, columns) // 8)
        low = rng.standard_normal((rows, rank), np.float32) @ rng.standard_normal((rank, columns), np.float32)
        noise = rng.standard_normal((rows, columns), np.float32)
        deltas.append((0.01 * (low / np.float32(rank**0.5) + noise)).astype(np.float32))
    return Problem(base, [base + delta for delta in deltas])


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """The thin decomposition by LAPACK, in the matrix's type."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, s, vt


def polar(matrix: Array, tolerance: float = 1e-6) -> Array:
    """The partial isometry U Vt of the singular values above the tolerance."""
    u, s, vt = svd(matrix)
    keep = s > tolerance * s[0]
    result: Array = u[:, keep] @ vt[keep]
    return result


def iso_c(problem: Problem) -> Array:
    """The task vector of Iso-C."""
    u, s, vt = svd(sum(model - problem.base for model in problem.models))  # type: ignore[arg-type]
    result: Array = s.mean() * (u @ vt)
    return result


def tsvm(problem: Problem) -> Array:
    """The task vector of TSVM; singular values of the stacked vectors below 1e-6 of the largest are left out."""
    k = min(problem.base.shape) // len(problem.models)
    parts = [svd(model - problem.base) for model in problem.models]
    left = polar(np.concatenate([u[:, :k] for u, _, _ in parts], axis=1))
    right = polar(np.concatenate([vt[:k] for _, _, vt in parts]))
    sigma = np.concatenate([s[:k] for _, s, _ in parts])
    result: Array = (left * sigma) @ right
    return result


def iso_cts(problem: Problem, fraction: float = 0.8) -> Array:
    """The task vector of Iso-CTS."""
    deltas = [model - problem.base for model in problem.models]
    r, count = min(problem.base.shape), len(deltas)
    task = min(round((r - int(r * fraction)) / count), r // count)
    common = r - task * count
    u, s, vt = svd(sum(deltas))  # type: ignore[arg-type]
    lefts, sigmas, rights = [u[:, :common]], [s[:common]], [vt[:common]]
    for delta in deltas:
        u, s, vt = svd(delta - lefts[0] @ (lefts[0].T @ delta))
        lefts.append(u[:, :task])
        sigmas.append(s[:task])
        rights.append(vt[:task])
    mean = np.concatenate(sigmas).sum() / np.float32(r)
    result: Array = mean * (polar(np.concatenate(lefts, axis=1)) @ polar(np.concatenate(rights)))
    return result


def scale_svd(problem: Problem, iterations: int) -> Array:
    """The sum of the task vectors, each a low-rank and a row-wise sparse part."""
    m, n = problem.base.shape
    k, drop = max(1, int(0.75 * 0.9 * m * n / (m + n))), int(n * 0.775)
    total = np.zeros_like(problem.base)
    for model in problem.models:
        delta = model - problem.base
        sparse = np.zeros_like(delta)
        for _ in range(iterations):
            u, s, vt = svd(delta - sparse)
            low = (u[:, :k] * s[:k]) @ vt[:k]
            sparse = delta - low
            smallest = np.argpartition(np.abs(sparse), drop, axis=1)[:, :drop]
            np.put_along_axis(sparse, smallest, 0, axis=1)
        total += low + sparse
    return total


def truncated(matrix: Array, rank: int) -> Array:
    """The best approximation of a rank."""
    u, s, vt = svd(matrix)
    result: Array = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return result


def ours_truncated(matrix: Array, rank: int) -> Array:
    """The same by the library."""
    u, s, vt = sp.truncated_svd(matrix, rank)
    result: Array = (u * s) @ vt
    return result


def contests(problem: Problem, iterations: int, threads: int) -> list[Contest]:
    """What is compared."""
    delta = problem.models[0] - problem.base
    rank = min(delta.shape) // 4

    def merged(method: str, **parameters: Any) -> Callable[[], Array]:
        options = {"output": "task_vector", "threads": threads, **parameters}
        return lambda: np.asarray(sp.merge_tensors(method, problem.models, problem.base, **options))

    wide = Problem(problem.base.astype(np.float64), [model.astype(np.float64) for model in problem.models])

    def contest(name: str, ours: Callable[[], Array], formula: Callable[[Problem], Array]) -> Contest:
        return Contest(name, ours, lambda: formula(problem), lambda: formula(wide))

    def task(problem: Problem) -> Array:
        return problem.models[0] - problem.base

    return [
        contest("polar_factor", lambda: np.asarray(sp.polar_factor(delta)), lambda given: polar(task(given))),
        contest("truncated_svd", lambda: ours_truncated(delta, rank), lambda given: truncated(task(given), rank)),
        contest("iso_c", merged("iso_c"), iso_c),
        contest("tsvm", merged("tsvm"), tsvm),
        contest("iso_cts", merged("iso_cts"), iso_cts),
        contest("scale_svd", merged("scale_svd", num_iters=iterations), lambda given: scale_svd(given, iterations)),
    ]


PEER = """
import sys, time
import numpy as np, torch

folder, models, iterations, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
base = torch.from_numpy(np.load(folder + "/base.npy"))
inputs = [torch.from_numpy(np.load(f"{folder}/{i}.npy")) for i in range(models)]
deltas = lambda: [w - base for w in inputs]
r = min(base.shape)


def svd(a):
    # Tall matrices take a third of the time of wide ones.
    if a.shape[0] >= a.shape[1]:
        return torch.linalg.svd(a, full_matrices=False)
    u, s, v = torch.linalg.svd(a.mT, full_matrices=False)
    return v.mT, s, u.mT


def polar(a, tolerance=1e-6):
    u, s, v = svd(a)
    keep = s > tolerance * s[0]
    return u[:, keep] @ v[keep]


def polar_factor():
    return polar(deltas()[0])


def truncated_svd():
    u, s, v = svd(deltas()[0])
    k = r // 4
    return (u[:, :k] * s[:k]) @ v[:k]


def iso_c():
    u, s, v = svd(sum(deltas()))
    return s.mean() * (u @ v)


def tsvm():
    k = r // models
    parts = [svd(delta) for delta in deltas()]
    left = polar(torch.cat([u[:, :k] for u, _, _ in parts], 1))
    right = polar(torch.cat([v[:k] for _, _, v in parts]))
    return (left * torch.cat([s[:k] for _, s, _ in parts])) @ right


def iso_cts():
    task = min(round((r - int(r * 0.8)) / models), r // models)
    common = r - task * models
    all_deltas = deltas()
    u, s, v = svd(sum(all_deltas))
    lefts, sigmas, rights = [u[:, :common]], [s[:common]], [v[:common]]
    for delta in all_deltas:
        u, s, v = svd(delta - lefts[0] @ (lefts[0].T @ delta))
        lefts.append(u[:, :task])
        sigmas.append(s[:task])
        rights.append(v[:task])
    return torch.cat(sigmas).sum() / r * (polar(torch.cat(lefts, 1)) @ polar(torch.cat(rights)))


def scale_svd():
    m, n = base.shape
    k, drop = max(1, int(0.75 * 0.9 * m * n / (m + n))), int(n * 0.775)
    total = torch.zeros_like(base)
    for delta in deltas():
        sparse = torch.zeros_like(delta)
        for _ in range(iterations):
            u, s, v = svd(delta - sparse)
            low = (u[:, :k] * s[:k]) @ v[:k]
            sparse = delta - low
            smallest = sparse.abs().topk(drop, 1, largest=False, sorted=False).indices
            sparse.scatter_(1, smallest, 0)
        total += low + sparse
    return total


print(torch.__version__, flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    result = globals()[line.strip()]()
    seconds = time.perf_counter() - begun
    np.save(folder + "/result.npy", result.numpy())
    print(seconds, flush=True)
"""


class Peer:
    """torch in a process of its own: it loads the inputs once and computes what it is asked for."""

    def __init__(self, python: str, problem: Problem, folder: Path, iterations: int, threads: int) -> None:
        np.save(folder / "base.npy", problem.base)
        for i, model in enumerate(problem.models):
            np.save(folder / f"{i}.npy", model)
        self._folder = folder
        self._process = subprocess.Popen(
            [python, "-c", PEER, str(folder), str(len(problem.models)), str(iterations), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("the peer's Python has ended: has it torch?")
        return line

    def run(self, name: str) -> tuple[Array, float]:
        """A result and the seconds that it took, loading and saving apart."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        seconds = float(self._answer())
        return np.load(self._folder / "result.npy"), seconds

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def peer_of(python: str | None, problem: Problem, iterations: int, threads: int) -> Iterator[Peer | None]:
    """The peer for one problem, if a Python is given."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, problem, Path(folder), iterations, threads)
        try:
            yield peer
        finally:
            peer.close()


class Outcome(NamedTuple):
    """Seconds of both sides, how far the results are apart, and the results."""

    ours: float
    theirs: float
    difference: float
    results: tuple[Array, Array]


def compare(contest: Contest, repeats: int, peer: Peer | None = None) -> Outcome:
    """Run both sides alternately; a peer takes the place of numpy."""
    times: tuple[list[float], list[float]] = ([], [])
    results: list[Array] = []
    for _ in range(repeats):
        results = []
        for side, run in enumerate((contest.ours, contest.theirs)):
            begun = time.perf_counter()
            if side == 1 and peer is not None:
                result, seconds = peer.run(contest.name)
            else:
                result = run()
                seconds = time.perf_counter() - begun
            results.append(result)
            times[side].append(seconds)
    ours, theirs = (result.astype(np.float64) for result in results)
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return Outcome(statistics.median(times[0]), statistics.median(times[1]), difference, (ours, theirs))


def errors(contest: Contest, outcome: Outcome) -> str:
    """Both sides' errors against the formula in float64: of an element, and in the Frobenius norm."""
    exact = contest.exact()
    parts = []
    for result in outcome.results:
        error = result - exact
        largest = np.abs(error).max() / np.abs(exact).max()
        parts.append(f"{largest:.1e} {np.linalg.norm(error) / np.linalg.norm(exact):.1e}")
    return "  errors: ours {}, theirs {}".format(*parts)


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """The pairs in 96x96,80x320."""
    sizes = []
    for part in text.split(","):
        rows, _, columns = part.strip().partition("x")
        if not (rows.isdigit() and columns.isdigit() and int(rows) > 0 and int(columns) > 0):
            raise argparse.ArgumentTypeError(f"{part!r} is not a size such as 1536x6144")
        sizes.append((int(rows), int(columns)))
    return sizes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=parse_sizes, help=f"default {DEFAULT_SIZES}")
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="of scale_svd")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument(
        "--peer", metavar="PYTHON", help="a Python with torch: compare with its float32 instead of numpy"
    )
    parser.add_argument("--errors", action="store_true", help="compare both sides with float64 as well")
    parser.add_argument("--quick", action="store_true", help=f"sizes {QUICK_SIZES}, for a look in seconds")
    options = parser.parse_args(arguments)
    if any(os.environ.get(name) != str(options.threads) for name in BLAS_THREADS):
        # BLAS reads its number of threads when it is loaded, which numpy has done by now.
        environment = os.environ | dict.fromkeys(BLAS_THREADS, str(options.threads))
        given = sys.argv[1:] if arguments is None else list(arguments)
        return subprocess.run([sys.executable, __file__, *given], env=environment, check=False).returncode
    sizes = options.sizes or parse_sizes(QUICK_SIZES if options.quick else DEFAULT_SIZES)
    only = {name.strip() for name in options.only.split(",") if name.strip()}
    print(
        f"stockpot {sp.__version__}, numpy {np.__version__}, {options.threads} threads, "
        f"float32 in and out, {options.models} models"
    )
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"load average {load:.1f} before the first run: other work is on this machine, and the times include it")
    print(f"{'size':>12} {'':14} {'ours':>9} {'torch' if options.peer else 'numpy':>9} {'ratio':>7} {'difference':>11}")
    for rows, columns in sizes:
        problem = make_problem(rows, columns, options.models)
        with peer_of(options.peer, problem, options.iterations, options.threads) as peer:
            for contest in contests(problem, options.iterations, options.threads):
                if only and contest.name not in only:
                    continue
                outcome = compare(contest, options.repeats, peer)
                print(
                    f"{f'{rows}x{columns}':>12} {contest.name:14} {outcome.ours:8.3f}s {outcome.theirs:8.3f}s "
                    f"{outcome.theirs / outcome.ours:7.2f} {outcome.difference:11.1e}",
                    flush=True,
                )
                if options.errors:
                    print(errors(contest, outcome), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
