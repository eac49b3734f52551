"""mergekit-pytorch's flat form, sets of tensors, mergekit's flags, and copies that read nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner, Result

import stockpot as sp
from checkpoint_files import Models, encode, read_safetensors, write_safetensors
from stockpot.cli import main
from stockpot.commands._options import WITHOUT_MEANING


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Two single files that share one tensor, and have one each."""
    rng = np.random.default_rng(3)
    held = {
        name: {key: rng.standard_normal((3, 4)).astype(np.float32) for key in ("shared", f"only_{name}")}
        for name in "ab"
    }
    for name, tensors in held.items():
        write_safetensors(tmp_path / f"{name}.safetensors", tensors)
    return held


def flat(root: Path, **more: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [str(root / "a.safetensors"), str(root / "b.safetensors")], **more}


def test_all_models_must_have_all_tensors(tmp_path: Path, files: Any) -> None:
    with pytest.raises(sp.MissingTensorError, match="only_a"):
        sp.plan(flat(tmp_path))


def test_union(tmp_path: Path, files: dict[str, dict[str, np.ndarray]]) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(flat(tmp_path, parameters={"weight": 2})))
    result = run("merge", recipe, tmp_path / "out.safetensors", "--tensor-union")
    assert result.exit_code == 0, result.output
    got = read_safetensors(tmp_path / "out.safetensors")
    assert set(got) == {"shared", "only_a", "only_b"}
    want = (files["a"]["shared"].astype(np.float64) + files["b"]["shared"]) / 2
    np.testing.assert_array_equal(got["shared"], want.astype(np.float32))
    for name in "ab":
        np.testing.assert_array_equal(got[f"only_{name}"], files[name][f"only_{name}"])


def test_a_union_merges_what_several_have(tmp_path: Path, files: dict[str, dict[str, np.ndarray]]) -> None:
    """A tensor that the first lacks is merged from the others, not copied from one."""
    write_safetensors(tmp_path / "c.safetensors", {"shared": files["a"]["shared"], "only_b": files["a"]["only_a"]})
    recipe = flat(tmp_path, tensor_set="union")
    recipe["models"].append(str(tmp_path / "c.safetensors"))
    with pytest.warns(sp.StockpotWarning, match="missing in some"):
        sp.merge(recipe, tmp_path / "out.safetensors", progress=False)
    got = read_safetensors(tmp_path / "out.safetensors")
    want = (files["b"]["only_b"].astype(np.float64) + files["a"]["only_a"]) / 2
    np.testing.assert_array_equal(got["only_b"], want.astype(np.float32))


def test_intersection(tmp_path: Path, files: Any) -> None:
    result = run(
        "plan",
        "--method",
        "linear",
        tmp_path / "a.safetensors",
        tmp_path / "b.safetensors",
        "--json",
        "--tensor-intersection",
    )
    assert result.exit_code == 0, result.output
    assert [tensor["name"] for tensor in json.loads(result.stdout)["tensors"]] == ["shared"]


# ---- mergekit's flags


def test_flags_without_meaning_are_accepted_and_noted_once(models: Models, tmp_path: Path) -> None:
    flags: list[str] = []
    for spellings, is_flag, _ in WITHOUT_MEANING.values():
        flags += [spellings[0].split("/")[0]] if is_flag else [spellings[0], "1"]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(models.recipe()))
    result = run("merge", recipe, tmp_path / "out", *flags)
    assert result.exit_code == 0, result.output
    assert result.output.count("without meaning here") == 1
    for flag in flags:
        assert flag == "1" or flag in result.output
    assert "without meaning" not in run("merge", recipe, tmp_path / "other").output
    assert run("plan", recipe, "--no-cuda").output.count("without meaning") == 1


def test_flags_with_a_meaning(models: Models, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**models.recipe("dare_linear"), "parameters": {"density": 0.5}}))
    options = [
        "--out-shard-size",
        "1K",
        "-j",
        "1",
        "--random-seed",
        "7",
        "--no-copy-tokenizer",
        "--no-write-model-card",
    ]
    result = run("merge", recipe, tmp_path / "out", *options, "-v")
    assert result.exit_code == 0, result.output
    assert "to write" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors.index.json" in names
    assert "config.json" in names
    assert not {"tokenizer.json", "README.md"} & names
    report = json.loads((tmp_path / "out" / "merge_report.json").read_text())
    assert report["recipe"]["random_seed"] == 7
    assert report["threads"] == 1
    assert "tokenizer.json" in report["side_files"]["left"]
    assert run("merge", recipe, tmp_path / "whole", "--out-shard-size", "5B", "-q").output == ""
    assert (tmp_path / "whole" / "model.safetensors").is_file()
    assert (tmp_path / "whole" / "tokenizer.json").is_file()


# ---- dtype, and keys of earlier grammars


@pytest.mark.parametrize("name", ["bfloat16", "torch.bfloat16"])
def test_dtype_names(models: Models, name: str) -> None:
    plan = sp.plan(models.recipe(dtype="float32", out_dtype=name))
    assert {tensor["dtype"] for tensor in plan.tensors if tensor["name"] != "position_ids"} == {"BF16"}
    assert {tensor["dtype"] for tensor in sp.plan(models.recipe(dtype=name)).tensors} == {"BF16", "I64"}


