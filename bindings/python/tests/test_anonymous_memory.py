"""max_memory holds: what a merge allocates, as the kernel counts it (RssAnon), stays below it.

A merge runs in a process of its own, which samples its own RssAnon every millisecond from another thread. What it had
before the merge (interpreter and library) is not the merge's, and is subtracted. Mapped pages of the inputs are not
anonymous.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp

LIMIT = 128 << 20
SIDE = 8192  # 134 MB in bf16: each input is larger than the limit, and so is the output
EXPERTS = 20_000  # more than the limit has room for where a method reports much of each

PROGRAM = """
import json, sys, threading, time
import stockpot as sp

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

recipe, output, limit = json.loads(sys.argv[1])
done, peak, before = threading.Event(), 0, anonymous()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
try:
    sp.merge(recipe, output, max_memory=limit, progress=False)
finally:
    done.set()
    watcher.join()
print(max(peak, anonymous()) - before)
"""


def _merge(recipe: dict[str, Any], output: Path, limit: int = LIMIT) -> int:
    """Bytes that the merge allocated at its peak."""
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps([recipe, str(output), limit])]
    environment = {**os.environ, "PYTHONPATH": str(Path(sp.__file__).parents[1])}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two models of one matrix: a random row, repeated with other signs and scales."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(3)
    row = rng.standard_normal(SIDE).astype(np.float32)
    scales = rng.uniform(0.5, 2, (SIDE, 1)).astype(np.float32)
    base = (row * scales).astype(ml_dtypes.bfloat16)
    sp.save({"w": base}, folder / "base")
    for index in range(2):
        change = rng.standard_normal(SIDE).astype(np.float32) * (0.05 * rng.permutation(scales))
        sp.save({"w": (base.astype(np.float32) + change).astype(ml_dtypes.bfloat16)}, folder / f"model-{index}")
    return folder


METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "model_stock": {},
    "geometric_median": {},
    "yoyo_fusion": {},
    "ties": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "della": {"density": 0.5},
    "breadcrumbs": {"density": 0.9},
    "sce": {"select_topk": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_larger_than_the_limit(method: str, large: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [str(large / f"model-{index}") for index in range(2)],
        "parameters": METHODS[method],
    }
    if method not in ("linear", "geometric_median", "yoyo_fusion"):
        recipe["base_model"] = str(large / "base")
    assert _merge(recipe, tmp_path / "out") <= LIMIT
    (tmp_path / "out" / "model.safetensors").unlink()


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two models of thousands of small tensors."""
    folder = tmp_path_factory.mktemp("experts")
    rng = np.random.default_rng(4)
    for name in ("base", "model-0", "model-1"):
        values = rng.standard_normal((EXPERTS, 8, 16)).astype(np.float32)
        sp.save({f"model.layers.0.mlp.experts.{i}.up_proj.weight": values[i] for i in range(EXPERTS)}, folder / name)
    return folder


@pytest.mark.parametrize(
    ("method", "scope"), [("linear", None), ("ties", "tensor"), ("ties", "model"), ("model_stock", "model")]
)
def test_thousands_of_tensors(method: str, scope: str | None, experts: Path, tmp_path: Path) -> None:
    """The plan, the report and what tensors of a group keep while they wait count as well.

    A limit that is accepted holds, be it the smallest one: what is refused says which that is. 128 MiB are enough but
    where tensors wait for one another with what they have decided.
    """
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [str(experts / f"model-{index}") for index in range(2)],
        "parameters": {} if scope is None else {"scope": scope},
    }
    if method != "linear":
        recipe["base_model"] = str(experts / "base")
    if method == "ties":
        recipe["parameters"]["density"] = 0.5
    least = _least(recipe)
    assert least <= LIMIT or (method, scope) == ("ties", "model")
    limit = max(LIMIT, least)
    assert _merge(recipe, tmp_path / "out", limit) <= limit


def _least(recipe: dict[str, Any]) -> int:
    """The smallest limit that is accepted, as the refusal of a smaller one names it."""
    with pytest.raises(sp.StockpotMemoryError) as refused:
        sp.plan(recipe, max_memory=1 << 20)
    return int(str(refused.value).split("raise it to ")[1].split(",")[0])


def test_a_limit_that_the_plan_alone_passes_is_refused(experts: Path, tmp_path: Path) -> None:
    recipe = {"merge_method": "linear", "models": [str(experts / f"model-{index}") for index in range(2)]}
    with pytest.raises(sp.StockpotMemoryError, match=r"'model\.layers\.0.*raise it to \d+"):
        sp.merge(recipe, tmp_path / "out", max_memory="8MiB", progress=False)
    least = _least(recipe)
    assert not (tmp_path / "out").exists()
    with pytest.raises(sp.StockpotMemoryError):
        sp.plan(recipe, max_memory=least - 1)
    assert sp.plan(recipe, max_memory=least).threads == 1
