"""Recipes as text, files and mappings: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from stockpot.recipes import load_recipe, override, parse_yaml

TEXT = """\
# a comment that the model card keeps
merge_method: slerp
base_model: base
models:
  - model: a
  - model: b
    parameters: {weight: 1e-5}
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - value: .5
dtype: bfloat16
"""


def test_text_is_kept() -> None:
    recipe = load_recipe(TEXT)
    assert recipe.text == TEXT
    assert recipe.value["merge_method"] == "slerp"
    assert recipe.value["models"][1]["parameters"]["weight"] == 1e-5
    assert recipe.value["parameters"]["t"][0]["value"] == [0, 0.5, 1]


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".txt"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recipe{suffix}"
    path.write_text(TEXT)
    assert load_recipe(path).text == TEXT
    assert load_recipe(str(path)).text == TEXT


def test_json_is_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"merge_method": "linear", "models": [{"model": "a"}]}')
    assert load_recipe(path).value == {"merge_method": "linear", "models": [{"model": "a"}]}


def test_mappings() -> None:
    recipe = load_recipe(
        {"merge_method": "linear", "models": ({"model": Path("a")},), "parameters": {"t": np.float64(0.5)}}
    )
    assert recipe.value == {"merge_method": "linear", "models": [{"model": "a"}], "parameters": {"t": 0.5}}
    assert parse_yaml(recipe.text) == recipe.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("+.5", 0.5),
        ("1.", 1.0),
        (".5e-3", 0.0005),
        ("0.4", 0.4),
        ("7", 7),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("~", None),
        ("[.3, .7]", [0.3, 0.7]),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("v1.2.3", "v1.2.3"),
        ("model-1e5", "model-1e5"),
        ("'0.5'", "0.5"),
        ("/data/model", "/data/model"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("merge_method: a\nmerge_method: b\n", "line 2, column 1: the key 'merge_method' stands twice"),
        ("parameters:\n  t: 1\n  'w': 2\n  t: 3\n", "line 4, column 3: the key 't' stands twice"),
        ("models: [{model: a, model: b}]", "the key 'model' stands twice"),
        ("a: [1, 2", "not valid YAML at line"),
        ("a: b: c", "not valid YAML at line 1"),
        ("a: 1\n---\nb: 2\n", "2 documents have no 'name'"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
        ("- a\n- b\n", "is a list"),
        ("", "is empty"),
        ("parameters:\n  t: .nan\n", r"parameters\.t is nan"),
        ("models: !!set {a}\n", "set"),
        ("1: 2\n", "key 1"),
        ("on: 2\n", "key True"),
        ("a: \x07b", "not valid YAML"),
    ],
)
def test_what_is_no_recipe(text: str, words: str) -> None:
    with pytest.raises(sp.RecipeError, match=words):
        load_recipe(text)


def test_anchors_and_merge_keys() -> None:
    recipe = load_recipe("a: &x {t: 1, w: 2}\nb:\n  <<: *x\n  t: 3\n")
    assert recipe.value == {"a": {"t": 1, "w": 2}, "b": {"t": 3, "w": 2}}


def test_a_recipe_that_holds_itself() -> None:
    with pytest.raises(sp.RecipeError, match="holds itself"):
        load_recipe("a: &x\n  b: *x\n")


def test_no_such_file() -> None:
    with pytest.raises(sp.NotFoundError, match=r"there is no recipe nowhere/recipe\.yaml"):
        load_recipe("nowhere/recipe.yaml")
    with pytest.raises(sp.NotFoundError):
        load_recipe(Path("nowhere/recipe"))


def test_neither_file_nor_recipe() -> None:
    with pytest.raises(sp.RecipeError, match="neither a recipe file that exists nor a recipe"):
        load_recipe("recipe-without-suffix")


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"a: \xff\xfe\xfa")
    with pytest.raises(sp.RecipeError, match="not UTF-8"):
        load_recipe(path)
    with pytest.raises(sp.FileError, match="cannot be read"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("value", [5, None, [1], b"a: 1"])
def test_other_types(value: Any) -> None:
    with pytest.raises(sp.RecipeError, match="give a path, YAML text or a dict"):
        load_recipe(value)


def test_override() -> None:
    recipe = load_recipe(TEXT)
    changed = override(recipe, ["parameters.t=0.4", "models.1.parameters.weight=[1, 2]", "out_dtype=float16", "a.b=x"])
    assert changed.value["parameters"] == {"t": 0.4}
    assert changed.value["models"][1]["parameters"]["weight"] == [1, 2]
    assert changed.value["out_dtype"] == "float16"
    assert changed.value["a"] == {"b": "x"}
    assert parse_yaml(changed.text) == changed.value
    assert recipe.value["parameters"]["t"] != 0.4
    assert override(recipe, []) is recipe


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("parameters.t", "not an assignment"),
        ("=1", "not an assignment"),
        ("merge_method.x=1", "single value"),
        ("models.2=1", "not one of 0 to 1"),
        ("models.x=1", "not one of 0 to 1"),
        ("parameters.t=[", "not valid YAML"),
    ],
)
def test_override_refuses(assignment: str, words: str) -> None:
    with pytest.raises(sp.RecipeError, match=words):
        override(load_recipe(TEXT), [assignment])


@pytest.mark.parametrize(("method", "given"), [("nearswap", {"t": 0.1}), ("slerp", {"t": 0.5}), ("arcee_fusion", {})])
def test_a_base_among_the_models_is_the_base(method: str, given: dict[str, Any], tmp_path: Path) -> None:
    """As mergekit's examples write it, also for methods of a single model; nothing but the base is too little."""
    rng = np.random.default_rng(1)
    for name in ("base", "a", "b"):
        sp.save({"w": rng.standard_normal((4, 6)).astype(np.float32)}, tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("base", "a", "b")}
    recipe: dict[str, Any] = {"merge_method": method, "base_model": paths["base"], "parameters": given}
    for models, place in (([paths["base"], paths["a"]], "both"), ([paths["a"]], "one")):
        sp.merge({**recipe, "models": models}, tmp_path / place, progress=False)
    with sp.open(tmp_path / "both") as both, sp.open(tmp_path / "one") as one:
        assert np.array_equal(both["w"], one["w"])
    with pytest.raises(sp.MethodError):
        sp.plan({**recipe, "models": [paths["base"]]})
    with pytest.raises(sp.MethodError):
        sp.plan({**recipe, "models": [paths["base"], paths["a"], paths["b"]]})