def test_int64_is_refused(models: Models) -> None:
    with pytest.raises(sp.RecipeError, match="whole number"):
        sp.plan(models.recipe(dtype="torch.int64"))


def test_mergekit_316_inputs_are_not_rounded_to_dtype(tmp_path: Path) -> None:
    """In bfloat16, 0.3 x + 0.7 y of these is off by ten times the last place; here it is rounded once."""
    x, y = np.float32([1.01171875, 3.0]), np.float32([1.00390625 + 2**-12, -1.0])
    write_safetensors(tmp_path / "a.safetensors", {"w": x})
    write_safetensors(tmp_path / "b.safetensors", {"w": y})
    recipe = flat(tmp_path, dtype="bfloat16", parameters={"normalize": False})
    recipe["models"] = [
        {"model": str(tmp_path / f"{name}.safetensors"), "parameters": {"weight": weight}}
        for name, weight in (("a", 0.3), ("b", 0.7))
    ]
    sp.merge(recipe, tmp_path / "out.safetensors", progress=False)
    want = (0.3 * x.astype(np.float64) + 0.7 * y.astype(np.float64)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(read_safetensors(tmp_path / "out.safetensors")["w"], want)


@pytest.mark.parametrize("key", ["embed_slerp", "input_model_parameters"])
def test_keys_of_earlier_grammars(models: Models, key: str) -> None:
    recipe = models.recipe(**{key: True})
    assert any(key in warning and "earlier grammar" in warning for warning in sp.plan(recipe).warnings)
    with pytest.raises(sp.RecipeError, match=key):
        sp.plan(recipe, strict=True)


# ---- Copies


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_passthrough_copies_by_range(models: Models, tmp_path: Path, dtype: str) -> None:
    """Bytes go from file to file, the same as those that are read; a tensor that has to be converted is read."""
    recipe = {"merge_method": "passthrough", "models": [str(models.models[0])], "dtype": dtype}
    result = sp.merge(recipe, tmp_path / "out", progress=False)
    got = read_safetensors(tmp_path / "out" / "model.safetensors")
    for name, want in models.tensors[1].items():
        np.testing.assert_array_equal(got[name], want if want.dtype == np.int64 else want.astype(got[name].dtype))
    copied = result.summary["bytes_copied_by_range"]
    integers = models.tensors[1]["position_ids"].nbytes
    assert copied == (result.bytes_written if dtype == "float32" else integers)


def test_copies_of_many_stretches(tmp_path: Path) -> None:
    """A tensor of several stretches, of an odd length, at an offset that is no multiple of a block."""
    rng = np.random.default_rng(0)
    tensors = {"a": rng.standard_normal(13).astype(np.float32), "w": rng.standard_normal(1_000_003).astype(np.float32)}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    recipe = {"merge_method": "passthrough", "models": [str(tmp_path / "a.safetensors")]}
    result = sp.merge(recipe, tmp_path / "out.safetensors", progress=False)
    got = read_safetensors(tmp_path / "out.safetensors")
    for name, want in tensors.items():
        np.testing.assert_array_equal(got[name], want)
    assert result.summary["bytes_copied_by_range"] == result.bytes_written


# ---- The plan


def test_mergekit_35_shards_do_not_drive_memory(models: Models) -> None:
    """Also #20: the size of shards decides how many files there are, and nothing else."""
    small, large = (sp.plan(models.recipe(), shard_size=size) for size in (100, "5GB"))
    assert len(small.files) > len(large.files) == 1
    assert small.memory == large.memory


def test_plan_of_700_tensors_takes_less_than_a_second(tmp_path: Path) -> None:
    """Headers only: the tensors are holes of 12 GB in all. Processor time, since others use the machine."""
    shape, size = [1024, 4096], 1024 * 4096 * 2
    names = [f"model.layers.{i}.{part}.weight" for i in range(70) for part in "abcdefghij"]
    header = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    for model in "abc":
        path = tmp_path / f"{model}.safetensors"
        path.write_bytes(encode(header, b""))
        os.truncate(path, path.stat().st_size + len(names) * size)
    models = [str(tmp_path / f"{model}.safetensors") for model in "bc"]
    recipe = {"merge_method": "ties", "base_model": str(tmp_path / "a.safetensors"), "models": models}
    before = time.process_time()
    plan = sp.plan(recipe, tmp_path / "out")
    assert time.process_time() - before < 1
    assert len(plan.tensors) == 700
    assert plan.bytes_to_read == 3 * 700 * size
    assert len(plan.files) == 2
    assert plan.free_disk is not None
    moved = plan.bytes_to_read + plan.bytes_to_write
    assert plan.expected_seconds == pytest.approx(moved / plan["rate"] / plan.threads)
    text = run("plan", "--method", "ties", "--base", recipe["base_model"], *models, "-o", tmp_path / "out").output
    for word in ("model.layers.0 to 69", "memory", "free", "time", "model-00002-of-00002.safetensors", "config from"):
        assert word in text
