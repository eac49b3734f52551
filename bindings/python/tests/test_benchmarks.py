"""The benchmarks run; what they measure is for people, not for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def _needs_library(library: Any) -> None:
    """The programs load the library in processes of their own."""


def run(program: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def quick(program: str, tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What a program prints, and the tables it writes: all with rows, all numbers positive."""
    path = tmp_path / "figures.json"
    printed = run(program, "--quick", "--json", path, *arguments)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["machine"]["cores"] >= 1
    tables: dict[str, Any] = record["tables"]
    assert tables
    for name, rows in tables.items():
        assert name in printed
        assert rows
    return printed, tables


def test_spectral() -> None:
    printed = run("spectral.py", "--quick")
    for method in ("iso_c", "tsvm", "iso_cts", "scale_svd"):
        assert method in printed


@pytest.mark.parametrize("shape", [(), ("--experts", "4"), ("--shards", "3"), ("--bytes", "100KB")])
def test_generate_and_memory(shape: tuple[str, ...], tmp_path: Path) -> None:
    small = ["--models", "2", "--layers", "1", "--width", "64", "--hidden", "96", "--vocabulary", "100"]
    run("generate.py", tmp_path / "data", *small, *shape)
    files = list((tmp_path / "data" / "base").glob("*.safetensors"))
    assert len(files) == (3 if "--shards" in shape else 1)
    assert "peak anonymous memory" in run("memory.py", tmp_path / "data")


def test_kernels(tmp_path: Path) -> None:
    _, tables = quick("kernels.py", tmp_path, "--types", "f16,f32")
    (rows,) = tables.values()
    assert {"combine", "gram", "tall_masks", "random_mask", "model_stock"} <= {row["kernel"] for row in rows}
    assert all(row["rate"] > 0 and row["memcpy"] > 0 for row in rows)


def test_methods(tmp_path: Path) -> None:
    import stockpot as sp

    _, tables = quick("methods.py", tmp_path, "--types", "bf16")
    (rows,) = tables.values()
    assert [name for name in sp.methods() if name not in {row["method"] for row in rows}] == []


def test_checkpoints(tmp_path: Path) -> None:
    _, tables = quick("checkpoints.py", tmp_path, "--only", "linear,slerp,ties")
    (rows,) = tables.values()
    floor, *merges = rows
    assert floor["what"].startswith("floor")
    assert [row["what"] for row in merges] == ["linear", "slerp", "ties"]
    assert all(row["goal"] and row["ratio"] > 0 and row["own"] > 0 for row in merges)


def test_growth(tmp_path: Path) -> None:
    printed, tables = quick("growth.py", tmp_path, "--methods", "linear")
    assert list(tables) == ["bytes", "models", "shards", "experts", "start"]
    assert "per further tensor" in printed
    assert all(row["peak"] > 1 for name, rows in tables.items() if name != "start" for row in rows)


def test_rates(tmp_path: Path) -> None:
    printed, tables = quick("rates.py", tmp_path, "--only", "linear,passthrough,slerp,ties")
    assert "speed of this machine" in printed
    (rows,) = tables.values()
    assert [row["models"] for row in rows] == [3, 1, 2, 3]
    assert all(row["moved"] > 0 and row["rate"] > 0 and row["expected"] > 0 for row in rows)


def test_cold(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    printed = run("cold.py", "--quick", "--json", path)
    rows = [row for table in json.loads(path.read_text(encoding="utf-8"))["tables"].values() for row in table]
    assert [row["method"] for row in rows] == ["linear", "model_stock"] or "stays in the page cache" in printed


def test_peers_without_peers(tmp_path: Path) -> None:
    """The peers' packages are large and not installed for tests: our side of the comparison runs."""
    printed, tables = quick("peers.py", tmp_path, "--only", "linear,yoyo_scale")
    assert "no peers" in printed
    assert list(tables) == ["linear", "yoyo_scale"]


@pytest.mark.parametrize(
    "program", ["kernels", "methods", "checkpoints", "growth", "rates", "cold", "peers", "generate"]
)
def test_help(program: str) -> None:
    assert f"python benchmarks/{program}.py" in run(f"{program}.py", "--help")


def test_missing_data_is_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "checkpoints.py"), "--data", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "make benchmark-data" in done.stderr
