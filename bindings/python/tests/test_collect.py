"""The command collect-stats and the example of the digits vision transformer, both without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import stockpot as sp
from stockpot import cli
from stockpot._collect import run_factory
from stockpot.stats import LayerStatistics
from test_stats import exact_moments, moment_bound

pytestmark = pytest.mark.usefixtures("library")

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "python" / "digits_vit"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, ["collect-stats", *map(str, arguments)], catch_exceptions=False)


FACTORIES = """
import numpy as np
from stockpot._collect import run_factory
from stockpot.stats import LayerStatistics

drawn = []

def updates(batch_size, num_batches):
    rng = np.random.default_rng(0)
    while True:  # without an end: the command draws no more than it was asked for
        drawn.append(batch_size)
        tokens = rng.standard_normal((batch_size, 5, 4)).astype(np.float32)
        images = rng.standard_normal((batch_size, 3, 2, 2)).astype(np.float32)
        yield {"fc.weight": tokens, "conv.weight": (images, 1)}

def filled(batch_size, num_batches):
    statistics = LayerStatistics("variance")
    statistics.update("w", np.array([[1.0, 2.0], [3.0, 2.0]]))
    return statistics

def broken(batch_size, num_batches):
    yield {"w": np.array([np.nan])}

def stopped(batch_size, num_batches):
    yield {"w": np.ones(2)}
    raise KeyboardInterrupt

class Nested:
    make = staticmethod(filled)

number = 5
def nothing(batch_size, num_batches): return []
def wrong(batch_size, num_batches): return 7
def wrong_batches(batch_size, num_batches): return [3]
def not_torch(batch_size, num_batches): return (5, [1])
"""


@pytest.fixture
def factories(in_tmp: Path) -> Iterator[str]:
    name = f"factories_{id(in_tmp)}"
    (in_tmp / f"{name}.py").write_text(FACTORIES)
    before = list(sys.path)
    yield name
    sys.path[:] = before
    sys.modules.pop(name, None)


def test_command(factories: str) -> None:
    result = run("--factory", f"{factories}:updates", "--batch-size", 6, "--num-batches", 3, "-o", "s.safetensors")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["layer", "channels", "rows", "least", "greatest"]
    assert lines[1].split()[:3] == ["conv.weight", "3", "72"]
    assert lines[2].split()[:3] == ["fc.weight", "4", "90"]
    assert lines[-2:] == ["2 layers, second_moment", "output: s.safetensors"]
    assert sys.modules[factories].drawn == [6, 6, 6]
    rng, tokens, images = np.random.default_rng(0), [], []
    for _ in range(3):
        tokens.append(rng.standard_normal((6, 5, 4)).astype(np.float32))
        images.append(rng.standard_normal((6, 3, 2, 2)).astype(np.float32))
    found = LayerStatistics.load("s.safetensors")
    moment, _ = exact_moments(np.concatenate(tokens).reshape(-1, 4))
    np.testing.assert_allclose(found["fc.weight"], moment, rtol=moment_bound(90, 3))
    moment, _ = exact_moments(np.concatenate(images).transpose(0, 2, 3, 1).reshape(-1, 3))
    np.testing.assert_allclose(found["conv.weight"], moment, rtol=moment_bound(72, 3))


def test_command_with_statistics_that_are_filled(factories: str) -> None:
    """The state holds both, so --statistic decides."""
    result = run("--factory", f"{factories}:Nested.make", "--json", "-o", "s.safetensors")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "output": "s.safetensors",
        "statistic": "second_moment",
        "layers": [{"name": "w", "channels": 2, "rows": 2, "least": 4.0, "greatest": 5.0}],
    }
    result = run(
        *("--factory", f"{factories}:filled", "--statistic", "variance", "--overwrite", "-q", "-o", "s.safetensors")
    )
    assert (result.exit_code, result.output) == (0, "")
    assert LayerStatistics.load("s.safetensors")["w"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("factory", "status", "words"),
    [
        ("{}", 1, "PACKAGE:FUNCTION"),
        ("{}:", 1, "PACKAGE:FUNCTION"),
        ("a/b.py:f", 1, "PACKAGE:FUNCTION"),
        ("no_such_module_here:f", 1, "no module no_such_module_here"),
        ("{}:missing", 1, "no missing"),
        ("{}:number", 1, "not a function"),
        ("{}:nothing", 1, "no rows"),
        ("{}:wrong", 1, "return (model, batches)"),
        ("{}:wrong_batches", 1, "batch 0"),
        ("{}:not_torch", 1, "torch.nn.Module"),
        ("{}:broken", 1, "'w' holds 1 NaN"),
    ],
)
def test_command_errors(factories: str, factory: str, status: int, words: str) -> None:
    result = run("--factory", factory.format(factories), "-o", "s.safetensors")
    assert result.exit_code == status
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert not Path("s.safetensors").exists()


def test_ctrl_c(factories: str) -> None:
    result = run("--factory", f"{factories}:stopped", "-o", "s.safetensors")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "error: interrupted; nothing was written at s.safetensors\n"
    assert not Path("s.safetensors").exists()


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar counts the batches that are drawn."""
    batches = ({"w": np.ones(2)} for _ in range(10))
    found = run_factory(batches, "here", "second_moment", 4, True, print)
    assert found.counts == {"w": 4}
    assert "collecting" in (shown := capsys.readouterr().err)
    assert "0/4" in shown


