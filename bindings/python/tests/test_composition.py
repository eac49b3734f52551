"""Slices, modules and models: layers restacked, parameters by place, configs that follow; against sums made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder

WIDTH = 4


def llama(path: Path, layers: int, seed: int, **config: Any) -> dict[str, np.ndarray]:
    """Write a tiny model with llama's names, float32; what it holds."""
    rng = np.random.default_rng(seed)
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    for layer in range(layers):
        parts = ("self_attn.o_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight")
        names += [f"model.layers.{layer}.{part}" for part in parts]
    tensors = {name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in names}
    write_folder(path, tensors, num_hidden_layers=layers, **config)
    return tensors


@pytest.fixture
def three(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Models a, b and c of four layers."""
    return {name: llama(tmp_path / name, 4, seed) for seed, name in enumerate("abc")}


def sources(root: Path, *entries: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    """A slice."""
    listed = [{"model": str(root / name), "layer_range": [first, end]} for name, first, end in entries]
    return {"sources": listed, **more}


def merged(recipe: Mapping[str, Any], output: Path) -> dict[str, np.ndarray]:
    sp.merge(recipe, output, progress=False)
    return read_safetensors(output / "model.safetensors")


def weights(plan: sp.Plan, name: str, parameter: str = "weight") -> Any:
    """A parameter of one tensor of a plan."""
    return next(each for each in plan.tensors if each["name"] == name)["parameters"][parameter]


def test_layers_are_stacked_and_renumbered(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    slices = [sources(tmp_path, ("a", 0, 3)), sources(tmp_path, ("b", 1, 4))]
    got = merged({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    order = [("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]
    for number, (name, layer) in enumerate(order):
        for part in ("self_attn.o_proj", "mlp.down_proj", "input_layernorm"):
            want = three[name][f"model.layers.{layer}.{part}.weight"]
            np.testing.assert_array_equal(got[f"model.layers.{number}.{part}.weight"], want)
    # What comes before the layers is the first slice's, what comes after them the last one's.
    np.testing.assert_array_equal(got["model.embed_tokens.weight"], three["a"]["model.embed_tokens.weight"])
    np.testing.assert_array_equal(got["model.norm.weight"], three["b"]["model.norm.weight"])
    np.testing.assert_array_equal(got["lm_head.weight"], three["b"]["lm_head.weight"])
    assert len(got) == 6 * 3 + 3
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 6


def test_mergekit_308_an_empty_last_slice_gives_the_head(
    tmp_path: Path, three: dict[str, dict[str, np.ndarray]]
) -> None:
    slices = [sources(tmp_path, ("a", 0, 4)), sources(tmp_path, ("b", 4, 4))]
    got = merged({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    np.testing.assert_array_equal(got["lm_head.weight"], three["b"]["lm_head.weight"])
    np.testing.assert_array_equal(got["model.embed_tokens.weight"], three["a"]["model.embed_tokens.weight"])
    np.testing.assert_array_equal(
        got["model.layers.3.mlp.down_proj.weight"], three["a"]["model.layers.3.mlp.down_proj.weight"]
    )


def test_mergekit_85_repeated_layers_need_no_flag(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    """Also #109 and #279: a layer that is stacked twice is written twice, and shares nothing."""
    slices = [sources(tmp_path, ("a", 0, 2)), sources(tmp_path, ("a", 0, 2))]
    got = merged({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    for layer in range(4):
        want = three["a"][f"model.layers.{layer % 2}.mlp.down_proj.weight"]
        np.testing.assert_array_equal(got[f"model.layers.{layer}.mlp.down_proj.weight"], want)


def test_gradients_run_over_the_output_slice(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    """t is 0 for the first layer of a slice and 1 for the last, 1 for an only layer, and 0 outside the layers."""
    slices = [sources(tmp_path, ("a", 1, 4), ("b", 0, 3)), sources(tmp_path, ("a", 0, 1), ("b", 0, 1))]
    recipe = {"merge_method": "linear", "slices": slices, "parameters": {"weight": [1, 2, 4]}}
    plan = sp.plan(recipe)
    found = [weights(plan, f"model.layers.{layer}.mlp.down_proj.weight")[0] for layer in range(4)]
    assert found == [1, 2, 4, 4]
    assert weights(plan, "lm_head.weight") == [1, 1]


@pytest.mark.filterwarnings("ignore")
def test_parameters_by_precedence(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    """A source's own before the slice's, the module's and the recipe's; what does not match falls through."""
    slice_ = sources(
        tmp_path, ("a", 0, 2), ("b", 0, 2), ("c", 0, 2), parameters={"weight": {"filter": "mlp", "value": 5}}
    )
    slice_["sources"][0]["parameters"] = {"weight": [{"filter": "self_attn", "value": 7}]}
    recipe = {
        "merge_method": "linear",
        "modules": {"default": {"slices": [slice_], "parameters": {"weight": {"filter": "o_proj", "value": "0.25"}}}},
        "parameters": {"weight": True, "normalize": False},
    }
    plan = sp.plan(recipe)
    assert weights(plan, "model.layers.0.self_attn.o_proj.weight") == [7, 0.25, 0.25]
    assert weights(plan, "model.layers.0.mlp.down_proj.weight") == [5, 5, 5]
    # A bare true is 1, and what is a boolean of the method stays one.
    assert weights(plan, "model.layers.0.input_layernorm.weight") == [1, 1, 1]
    got = merged(recipe, tmp_path / "out")
    name = "model.layers.1.self_attn.o_proj.weight"
    want = 7.0 * three["a"][name] + 0.25 * three["b"][name] + 0.25 * three["c"][name]
    np.testing.assert_allclose(got[name], want, rtol=0, atol=2**-22 * np.abs(want).max())


def test_filters_look_at_output_names_or_at_the_model_s(tmp_path: Path, three: Any) -> None:
    """A method's parameter by the output's name, a per-model one by the name that the model stores."""
    slices = [sources(tmp_path, ("a", 0, 2), ("b", 2, 4))]
    slices[0]["sources"][1]["parameters"] = {"weight": [{"filter": "layers.3.", "value": 9}, {"value": 2}]}
    linear = {"merge_method": "linear", "slices": slices, "parameters": {"weight": 1, "normalize": False}}
    assert weights(sp.plan(linear), "model.layers.1.mlp.down_proj.weight") == [1, 9]
    assert weights(sp.plan(linear), "model.layers.0.mlp.down_proj.weight") == [1, 2]
    slices = [sources(tmp_path, ("a", 2, 4), ("b", 2, 4))]
    values = [{"filter": "layers.3.", "value": 0.9}, {"filter": "layers.1.", "value": 0.1}, {"value": 0.5}]
    slerp = {"merge_method": "slerp", "base_model": str(tmp_path / "a"), "slices": slices, "parameters": {"t": values}}
    plan = sp.plan(slerp)
    assert weights(plan, "model.layers.1.mlp.down_proj.weight", "t") == 0.1
    assert weights(plan, "model.layers.0.mlp.down_proj.weight", "t") == 0.5


def test_a_slice_may_have_its_own_base(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    slices = [
        sources(tmp_path, ("a", 0, 2), ("b", 0, 2)),
        sources(tmp_path, ("a", 2, 4), ("b", 1, 3), base_model=str(tmp_path / "b")),
    ]
    recipe = {"merge_method": "slerp", "base_model": str(tmp_path / "a"), "slices": slices, "parameters": {"t": 0.0}}
    got = merged(recipe, tmp_path / "out")
    for number, (name, layer) in enumerate([("a", 0), ("a", 1), ("b", 1), ("b", 2)]):
        want = three[name][f"model.layers.{layer}.mlp.down_proj.weight"]
        np.testing.assert_allclose(got[f"model.layers.{number}.mlp.down_proj.weight"], want, rtol=0, atol=1e-6)


def test_a_base_that_is_no_source_takes_the_layers_of_the_sources(
    tmp_path: Path, three: dict[str, dict[str, np.ndarray]]
) -> None:
    slices = [sources(tmp_path, ("b", 1, 3), ("c", 1, 3))]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "a"), "slices": slices}
    got = merged(recipe, tmp_path / "out")
    name = "model.layers.{}.mlp.down_proj.weight"
    want = sum(three[each][name.format(1)].astype(np.float64) for each in "bc") - three["a"][name.format(1)]
    np.testing.assert_allclose(got[name.format(0)], want, rtol=0, atol=1e-6)
    recipe["slices"] = [sources(tmp_path, ("b", 1, 3), ("c", 0, 2))]
    with pytest.raises(sp.RecipeError, match="list the base"):
        sp.plan(recipe)


# ---- Configs


def test_configs_follow_the_stack(tmp_path: Path) -> None:
    """Counts under all their names, lists with an entry per layer, lists of layers; nothing else."""
    kinds = ["sliding", "full", "sliding", "full"]
    config = {
        "text_config": {"num_hidden_layers": 4, "layer_types": kinds, "mlp_only_layers": [0, 3], "hidden_size": 4},
        "eos_token_id": [4, 4, 4, 4],
        "vision_config": {"num_hidden_layers": 7},
        "layer_types": kinds,
        "num_layers": 4,
    }
    llama(tmp_path / "a", 4, 0, **config)
    llama(tmp_path / "b", 4, 1, layer_types=["b0", "b1", "b2", "b3"])
    slices = [sources(tmp_path, ("a", 0, 2)), sources(tmp_path, ("b", 2, 4)), sources(tmp_path, ("a", 3, 4))]
    sp.merge({"merge_method": "passthrough", "slices": slices}, tmp_path / "out", progress=False)
    got = json.loads((tmp_path / "out" / "config.json").read_text())
    assert got["num_hidden_layers"] == got["num_layers"] == got["text_config"]["num_hidden_layers"] == 5
    assert got["layer_types"] == ["sliding", "full", "b2", "b3", "full"]
    assert got["text_config"]["layer_types"] == ["sliding", "full", "sliding", "full", "full"]
    assert got["text_config"]["mlp_only_layers"] == [0, 3, 4]
    assert got["vision_config"]["num_hidden_layers"] == 7
    assert got["eos_token_id"] == [4, 4, 4, 4]


def test_a_config_is_edited_as_text(tmp_path: Path) -> None:
    llama(tmp_path / "a", 4, 0)
    kinds = '    "x",\n    "y",\n    "x",\n    "y"\n'
    text = '{\n  "torch_dtype": "float32",\n "rope":  1.50,\n  "layer_types": [\n' + kinds + "  ],\n"
    (tmp_path / "a" / "config.json").write_text(text + '  "n_layer":4\n}\n')
    slices = [sources(tmp_path, ("a", 0, 1)), sources(tmp_path, ("a", 0, 1))]
    sp.merge({"merge_method": "passthrough", "slices": slices}, tmp_path / "out", progress=False)
    want = text.replace(kinds, '    "x",\n    "x"\n') + '  "n_layer":2\n}\n'
    assert (tmp_path / "out" / "config.json").read_text() == want


def test_a_config_that_contradicts_the_names_is_told(tmp_path: Path) -> None:
    llama(tmp_path / "a", 4, 0)
    (tmp_path / "a" / "config.json").write_text('{"num_hidden_layers": 5}')
    plan = sp.plan({"merge_method": "linear", "models": [str(tmp_path / "a")]})
    assert any("num_hidden_layers = 5" in warning and "4 layers" in warning for warning in plan.warnings)


def test_the_plan_prints_the_stacks(tmp_path: Path, three: Any) -> None:
    slices = [sources(tmp_path, ("a", 0, 3)), sources(tmp_path, ("b", 1, 4))]
    plan = sp.plan({"merge_method": "passthrough", "slices": slices})
    assert plan["stacks"] == [
        {
            "module": None,
            "name": "model.layers",
            "layers": 6,
            "restacked": True,
            "from": [{"input": 0, "layers": [0, 3]}, {"input": 1, "layers": [1, 4]}],
        }
    ]
    whole = sp.plan({"merge_method": "linear", "models": [str(tmp_path / "a")]})
    assert whole["stacks"][0]["layers"] == 4
    assert not whole["stacks"][0]["restacked"]
    assert whole["config_changes"] == []


# ---- Modules


def two_towers(path: Path, text: Sequence[str], vision: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """A model with three layers of text, two of vision, and a projector."""
    rng = np.random.default_rng(seed)
    names = [*text, *vision, "multi_modal_projector.linear_1.weight", "lm_head.weight"]
    tensors = {name: rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in names}
    write_folder(path, tensors, text_config={"num_hidden_layers": 3}, vision_config={"num_hidden_layers": 2})
    return tensors


TEXT = ["model.language_model.embed_tokens.weight", "model.language_model.norm.weight"] + [
    f"model.language_model.layers.{layer}.{part}.weight" for layer in range(3) for part in ("mlp", "attn")
]
VISION = ["model.visual.patch_embed.weight"] + [
    f"model.visual.blocks.{layer}.{part}.weight" for layer in range(2) for part in ("mlp", "attn")
]


def test_modules_are_the_parts_of_a_multi_modal_model(tmp_path: Path) -> None:
    held = {name: two_towers(tmp_path / name, TEXT, VISION, seed) for seed, name in enumerate("ab")}
    a, b = ({"model": str(tmp_path / name)} for name in "ab")
    modules = {
        "text_decoder": {"models": [a, b]},
        "vision_tower": {"slices": [sources(tmp_path, ("b", 0, 2)), sources(tmp_path, ("a", 1, 2))]},
        "multi_modal_projector": {"models": [a]},
    }
    recipe = {"merge_method": "linear", "modules": modules, "parameters": {"weight": 1}}
    got = merged(recipe, tmp_path / "out")
    name = "model.language_model.layers.1.mlp.weight"
    np.testing.assert_allclose(got[name], (held["a"][name] + held["b"][name]) / 2, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        got["model.visual.blocks.0.mlp.weight"], held["b"]["model.visual.blocks.0.mlp.weight"]
    )
    np.testing.assert_array_equal(
        got["model.visual.blocks.2.mlp.weight"], held["a"]["model.visual.blocks.1.mlp.weight"]
    )
    projector = "multi_modal_projector.linear_1.weight"
    np.testing.assert_array_equal(got[projector], held["a"][projector])
    np.testing.assert_allclose(
        got["lm_head.weight"], (held["a"]["lm_head.weight"] + held["b"]["lm_head.weight"]) / 2, atol=1e-6
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vision_config"]["num_hidden_layers"] == 3
    assert config["text_config"]["num_hidden_layers"] == 3
    assert set(got) == set(held["a"]) | {f"model.visual.blocks.2.{part}.weight" for part in ("mlp", "attn")}


def test_mergekit_696_what_no_module_lists_is_kept(tmp_path: Path) -> None:
    """Also #569 and #674: nothing is dropped in silence, whether or not the recipe speaks of it."""
    held = two_towers(tmp_path / "a", TEXT, VISION, 0)
    two_towers(tmp_path / "b", TEXT, VISION, 1)
    models = [{"model": str(tmp_path / name)} for name in "ab"]
    recipe = {"merge_method": "linear", "modules": {"text_decoder": {"models": models}}}
    with pytest.warns(sp.StockpotWarning, match="in no module of the recipe"):
        got = merged(recipe, tmp_path / "out")
    assert set(got) == set(held)
    for name in VISION:
        np.testing.assert_array_equal(got[name], held[name])


def test_slices_of_a_model_with_two_stacks_need_modules(tmp_path: Path) -> None:
    two_towers(tmp_path / "a", TEXT, VISION, 0)
    with pytest.raises(sp.RecipeError, match="use 'modules'"):
        sp.plan({"merge_method": "passthrough", "slices": [sources(tmp_path, ("a", 0, 2))]})
    modules = {"audio_tower": {"models": [str(tmp_path / "a")]}}
    with pytest.raises(sp.RecipeError, match="visual"):
        sp.plan({"merge_method": "linear", "modules": modules})


def test_a_list_inside_a_part_is_no_part(tmp_path: Path) -> None:
    """Three mergers with two tensors each look like layers, but the config states no such count."""
    mergers = [f"model.visual.deepstack_merger_list.{i}.{part}.weight" for i in range(4) for part in ("fc1", "fc2")]
    held = two_towers(tmp_path / "a", TEXT, [*VISION, *mergers], 0)
    slices = [sources(tmp_path, ("a", 1, 2))]
    modules = {"language_model": {"models": [str(tmp_path / "a")]}, "vision_tower": {"slices": slices}}
    modules["multi_modal_projector"] = {"models": [str(tmp_path / "a")]}
    plan = sp.plan({"merge_method": "passthrough", "modules": modules})
    names = {tensor["name"] for tensor in plan.tensors}
    assert names == set(held) - {name for name in VISION if ".1." in name}
    assert plan.warnings == []


def test_a_model_may_stand_twice_in_a_slice(tmp_path: Path, three: dict[str, dict[str, np.ndarray]]) -> None:
    """Each entry has its own layers and its own parameters."""
    slice_ = sources(tmp_path, ("a", 0, 2), ("a", 2, 4))
    for source, weight in zip(slice_["sources"], (0.25, 0.5), strict=True):
        source["parameters"] = {"weight": weight}
    got = merged({"merge_method": "linear", "slices": [slice_], "parameters": {"normalize": False}}, tmp_path / "out")
    first, second = (three["a"][f"model.layers.{layer}.mlp.down_proj.weight"].astype(np.float64) for layer in (1, 3))
    want = 0.25 * first + 0.5 * second
    np.testing.assert_array_equal(got["model.layers.1.mlp.down_proj.weight"], want.astype(np.float32))


@pytest.mark.parametrize("method", ["ties", "model_stock", "iso_c", "tall_mask"])
def test_methods_with_task_vectors_take_slices(tmp_path: Path, three: Any, method: str) -> None:
    """The same layers of all models, one after another, give what the whole models give."""
    models = [{"model": str(tmp_path / name)} for name in "bc"]
    whole = {"merge_method": method, "base_model": str(tmp_path / "a"), "models": models}
    slices = [sources(tmp_path, ("a", 0, 1), ("b", 0, 1), ("c", 0, 1)), sources(tmp_path, ("b", 1, 4), ("c", 1, 4))]
    sliced = {"merge_method": method, "base_model": str(tmp_path / "a"), "slices": slices}
    sp.merge(whole, tmp_path / "whole", progress=False)
    sp.merge(sliced, tmp_path / "sliced", progress=False)
    paths = [tmp_path / name / ("merged" if method == "tall_mask" else "") for name in ("whole", "sliced")]
    one, other = (read_safetensors(path / "model.safetensors") for path in paths)
    assert set(one) == set(other)
    for name, want in one.items():
        np.testing.assert_array_equal(other[name], want, err_msg=name)


@pytest.mark.parametrize("name", ["default", "text_decoder", "anything"])
def test_the_only_module_may_have_any_name(tmp_path: Path, three: Any, name: str) -> None:
    models = [str(tmp_path / "a"), str(tmp_path / "b")]
    alone = sp.plan({"merge_method": "linear", "models": models})
    module = sp.plan({"merge_method": "linear", "modules": {name: {"models": models}}})
    assert module.tensors == alone.tensors


# ---- What is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slices": [{"sources": []}]}, "no 'sources'"),
        ({"slices": [{"sources": [{"model": "a"}]}]}, "no 'layer_range'"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [3, 1]}]}]}, "after its end"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [0, 9]}]}]}, "which has 4 layers"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [2, 2]}]}]}, "no layers"),
        (
            {
                "slices": [
                    {"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 3]}]},
                ]
            },
            "equal length",
        ),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}]}], "models": ["a"]}, "exactly one"),
        ({"modules": {"x": {}}}, "either of models or of slices"),
        ({"models": ["a"], "parameters": {"scale": []}}, "empty list"),
        ({"models": ["a"], "parameters": {"scale": [{"filter": "mlp", "value": []}]}}, "empty list"),
    ],
)
def test_what_is_refused(in_tmp: Path, changes: dict[str, Any], sentence: str) -> None:
    llama(Path("a"), 4, 0)
    llama(Path("b"), 4, 1)
    with pytest.raises(sp.RecipeError, match=sentence):
        sp.plan({"merge_method": "passthrough", **changes})


