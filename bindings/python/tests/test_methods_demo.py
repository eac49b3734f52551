"""The example that `make demo` runs: its forward pass against PyTorch's accuracies, and the merges end to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from reference.arrays import read_checkpoint

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "python" / "digits_vit"
FIXTURE = ROOT / "Tests" / "Fixtures" / "digits-vit"
ACCURACY = json.loads((FIXTURE / "accuracy.json").read_text(encoding="utf-8"))
HEADS = read_checkpoint(FIXTURE / "heads.safetensors")
EVALUATION = read_checkpoint(FIXTURE / "eval.safetensors")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def forward() -> Iterator[ModuleType]:
    """The forward pass, importable by the demo as it is when run as a script."""
    yield _load("forward")
    del sys.modules["forward"]


@pytest.mark.parametrize(
    ("folder", "task", "measured"),
    [
        ("base", "modulo3-noisy", ACCURACY["modulo3-noisy"]["base"]),
        ("task-parity", "parity", ACCURACY["parity"]["finetuned"]),
        ("soup-4", "rotated", ACCURACY["soup-4"]),
    ],
)
def test_forward_has_pytorchs_accuracy(forward: ModuleType, folder: str, task: str, measured: float) -> None:
    """To one image: where the two best classes are equal to the last digits the arithmetic decides."""
    images = len(EVALUATION[f"{task}.labels"])
    found = forward.accuracy(read_checkpoint(FIXTURE / folder), HEADS, EVALUATION, task)
    assert round(abs(found - measured) * images) <= 1


def test_error_function(forward: ModuleType) -> None:
    """Against values from tables (Abramowitz and Stegun, table 7.1), and its symmetry."""
    x = np.array([0.0, 0.1, 0.5, 1.0, 1.5, 2.0])
    known = [0.0, 0.1124629160, 0.5204998778, 0.8427007929, 0.9661051465, 0.9953222650]
    np.testing.assert_allclose(forward.erf(x), known, rtol=0.0, atol=6e-11)
    np.testing.assert_allclose(forward.erf(-x), -forward.erf(x), rtol=0.0, atol=1e-15)
    assert forward.erf(np.array([40.0]))[0] == pytest.approx(1.0, abs=1e-15)


def test_demo(forward: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It merges, replaces what an earlier run left, and every merge is better than the base by far."""
    demo = _load("demo")
    output = tmp_path / "out"
    demo.merge_all(FIXTURE, output)
    demo.main(["--output", str(output), "--fixture", str(FIXTURE)])
    printed = capsys.readouterr().out
    for name, _, _, _ in demo.MERGES:
        line = next(line for line in printed.splitlines() if line.strip().startswith(f"{name} ") and "%" in line)
        percent = float(line.split("%")[0].split()[-1])
        assert percent > 100 * ACCURACY["rotated"]["base"] + 5
    assert "lambda of each member" in printed
    assert str(output / "yoyo-scale") in printed
