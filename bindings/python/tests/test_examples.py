"""The recipes of examples/recipes, which have the grammar and the names of mergekit's six, and other architectures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import stockpot as sp
from architectures import ARCHITECTURES, write
from checkpoint_files import read_safetensors
from stockpot.recipes import load_recipe

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "recipes"

LAYERS = {"mistral": 32, "llama": 40}

# Tensors: three outside the layers, nine in each.
TENSORS = {
    "bio-merge": 3 + 9 * 32,
    "gradient-slerp": 3 + 9 * 40,
    "linear": 3 + 9 * 40,
    "mega": 3 + 9 * 40,
    "orcamini-platy-44layer": 3 + 9 * 44,
    "ties": 3 + 9 * 40,
}


@pytest.fixture
def zoo(in_tmp: Path) -> Path:
    """Tiny checkpoints under the names that the examples use."""
    for seed, name in enumerate(
        ("llama-base", "chat-a", "chat-b", "chat-c", "mistral-base", "mistral-instruct", "mistral-bio")
    ):
        kind = "mistral" if name.startswith("mistral") else "llama"
        write(in_tmp / "models" / name, kind, LAYERS[kind], seed)
    return in_tmp


def test_all_six_are_there() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yml")} == set(TENSORS)


@pytest.mark.parametrize("name", sorted(TENSORS))
def test_examples_plan_and_merge(zoo: Path, name: str) -> None:
    plan = sp.plan(EXAMPLES / f"{name}.yml", strict=True)
    assert plan.warnings == []
    assert len(plan.tensors) == TENSORS[name]
    assert {tensor["action"] for tensor in plan.tensors} == {"merge"}
    assert plan["stacks"][0]["layers"] == (44 if "44" in name else LAYERS["mistral" if "bio" in name else "llama"])
    result = sp.merge(EXAMPLES / f"{name}.yml", zoo / "out", progress=False)
    assert result.tensors == TENSORS[name]
    got = read_safetensors(zoo / "out" / "model.safetensors")
    assert all(np.isfinite(array.astype(np.float32)).all() for array in got.values())
    assert json.loads((zoo / "out" / "config.json").read_text())["num_hidden_layers"] == plan["stacks"][0]["layers"]


def test_values_of_the_gradient(zoo: Path) -> None:
    """slerp's t at both ends and in the middle of the examples' lists, for each filter."""
    plan = sp.plan(EXAMPLES / "gradient-slerp.yml")
    found = {tensor["name"]: tensor["parameters"]["t"] for tensor in plan.tensors}
    assert found["model.layers.0.self_attn.q_proj.weight"] == 0
    assert found["model.layers.39.self_attn.q_proj.weight"] == 1
    assert found["model.layers.39.mlp.up_proj.weight"] == 0
    position = 13 / 39 * 4
    assert found["model.layers.13.self_attn.q_proj.weight"] == pytest.approx(0.5 + (0.3 - 0.5) * (position - 1))
    assert found["model.norm.weight"] == found["model.layers.7.input_layernorm.weight"] == 0.5
    ties = {tensor["name"]: tensor["parameters"] for tensor in sp.plan(EXAMPLES / "ties.yml").tensors}
    assert ties["lm_head.weight"]["density"] == [1, 0.5, 0.33]
    assert ties["lm_head.weight"]["weight"] == [1, 0, 0]
    assert ties["model.layers.39.mlp.up_proj.weight"]["weight"] == [1, 1, 0.5]


def test_the_last_stage_of_mega_reads_the_others(zoo: Path) -> None:
    recipe = load_recipe(EXAMPLES / "mega.yml")
    assert [stage.value["name"] for stage in recipe.stages] == ["gradient-slerp", "gradient-ties"]
    sp.merge(recipe, zoo / "whole", progress=False)
    for stage in recipe.stages:
        sp.merge(stage.value, zoo / stage.value["name"], progress=False)
    sp.merge(dict(recipe.value), zoo / "by-hand", progress=False)
    whole, by_hand = (zoo / name / "model.safetensors" for name in ("whole", "by-hand"))
    assert whole.read_bytes() == by_hand.read_bytes()


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_architectures_are_restacked(tmp_path: Path, name: str) -> None:
    """Layers by their numbers, what is before them from the first slice, what is after them from the last: no table."""
    kind = ARCHITECTURES[name]
    a, b = (write(tmp_path / each, name, 4, seed) for seed, each in enumerate("ab"))
    slices = [
        {"sources": [{"model": str(tmp_path / model), "layer_range": list(layers)}]}
        for model, layers in (("a", (0, 3)), ("b", (1, 4)))
    ]
    plan = sp.plan({"merge_method": "passthrough", "slices": slices})
    assert plan.warnings == []
    sp.merge({"merge_method": "passthrough", "slices": slices}, tmp_path / "out", progress=False)
    got = read_safetensors(tmp_path / "out" / "model.safetensors")
    want = {each: a[each] for each in kind.before} | {each: b[each] for each in kind.after}
    for number, (held, layer) in enumerate([(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)]):
        want |= {f"{kind.stack}.{number}.{part}": held[f"{kind.stack}.{layer}.{part}"] for part in kind.layer}
    assert set(got) == set(want)
    for each, array in want.items():
        np.testing.assert_array_equal(got[each], array, err_msg=each)
    assert json.loads((tmp_path / "out" / "config.json").read_text())[kind.count] == 6