def test_notes(in_tmp: Path) -> None:
    """What has no effect is accepted and told, or refused by strict."""
    llama(Path("a"), 4, 0)
    slices = [{"sources": [{"model": "a", "layer_range": [0, 2]}], "residual_weight": 0.1}]
    recipe: dict[str, Any] = {"merge_method": "passthrough", "slices": slices}
    assert any("residual_weight" in warning for warning in sp.plan(recipe, strict=True).warnings)
    slices[0]["sources"][0]["layer_rnage"] = [0, 1]
    assert any("did you mean 'layer_range'" in warning for warning in sp.plan(recipe).warnings)
    with pytest.raises(sp.RecipeError, match="layer_rnage"):
        sp.plan(recipe, strict=True)


def test_other_names_of_layers(tmp_path: Path) -> None:
    """Stacks are told by the numbers in names, not by a table: gpt-neox, gpt-2, and experts inside layers."""
    rng = np.random.default_rng(0)
    for stack, inner in (
        ("gpt_neox.layers", "attention.dense"),
        ("h", "attn.c_proj"),
        ("model.layers", "mlp.experts.7.w1"),
    ):
        names = ["embed_in.weight", "embed_out.weight"]
        names += [f"{stack}.{i}.{part}.weight" for i in range(3) for part in (inner, "norm")]
        path = tmp_path / stack
        write_folder(path, {name: rng.standard_normal(3).astype(np.float32) for name in names}, n_layer=3)
        plan = sp.plan({"merge_method": "passthrough", "slices": [sources(tmp_path, (stack, 1, 3))]})
        found = {tensor["name"] for tensor in plan.tensors}
        assert found == set(names[:2]) | {f"{stack}.{i}.{part}.weight" for i in range(2) for part in (inner, "norm")}
        assert plan["stacks"][0]["name"] == stack