def test_command_line_that_is_wrong(factories: str) -> None:
    assert run("-o", "s.safetensors").exit_code == 2
    assert run("--factory", f"{factories}:updates").exit_code == 2
    assert run("--factory", f"{factories}:updates", "--num-batches", 0, "-o", "s.safetensors").exit_code == 2
    assert run("--factory", f"{factories}:updates", "--statistic", "mean", "-o", "s.safetensors").exit_code == 2
    assert "safetensors" in run("--factory", f"{factories}:updates", "-o", "stats").stderr


def test_an_existing_output_is_refused_before_the_work(factories: str) -> None:
    Path("s.safetensors").write_text("")
    result = run("--factory", f"{factories}:updates", "-o", "s.safetensors")
    assert result.exit_code == 1
    assert "exists" in result.stderr
    assert factories not in sys.modules


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for words in ("Examples:", "stockpot collect-stats --factory", "(model, batches)", "an iterable", "--overwrite"):
        assert words in result.output
    assert "collect-stats" in CliRunner().invoke(cli.main, ["--help"]).output


# The example


@pytest.fixture
def example(in_tmp: Path) -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLE))
    for name in ("forward", "collect_statistics"):
        sys.modules.pop(name, None)
    import collect_statistics

    yield collect_statistics
    sys.path.remove(str(EXAMPLE))
    for name in ("forward", "collect_statistics"):
        sys.modules.pop(name, None)


def test_example(example: Any, digits: Path, in_tmp: Path) -> None:
    """Every matrix of a layer has its statistic, of as many channels as it has columns."""
    example.main([str(digits / "task-parity"), "parity", "s.safetensors"])
    found = LayerStatistics.load("s.safetensors")
    with sp.open(digits / "task-parity") as checkpoint:
        infos = {info.name: info for info in checkpoint.infos()}
        prefix = "visual." if any(name.startswith("visual.") for name in infos) else ""
        assert set(found) <= set(infos)
        matrices = {name for name, info in infos.items() if name.endswith("weight") and len(info.shape) == 2}
        assert matrices - {prefix + "proj"} <= set(found)
        assert len(found) == 1 + 2 + 4 * 6  # conv1; ln_pre, ln_post; ln_1, ln_2, in_proj, out_proj, c_fc, c_proj
        for name, values in found.items():
            assert len(values) == infos[name].shape[1 if len(infos[name].shape) > 1 else 0]
            assert (values > 0).all()
        counts = found.counts
        assert counts[prefix + "conv1.weight"] == 256 * 64
        assert counts[prefix + "ln_post.weight"] == 256
        assert set(counts.values()) == {256 * 64, 256, 256 * 17}
        images = sp.open(digits / "eval.safetensors")["parity.train_images"]
        np.testing.assert_allclose(
            found[prefix + "conv1.weight"], [(images.astype(float) ** 2).mean()], rtol=moment_bound(256 * 64, 11)
        )


def test_an_observer_changes_no_feature(example: Any, digits: Path) -> None:
    from forward import DigitsViT

    images = sp.open(digits / "eval.safetensors")["rotated.images"][:50]
    tensors = dict(sp.open(digits / "base").items())
    seen: list[str] = []
    watched = DigitsViT(tensors, observe=lambda name, _: seen.append(name)).features(images)
    np.testing.assert_allclose(watched, DigitsViT(tensors).features(images), rtol=0, atol=1e-12)
    assert len(seen) == 2 * 27


def test_command_on_the_example(example: Any, digits: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stockpot", "collect-stats", "--factory", "collect_statistics:make_batches"]
    output = tmp_path / "base-stats.safetensors"
    command += ["--batch-size", "50", "--num-batches", "2", "--output", str(output)]
    found = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "27 layers, second_moment" in found.stdout
    assert found.stderr == ""
    loaded = LayerStatistics.load(output)
    assert set(loaded.counts.values()) == {100 * 64, 100, 100 * 17}
    again = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists" in again.stderr
