"""The benchmarks run; what they measure is for people, not for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def test_spectral() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "spectral.py"), "--quick"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for method in ("iso_c", "tsvm", "iso_cts", "scale_svd"):
        assert method in done.stdout


def test_generate_and_memory(tmp_path: Path) -> None:
    small = ["--models", "2", "--layers", "1", "--width", "64", "--vocabulary", "100"]
    made = subprocess.run(
        [sys.executable, str(BENCHMARKS / "generate.py"), str(tmp_path / "data"), *small],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "memory.py"), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
