"""Adapters out of models: the truncated SVD of each difference, against numpy; round trips through a merge."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder
from reference.arrays import read_checkpoint, same_bytes
from stockpot.cli import main

Tensors = dict[str, np.ndarray]
SHAPES = {
    "model.embed_tokens.weight": (50, 24),
    "model.layers.0.mlp.up_proj.weight": (96, 70),
    "model.layers.0.self_attn.q_proj.weight": (24, 24),
    "model.layers.0.self_attn.q_proj.bias": (24,),
    "model.layers.1.mlp.up_proj.weight": (96, 70),
    "model.layers.1.tiny.weight": (3, 70),
    "model.norm.weight": (24,),
    "model.conv.weight": (6, 3, 2, 2),
}
LINEAR = [name for name, shape in SHAPES.items() if len(shape) == 2 and "embed" not in name]


def _pair(
    root: Path, rank: int | None, dtype: Any = np.float32, changed: list[str] | None = None
) -> tuple[Tensors, Tensors]:
    """A base, and a model whose matrices differ from it by something of a rank; None: of full rank."""
    rng = np.random.default_rng(2)
    base = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    model = dict(base)
    for name in LINEAR if changed is None else changed:
        shape = (SHAPES[name][0], int(np.prod(SHAPES[name][1:])))
        delta = rng.standard_normal(shape)
        if rank is not None:
            delta = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
        model[name] = (base[name].astype(np.float64) + 0.01 * delta.reshape(SHAPES[name])).astype(np.float64)
    write_folder(root / "base", base, architectures=["LlamaForCausalLM"])
    write_folder(root / "model", model)
    return base, model


def _extract(root: Path, **options: Any) -> dict[str, Any]:
    return sp.extract_lora(root / "base", root / "model", root / "lora", progress=False, **options)


def _restored(root: Path) -> Tensors:
    recipe = {"merge_method": "passthrough", "models": [f"{root}/base+{root}/lora"], "dtype": "float64"}
    sp.merge(recipe, root / "restored", progress=False)
    return read_checkpoint(root / "restored")


def _errors(report: dict[str, Any]) -> dict[str, float]:
    return {entry["name"]: entry["error"] for entry in report["tensors"] if entry["action"] == "factored"}


def test_a_difference_of_low_rank_comes_back(tmp_path: Path) -> None:
    """To the rounding of the factors to float32: each of 2 r products has two relative errors of 2^-24."""
    base, model = _pair(tmp_path, rank=4)
    report = _extract(tmp_path, rank=4)
    restored = _restored(tmp_path)
    assert set(restored) == set(base)
    for name in LINEAR:
        delta = model[name] - base[name].astype(np.float64)
        error = np.linalg.norm(restored[name] - model[name]) / np.linalg.norm(delta)
        assert error < 4 * 2.0**-24 * np.sqrt(4), name
        assert _errors(report)[name] == pytest.approx(error, rel=1e-6), name
    assert report["summary"]["lost"] == 0
    assert report["summary"]["unchanged"] == len(SHAPES) - len(LINEAR)


@pytest.mark.parametrize("rank", [1, 7, 24])
def test_error_is_that_of_the_best_factors(tmp_path: Path, rank: int) -> None:
    """Eckart and Young: the error of the truncated SVD, and the restored model has just that error."""
    base, model = _pair(tmp_path, rank=None)
    report = _extract(tmp_path, rank=rank)
    restored = _restored(tmp_path)
    for name, found in _errors(report).items():
        delta = model[name] - base[name].astype(np.float64)
        sigma = np.linalg.svd(delta, compute_uv=False)
        best = np.sqrt(np.sum(sigma[rank:] ** 2) / np.sum(sigma**2))
        assert found == pytest.approx(best, rel=1e-5, abs=4 * 2.0**-24 * np.sqrt(rank)), name
        assert np.linalg.norm(restored[name] - model[name]) / np.linalg.norm(delta) == pytest.approx(
            found, rel=1e-6, abs=1e-9
        )
    assert set(_errors(report)) == set(LINEAR)
    assert report["summary"]["worst_error"] == max(_errors(report).values())
    lines = list(csv.DictReader((tmp_path / "lora" / "extract_report.csv").open()))
    assert {line["name"]: float(line["error"]) for line in lines} == _errors(report)


def test_layout_is_that_of_peft(tmp_path: Path) -> None:
    _pair(tmp_path, rank=4)
    _extract(tmp_path, rank=5)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"]) == (5, 5)
    assert config["target_modules"] == ["q_proj", "tiny", "up_proj"]
    assert config["modules_to_save"] is None
    assert config["rank_pattern"] == config["alpha_pattern"] == {r"model\.layers\.1\.tiny": 3}
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    tensors = read_safetensors(tmp_path / "lora" / "adapter_model.safetensors")
    shapes = {name: array.shape for name, array in tensors.items()}
    module = "base_model.model.model.layers.0.mlp.up_proj"
    assert shapes[f"{module}.lora_A.weight"] == (5, 70)
    assert shapes[f"{module}.lora_B.weight"] == (96, 5)
    # Both factors carry the root of the singular values.
    first, second = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1)[:4], np.linalg.norm(second, axis=0)[:4], rtol=1e-5)


def test_whole_names_where_a_leaf_would_say_too_much(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    _pair(tmp_path, rank=2, changed=[name])
    report = _extract(tmp_path, rank=2)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.1.mlp.up_proj"]
    assert list(_errors(report)) == [name]


def test_what_is_lost_is_named(tmp_path: Path) -> None:
    lost = ["model.embed_tokens.weight", "model.norm.weight", "model.conv.weight", LINEAR[0]]
    base, model = _pair(tmp_path, rank=2, changed=lost)
    with pytest.raises(sp.ArgumentError, match="nothing to extract"):
        _extract(tmp_path, rank=2, exclude=["up_proj"])
    with pytest.warns(sp.StockpotWarning, match="3 tensors that differ, .* are lost"):
        report = _extract(tmp_path, rank=2)
    assert {each["name"] for each in report["tensors"] if each["action"] == "lost"} == set(lost[:3])
    deltas = {name: np.linalg.norm(model[name] - base[name].astype(np.float64)) for name in lost}
    missing = np.sqrt(sum(deltas[name] ** 2 for name in lost[:3]) / sum(each**2 for each in deltas.values()))
    assert report["summary"]["total_error"] == pytest.approx(missing, rel=1e-6)


def test_embeddings_convolutions_and_saved_modules(tmp_path: Path) -> None:
    names = [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.conv.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ]
    base, model = _pair(tmp_path, rank=2, changed=names)
    report = _extract(tmp_path, rank=3, include=["embed_tokens", "model.conv"], save_modules=["*norm", "q_proj"])
    assert report["summary"]["lost"] == 0
    restored = _restored(tmp_path)
    for name in ("model.embed_tokens.weight", "model.conv.weight"):
        delta = np.linalg.norm(model[name] - base[name].astype(np.float64))
        assert np.linalg.norm(restored[name] - model[name]) / delta < 4 * 2.0**-24 * np.sqrt(3), name
    assert same_bytes(restored["model.norm.weight"], model["model.norm.weight"])
    assert same_bytes(restored[names[3]], model[names[3]])
    tensors = read_safetensors(tmp_path / "lora" / "adapter_model.safetensors")
    assert tensors["base_model.model.model.embed_tokens.lora_embedding_A"].shape == (3, 50)
    assert tensors["base_model.model.model.conv.lora_A.weight"].shape == (3, 3, 2, 2)
    assert tensors["base_model.model.model.conv.lora_B.weight"].shape == (6, 3, 1, 1)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.layers.0.self_attn.q_proj", "model.norm"]


@pytest.mark.parametrize("flag", [True, None])
def test_fan_in_fan_out(tmp_path: Path, flag: bool | None) -> None:
    """As GPT-2 stores its matrices, [in, out]; by the config where nobody says so."""
    rng = np.random.default_rng(3)
    base = {"h.0.c_fc.weight": rng.standard_normal((8, 12)), "h.0.c_proj.weight": rng.standard_normal((9, 9))}
    model = {name: array + np.outer(*(rng.standard_normal(n) for n in array.shape)) for name, array in base.items()}
    write_folder(tmp_path / "base", base, model_type="gpt2" if flag is None else "other")
    write_folder(tmp_path / "model", model)
    _extract(tmp_path, rank=1, fan_in_fan_out=flag)
    tensors = read_safetensors(tmp_path / "lora" / "adapter_model.safetensors")
    assert tensors["base_model.model.h.0.c_fc.lora_A.weight"].shape == (1, 8)
    restored = _restored(tmp_path)
    for name, array in model.items():
        np.testing.assert_allclose(restored[name], array, rtol=0, atol=1e-6)


def test_bits_do_not_depend_on_threads_or_memory(tmp_path: Path) -> None:
    _pair(tmp_path, rank=None, dtype=ml_dtypes.bfloat16)
    outputs = []
    for threads, memory in ((1, None), (3, None), (2, "2500kB")):
        _extract(tmp_path, rank=6, threads=threads, max_memory=memory, dtype="bfloat16", overwrite=True)
        outputs.append((tmp_path / "lora" / "adapter_model.safetensors").read_bytes())
    assert len(set(outputs)) == 1
    with pytest.raises(sp.StockpotMemoryError, match="up_proj"):
        _extract(tmp_path, rank=6, max_memory=10_000, overwrite=True)


def test_models_that_do_not_belong_together(tmp_path: Path) -> None:
    base, _ = _pair(tmp_path, rank=2)
    write_folder(tmp_path / "less", {name: array for name, array in base.items() if "norm" not in name})
    write_folder(tmp_path / "wider", {**base, "model.norm.weight": np.zeros(25, np.float32)})
    write_folder(tmp_path / "nan", {**base, LINEAR[0]: np.full(SHAPES[LINEAR[0]], np.nan, np.float32)})
    for place, kind, words in (
        ("less", sp.MissingTensorError, "model.norm.weight"),
        ("wider", sp.ShapeError, "save_modules"),
        ("nan", sp.NonFiniteError, "NaN"),
    ):
        with pytest.raises(kind, match=words):
            sp.extract_lora(tmp_path / "base", tmp_path / place, tmp_path / "x", rank=2, progress=False)
        assert not list(tmp_path.glob("x*"))
    for bad in ({"rank": 0}, {"rank": 2, "dtype": "int8"}):
        with pytest.raises(sp.ParameterError):
            sp.extract_lora(tmp_path / "base", tmp_path / "model", tmp_path / "x", progress=False, **bad)


def test_command(tmp_path: Path) -> None:
    _pair(tmp_path, rank=2)
    arguments = ["extract-lora", f"{tmp_path}/base", f"{tmp_path}/model", f"{tmp_path}/lora", "--rank", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "rank 2, 4 matrices factored" in result.output
    assert "up_proj.weight" in result.output
    result = CliRunner().invoke(main, [*arguments, "--json", "--overwrite"])
    assert json.loads(result.stdout)["summary"]["factored"] == len(LINEAR)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "exists" in result.output
