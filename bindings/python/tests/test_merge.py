"""Whole checkpoints: recipes of every form, plans, progress, cancelling, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import yaml

import stockpot as sp
from checkpoint_files import (
    SPARSE_BYTES,
    SPARSE_TENSORS,
    Models,
    read_safetensors,
    write_folder,
    write_sparse_models,
)

pytestmark = pytest.mark.usefixtures("library")

FOLDER = {"README.md", "config.json", "merge_report.csv", "merge_report.json", "model.safetensors", "tokenizer.json"}


def expected_mean(models: Models) -> dict[str, np.ndarray]:
    return {
        name: array
        if array.dtype == np.int64
        else np.mean([tensors[name].astype(np.float64) for tensors in models.tensors[1:]], axis=0)
        for name, array in models.tensors[0].items()
    }


def check_mean(models: Models, output: Path) -> None:
    expected = expected_mean(models)
    with sp.open(output) as checkpoint:
        assert set(checkpoint) == set(expected)
        for name, array in checkpoint.items():
            assert array.dtype == models.tensors[0][name].dtype
            np.testing.assert_allclose(array, expected[name], rtol=1e-6)


def forms(models: Models, folder: Path) -> dict[str, Any]:
    recipe = models.recipe()
    text = yaml.safe_dump(recipe)
    for name, content in (("recipe.yaml", text), ("recipe.yml", text), ("recipe.json", json.dumps(recipe))):
        (folder / name).write_text(content)
    return {
        "dict": recipe,
        "text": text,
        "path": folder / "recipe.yaml",
        "yml": str(folder / "recipe.yml"),
        "json": folder / "recipe.json",
    }


@pytest.mark.parametrize("form", ["dict", "text", "path", "yml", "json"])
def test_recipes_of_every_form(models: Models, tmp_path: Path, form: str) -> None:
    output = tmp_path / "out"
    result = sp.merge(forms(models, tmp_path)[form], output, progress=False)
    assert {path.name for path in output.iterdir()} == FOLDER
    assert not output.with_name("out.partial").exists()
    check_mean(models, output)
    assert result.path == output
    assert os.fspath(result) == str(output)
    assert (result.tensors, result.report_path) == (5, output / "merge_report.json")
    assert result.seconds > 0
    assert result.bytes_written == sum(array.nbytes for array in models.tensors[0].values())
    assert result.summary["tensors"] == 5
    on_disk = json.loads((output / "merge_report.json").read_text())
    assert on_disk == result.report
    assert {entry["name"] for entry in on_disk["tensors"]} == set(models.tensors[0])
    assert list(result.open()) == sorted(models.tensors[0])


def test_the_card_holds_the_recipe_as_written(models: Models, tmp_path: Path) -> None:
    text = "# why: because\n" + yaml.safe_dump(models.recipe())
    sp.merge(text, tmp_path / "out", progress=False)
    assert "# why: because" in (tmp_path / "out" / "README.md").read_text()


def test_single_file(models: Models, tmp_path: Path) -> None:
    result = sp.merge(models.recipe(), tmp_path / "out.safetensors", progress=False)
    check_mean(models, tmp_path / "out.safetensors")
    assert result.report_path is not None
    assert json.loads(result.report_path.read_text())["method"] == "linear"


def test_output_type_and_weights(models: Models, tmp_path: Path) -> None:
    recipe = models.recipe(out_dtype="bfloat16")
    for model, weight in zip(recipe["models"], (0.5, 0.25, 0.25), strict=True):
        model["parameters"] = {"weight": weight}
    sp.merge(recipe, tmp_path / "out", progress=False)
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")
    tensors = [t["a.weight"].astype(np.float64) for t in models.tensors[1:]]
    expected = (0.5 * tensors[0] + 0.25 * tensors[1] + 0.25 * tensors[2]).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(merged["a.weight"], expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("method", ["model_stock", "yoyo_scale", "geometric_median", "yoyo_fusion", "task_arithmetic"])
def test_checkpoint_and_arrays_agree(models: Models, tmp_path: Path, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.StockpotWarning)
        sp.merge(models.recipe(method), tmp_path / "out", progress=False)
    donor = sp.method_schema(method)["inputs"]["base"] == "donor"
    for name, array in sp.open(tmp_path / "out").items():
        tensors = [tensors[name] for tensors in models.tensors]
        if array.dtype == np.int64:
            np.testing.assert_array_equal(array, tensors[0])
            continue
        alone = sp.merge_tensors(method, tensors[1:], None if donor else tensors[0], name=name)
        np.testing.assert_array_equal(array, alone)


def test_shards(models: Models, tmp_path: Path) -> None:
    result = sp.merge(models.recipe(), tmp_path / "out", progress=False, shard_size="1kB")
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert len(result.plan.files) > 1
    check_mean(models, tmp_path / "out")


def test_relative_paths(models: Models, in_tmp: Path) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": f"models/model-{i}"} for i in range(3)]}
    sp.merge({**recipe, "base_model": Path("models/base")}, "out", progress=False)
    check_mean(models, in_tmp / "out")


def test_plan(models: Models, tmp_path: Path) -> None:
    plan = sp.plan(models.recipe(), tmp_path / "out")
    assert plan.method == "linear"
    assert plan.output == tmp_path / "out"
    assert [entry["role"] for entry in plan.inputs] == ["base", "model", "model", "model"]
    assert plan.donor == str(models.base)
    assert {tensor["name"] for tensor in plan.tensors} == set(models.tensors[0])
    actions = {tensor["name"]: tensor["action"] for tensor in plan.tensors}
    assert actions["position_ids"] == "copy"
    assert actions["a.weight"] == "merge"
    assert plan.bytes_to_write == sum(array.nbytes for array in models.tensors[0].values())
    assert plan.bytes_to_read > plan.bytes_to_write
    assert plan.memory > 0
    assert plan.threads > 0
    assert plan.free_disk is None or plan.free_disk > 0
    assert list(plan.files[0]) == ["name", "bytes", "tensors"]
    assert plan["method"] == "linear"
    assert dict(plan) == json.loads(plan.to_json())
    assert sp.Plan.from_json(plan.to_json()).tensors == plan.tensors
    assert "linear of 4 inputs" in repr(plan)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_plan_without_output(models: Models) -> None:
    assert sp.plan(models.recipe()).output is None


def test_unknown_keys_warn_and_strict_refuses(models: Models, tmp_path: Path) -> None:
    recipe = models.recipe(paramters={"t": 1})
    with pytest.warns(sp.StockpotWarning, match="paramters"):
        result = sp.merge(recipe, tmp_path / "out", progress=False)
    assert any("paramters" in warning for warning in result.warnings)
    with pytest.raises(sp.RecipeError, match="paramters"):
        sp.merge(recipe, tmp_path / "strict", strict=True, progress=False)
    assert not (tmp_path / "strict").exists()


def test_output_exists(models: Models, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sp.merge(models.recipe(), output, progress=False)
    (output / "note.txt").write_text("mine")
    with pytest.raises(sp.OutputExistsError, match="out"):
        sp.merge(models.recipe(), output, progress=False)
    assert (output / "note.txt").exists()
    sp.merge(models.recipe("model_stock"), output, overwrite=True, progress=False)
    assert json.loads((output / "merge_report.json").read_text())["method"] == "model_stock"
    assert not (output / "note.txt").exists()


def test_a_failed_merge_does_not_replace_anything(models: Models, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sp.merge(models.recipe(), output, progress=False)
    before = (output / "model.safetensors").read_bytes()
    bad = {**models.tensors[2], "a.weight": np.full((16, 24), np.nan, np.float32)}
    write_folder(models.models[1], bad)
    with pytest.raises(sp.NonFiniteError):
        sp.merge(models.recipe("model_stock"), output, overwrite=True, progress=False)
    assert (output / "model.safetensors").read_bytes() == before
    assert not output.with_name("out.partial").exists()


def test_memory(models: Models, tmp_path: Path) -> None:
    with pytest.raises(sp.StockpotMemoryError):
        sp.merge(models.recipe(), tmp_path / "out", max_memory=100, progress=False)
    assert not (tmp_path / "out").exists()
    sp.merge(models.recipe(), tmp_path / "out", max_memory="1GiB", threads=1, progress=False)


def test_threads_do_not_change_a_byte(models: Models, tmp_path: Path) -> None:
    for threads in (1, 2, 7):
        sp.merge(models.recipe("yoyo_scale"), tmp_path / str(threads), threads=threads, progress=False)
    weights = {(tmp_path / str(n) / "model.safetensors").read_bytes() for n in (1, 2, 7)}
    assert len(weights) == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe that takes a while."""
    paths = write_sparse_models(tmp_path_factory.mktemp("large"))
    return {"merge_method": "linear", "models": [{"model": str(path)} for path in paths]}


