"""No argument crashes the process: null, negative or huge counts, misaligned or overlapping buffers, unknown codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpoint_files import write_safetensors

pytestmark = pytest.mark.usefixtures("library")


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"w": np.ones(4, np.float32)})
    work = tmp_path / "work"
    work.mkdir()
    program = Path(__file__).with_name("raw_abi_calls.py")
    found = subprocess.run(
        [sys.executable, str(program), str(work), str(path)], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert not (work / "out.safetensors").exists()
