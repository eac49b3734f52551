"""The command line: output, exit statuses, and one sentence per error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import stockpot as sp
from checkpoint_files import Models, read_safetensors, write_sparse_models
from stockpot import cli

COMMANDS = ("merge", "plan", "methods", "inspect")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], catch_exceptions=False)


def check_error(result: Result, status: int, *words: str) -> None:
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture
def recipe(models: Models, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(models.recipe("model_stock")))
    return path


# Without the library


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"stockpot {sp.__version__}\n")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches(command: str) -> None:
    result = run(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"stockpot {command}" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mrge"], ["mrge"]),
        (["merge"], ["missing RECIPE"]),
        (["merge", "recipe.yaml"], ["missing OUTPUT"]),
        (["merge", "a", "b", "c"], ["too many paths"]),
        (["merge", "a", "b", "-o", "c"], ["too many paths"]),
        (["merge", "--method", "linear", "-o", "out"], ["missing MODEL"]),
        (["merge", "--method", "linear", "a"], ["missing OUTPUT", "-o"]),
        (["merge", "recipe.yaml", "out", "--base", "b"], ["--base needs --method"]),
        (["merge", "recipe.yaml", "out", "-p", "t=1"], ["-p needs --method"]),
        (["merge", "--method", "linear", "a", "-o", "out", "-p", "weight"], ["-p weight has no value"]),
        (["merge", "recipe.yaml", "out", "--threads", "-1"], ["--threads"]),
        (["merge", "recipe.yaml", "out", "--thread", "1"], ["--thread"]),
        (["plan", "a", "b"], ["too many paths"]),
        (["inspect"], ["PATH"]),
    ],
)
def test_usage_errors(arguments: list[str], words: list[str]) -> None:
    check_error(run(*arguments), 2, *words, "--help")


def test_missing_recipe() -> None:
    check_error(run("merge", "nowhere.yaml", "out"), 1, "nowhere.yaml")


def test_bad_recipe(in_tmp: Path) -> None:
    Path("recipe.yaml").write_text("a: 1\na: 2\n")
    check_error(run("merge", "recipe.yaml", "out"), 1, "recipe.yaml", "line 2", "stands twice")


def test_missing_library(models: Models, recipe: Path) -> None:
    command = [sys.executable, "-m", "stockpot", "merge", str(recipe), "out"]
    found = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "STOCKPOT_LIBRARY": "/nowhere.so"}
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: STOCKPOT_LIBRARY names /nowhere.so")
    assert found.stderr.count("\n") == 1


# With it


def test_merge(library: Any, recipe: Path, models: Models, tmp_path: Path) -> None:
    result = run("merge", recipe, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "5 tensors (4 merged, 1 copied)" in result.stdout
    assert f"output: {tmp_path / 'out'}" in result.stdout
    assert f"report: {tmp_path / 'out' / 'merge_report.json'}" in result.stdout
    assert result.stderr == ""
    with sp.open(tmp_path / "out") as merged:
        assert set(merged) == set(models.tensors[0])


def test_merge_without_a_recipe(library: Any, models: Models, tmp_path: Path) -> None:
    result = run(
        *("merge", "--method", "yoyo_scale", "--base", models.base, *models.models, "-o", tmp_path / "out"),
        *("-p", "solver=qp", "--dtype", "bfloat16", "--quiet"),
    )
    assert (result.exit_code, result.output) == (0, "")
    report = json.loads((tmp_path / "out" / "merge_report.json").read_text())
    assert report["recipe"]["parameters"] == {"solver": "qp"}
    assert {entry["dtype"] for entry in report["tensors"]} == {"BF16", "I64"}


def test_the_two_ways_agree(library: Any, recipe: Path, models: Models, tmp_path: Path) -> None:
    run("merge", recipe, tmp_path / "one.safetensors")
    run("merge", "--method", "model_stock", "--base", models.base, *models.models, "-o", tmp_path / "two.safetensors")
    one, two = (read_safetensors(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in two.items()}


def test_set(library: Any, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(models.recipe("task_arithmetic")))
    result = run("merge", path, tmp_path / "out", "--set", "parameters.lambda=0", "--set", "out_dtype=float64")
    assert result.exit_code == 0, result.output
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")
    assert (merged["a.weight"] == models.tensors[0]["a.weight"]).all()
    assert merged["a.weight"].dtype == float
    assert "lambda: 0" in (tmp_path / "out" / "README.md").read_text()


def test_json(library: Any, recipe: Path, tmp_path: Path) -> None:
    result = run("merge", recipe, tmp_path / "out", "--json")
    found = json.loads(result.stdout)
    assert found["output"] == str(tmp_path / "out")
    assert found["report"] == str(tmp_path / "out" / "merge_report.json")
    assert found["method"] == "model_stock"
    assert found["summary"]["tensors"] == 5
    assert found["seconds"] > 0


@pytest.mark.parametrize("arguments", [["plan"], ["merge", "--dry-run"]])
def test_plan(library: Any, recipe: Path, models: Models, tmp_path: Path, arguments: list[str]) -> None:
    result = run(*arguments, recipe)
    assert result.exit_code == 0, result.output
    for words in ("model_stock", "5: 4 merged, 1 copied", str(models.base), "model.safetensors", "memory", "threads"):
        assert words in result.stdout
    assert "a.weight" not in result.stdout
    plan = json.loads(run(*arguments, recipe, "--json").stdout)
    assert {tensor["name"] for tensor in plan["tensors"]} == set(models.tensors[0])
    assert {path.name for path in tmp_path.iterdir()} == {"models", "recipe.yaml"}


def test_plan_lists_tensors_when_asked(library: Any, recipe: Path) -> None:
    assert "a.weight" in run("plan", recipe, "--tensors").stdout


def test_plan_without_a_recipe(library: Any, models: Models) -> None:
    result = run("plan", "--method", "linear", *models.models)
    assert result.exit_code == 0, result.output


def test_warnings_are_printed_once(library: Any, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(models.recipe("linear", paramters={})))
    result = run("merge", path, tmp_path / "out", "--quiet")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.count("warning: ") == 1
    assert "paramters" in result.stderr
    check_error(run("merge", path, tmp_path / "strict", "--strict"), 1, "paramters")


def test_existing_output(library: Any, recipe: Path, tmp_path: Path) -> None:
    assert run("merge", recipe, tmp_path / "out").exit_code == 0
    check_error(run("merge", recipe, tmp_path / "out"), 1, str(tmp_path / "out"))
    assert run("merge", recipe, tmp_path / "out", "--overwrite").exit_code == 0


def test_sizes(library: Any, recipe: Path, tmp_path: Path) -> None:
    assert run("merge", recipe, tmp_path / "out", "--shard-size", "1kB", "--max-memory", "1GiB").exit_code == 0
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    check_error(run("merge", recipe, tmp_path / "two", "--shard-size", "5X"), 1, "shard_size")
    check_error(run("merge", recipe, tmp_path / "two", "--max-memory", "lots"), 1, "max_memory")


def test_methods(library: Any) -> None:
    listed = run("methods").stdout
    for name in sp.methods():
        assert f"\n{name} " in listed
    assert {schema["name"] for schema in json.loads(run("methods", "--json").stdout)} == set(sp.methods())


def test_method(library: Any) -> None:
    schema = sp.method_schema("model_stock")
    shown = run("methods", "model_stock")
    assert shown.exit_code == 0
    for parameter in schema["parameters"]:
        assert parameter["name"] in shown.stdout
    assert "source: " in shown.stdout
    assert "cos | angle | adjacent" in shown.stdout
    assert json.loads(run("methods", "model_stock", "--json").stdout) == schema
    check_error(run("methods", "model_stok"), 1, "did you mean 'model_stock'")


def test_inspect(library: Any, models: Models) -> None:
    shown = run("inspect", models.base)
    assert shown.exit_code == 0
    for words in ("5 tensors", "F32", "I64", "model.safetensors", "a.weight", "[16, 24]", "format"):
        assert words in shown.stdout
    found = json.loads(run("inspect", models.base, "--json", "--tensors").stdout)
    assert found["tensors"] == 5
    assert found["parameters"] == 16 + 16 * 24 + 60 + 7 + 1
    assert found["dtypes"]["F32"]["tensors"] == 4
    assert {entry["name"] for entry in found["tensor_list"]} == set(models.tensors[0])
    assert "position_ids" in run("inspect", models.base, "--tensors").stdout
    check_error(run("inspect", models.base / "nothing"), 1, "nothing")


def test_exit_statuses_of_the_process(library: Any, recipe: Path, tmp_path: Path) -> None:
    def status(*arguments: Any) -> int:
        command = [sys.executable, "-m", "stockpot", *map(str, arguments)]
        return subprocess.run(command, capture_output=True).returncode

    assert status("merge", recipe, tmp_path / "out") == 0
    assert status("merge", recipe, tmp_path / "out") == 1
    assert status("merge", "--nothing") == 2


def test_a_reader_that_stops_reading(library: Any) -> None:
    command = f"{sys.executable} -m stockpot methods --json | head -c 10"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(found.stdout) == 10
    assert found.stderr == ""


def test_ctrl_c(library: Any, tmp_path: Path) -> None:
    models = write_sparse_models(tmp_path)
    command = [sys.executable, "-m", "stockpot", "merge", "--method", "linear", *map(str, models), "-o", "out"]
    # A runner started in the background ignores Ctrl-C, and its children would inherit that.
    with subprocess.Popen(
        [*command, "--threads", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "out.partial").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        out, err = process.communicate(timeout=30)
        taken = time.monotonic() - sent
    assert (process.returncode, out) == (130, ""), err
    assert taken < 2
    assert "nothing was left at out" in err
    assert "--resume" in err
    assert not (tmp_path / "out").exists()
    found = subprocess.run([*command, "--resume", "--quiet"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out").exists()