def test_progress_as_a_function(large: Any, tmp_path: Path) -> None:
    seen: list[sp.Progress] = []
    threads: set[threading.Thread] = set()

    def show(state: sp.Progress) -> None:
        seen.append(state)
        threads.add(threading.current_thread())

    sp.merge(large, tmp_path / "out", progress=show)
    assert threads == {threading.current_thread()}
    assert len(seen) > 1
    last = seen[-1]
    assert last.phase == "done"
    assert last.tensors_done == last.tensors_total == SPARSE_TENSORS
    assert last.bytes_done == last.bytes_total == SPARSE_TENSORS * SPARSE_BYTES
    assert [state.bytes_done for state in seen] == sorted(state.bytes_done for state in seen)


def test_bar(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sp.merge(models.recipe(), tmp_path / "out")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "merging" in captured.err
    sp.merge(models.recipe(), tmp_path / "silent", progress=False)
    assert capsys.readouterr().err == ""


def test_an_exception_in_the_function_stops_the_job(large: Any, tmp_path: Path) -> None:
    class OwnError(Exception):
        pass

    def show(state: sp.Progress) -> None:
        raise OwnError

    start = time.monotonic()
    with pytest.raises(OwnError):
        sp.merge(large, tmp_path / "out", progress=show)
    assert time.monotonic() - start < 2
    assert not (tmp_path / "out").exists()
    result = sp.merge(large, tmp_path / "out", progress=False, resume=True)
    assert result.tensors == SPARSE_TENSORS
    assert not (tmp_path / "out.partial").exists()


def test_a_file_that_is_cut_off_during_the_merge_is_an_error(tmp_path: Path) -> None:
    """Its pages are mapped, and a missing one would end the process."""
    paths = write_sparse_models(tmp_path)
    files = sorted(paths[1].rglob("*.safetensors")) if paths[1].is_dir() else [paths[1]]

    def cut(state: sp.Progress) -> None:
        if state.phase == "merging" and files[-1].stat().st_size > 1 << 20:
            os.truncate(files[-1], 1 << 20)

    recipe = {"merge_method": "linear", "models": [{"model": str(path)} for path in paths]}
    with pytest.raises(sp.StockpotError, match="it has been truncated"):
        sp.merge(recipe, tmp_path / "out", threads=1, progress=cut)
    assert not (tmp_path / "out").exists()


STOPPED = """
import json, resource, sys
import stockpot as sp
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
try:
    sp.merge(json.loads(sys.argv[1]), sys.argv[2], progress=False, shard_size=10_000, threads=1)
except sp.StockpotError as error:
    print(type(error).__name__, error)
"""


def test_what_the_system_stops_can_be_resumed(tmp_path: Path) -> None:
    """As a full disk does: here no file may be longer than 20 kB, and the journal becomes it first."""
    rng = np.random.default_rng(1)
    names = [f"layers.{index}.weight" for index in range(300)]
    for model in "ab":
        write_folder(tmp_path / model, {name: rng.standard_normal((4, 8)).astype(np.float32) for name in names})
    recipe = {"merge_method": "linear", "models": [str(tmp_path / model) for model in "ab"]}
    sp.merge(recipe, tmp_path / "whole", progress=False, shard_size=10_000)
    command = [sys.executable, "-c", STOPPED, json.dumps(recipe), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "stockpot.journal" in done.stdout
    assert "resume goes on" in done.stdout
    assert (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out").exists()
    sp.merge(recipe, tmp_path / "out", progress=False, shard_size=10_000, resume=True)
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["resumed"] is True
    for file in sorted((tmp_path / "whole").glob("*.safetensors")):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert not (tmp_path / "out" / "stockpot.journal").exists()


INTERRUPTED = """
import json, signal, sys, time
import stockpot as sp
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores it, and so would we
recipe, output = json.loads(sys.argv[1]), sys.argv[2]
last = [0.0]
def show(state):
    first, last[0] = not last[0], time.monotonic()
    if first:
        print("running", flush=True)
try:
    sp.merge(recipe, output, threads=1, progress=show)
    print("finished", flush=True)
except KeyboardInterrupt:
    print(f"{time.monotonic() - last[0]:.3f}", flush=True)
    sys.exit(7)
"""


def test_ctrl_c(large: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, json.dumps(large), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 7, (out, err)
    assert float(out) < 0.5  # 0.05 until the signal is seen, and a block's time
    assert not (tmp_path / "out").exists()


def test_jobs_run_beside_each_other(models: Models, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            sp.merge(models.recipe("model_stock"), tmp_path / f"out-{index}", progress=False)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert len({(tmp_path / f"out-{i}" / "model.safetensors").read_bytes() for i in range(4)}) == 1


def test_digits(digits: Path, tmp_path: Path) -> None:
    soups = [{"model": str(digits / f"soup-{i}")} for i in range(5)]
    recipe = {"merge_method": "model_stock", "base_model": str(digits / "base"), "models": soups}
    result = sp.merge(recipe, tmp_path / "out", progress=False)
    assert result.tensors == 56
    members = [read_safetensors(digits / f"soup-{i}" / "model.safetensors") for i in range(5)]
    base = read_safetensors(digits / "base" / "model.safetensors")
    for name, array in sp.open(tmp_path / "out").items():
        deltas = np.array([(m[name].astype(np.float64) - base[name]).ravel() for m in members])
        gram = deltas @ deltas.T
        norms = np.sqrt(np.diag(gram))
        c = np.mean((gram / np.outer(norms, norms))[np.triu_indices(5, 1)])
        t = 5 * c / (1 + 4 * c)
        expected = base[name] + t * deltas.mean(axis=0).reshape(array.shape)
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
