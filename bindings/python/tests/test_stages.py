"""Recipes of several documents: their order, what is made again, where intermediates lie, and plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import stockpot as sp
from checkpoint_files import Models, read_safetensors
from stockpot.cli import main
from stockpot.recipes import load_recipe


def two_stages(models: Models) -> str:
    """A recipe whose last document, which comes first, needs two others, one of which needs the other."""
    first, second, third = models.models
    return f"""\
merge_method: linear
models:
  - model: second
    parameters: {{weight: 3}}
  - model: {third}
dtype: float32
---
name: second
merge_method: linear
models: [first, {second}]
parameters: {{normalize: false}}
---
name: first
merge_method: linear
models: [{first}]
parameters: {{weight: 2, normalize: false}}
"""


def expected(models: Models, name: str) -> np.ndarray:
    a, b, c = (tensors[name].astype(np.float64) for tensors in models.tensors[1:])
    return (3 * (2 * a + b) + c) / 4


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_stages_feed_one_another(models: Models, tmp_path: Path) -> None:
    seen: list[str] = []
    result = sp.merge(two_stages(models), tmp_path / "out", progress=lambda state: seen.append(state.phase))
    got = read_safetensors(tmp_path / "out" / "model.safetensors")
    for name in ("a.weight", "a.bias", "scale"):
        want = expected(models, name)
        # Each stage rounds once to binary32.
        np.testing.assert_allclose(got[name], want, rtol=0, atol=3 * 2.0**-24 * np.abs(want).max() * 4)
    assert seen.count("done") == 3
    assert result.path == tmp_path / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "out"], "intermediates are removed at the end"


def test_the_order_is_that_of_the_names(models: Models) -> None:
    recipe = load_recipe(two_stages(models))
    assert [stage.value["name"] for stage in recipe.stages] == ["first", "second"]
    assert "name" not in recipe.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{merge_method: x, models: [a]}\n---\n{merge_method: x, models: [b]}\n", "2 documents have no 'name'"),
        ("{name: a, models: [x]}\n---\n{name: a, models: [y]}\n", "two documents are called 'a'"),
        ("{name: a, models: [b]}\n---\n{name: b, models: [a]}\n---\n{models: [a]}\n", "circle.*a -> b -> a"),
        ("{name: a, models: [x]}\n---\n{name: b, models: [y]}\n", "which document is the last"),
        ("{name: ../a, models: [x]}\n---\n{models: [y]}\n", "a name that a folder may have"),
        ("{name: a, base_model: a}\n---\n{models: [a]}\n", "circle"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(sp.RecipeError, match=words):
        load_recipe(text)


def test_the_last_document_may_have_a_name(models: Models) -> None:
    recipe = load_recipe(
        f"{{name: end, models: [x], merge_method: linear}}\n---\n{{name: x, models: [{models.base}]}}\n"
    )
    assert recipe.value["name"] == "end"
    assert [stage.value["name"] for stage in recipe.stages] == ["x"]


def test_what_is_there_and_the_same_is_not_made_again(models: Models, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(two_stages(models))
    stages = tmp_path / "stages"
    result = run("merge", recipe, tmp_path / "out", "--intermediate-dir", stages)
    assert result.exit_code == 0, result.output
    assert "stage 1 of 3: first" in result.output
    assert "stage 3 of 3" in result.output
    stamps = {name: (stages / name / "model.safetensors").stat().st_mtime_ns for name in ("first", "second")}
    result = run("merge", recipe, tmp_path / "again", "--intermediate-dir", stages)
    assert "stage 1 of 3: first is there already" in result.output
    assert "stage 2 of 3: second is there already" in result.output
    assert stamps == {name: (stages / name / "model.safetensors").stat().st_mtime_ns for name in stamps}
    # Another parameter of the second: that one is made again, and the first is not.
    recipe.write_text(two_stages(models).replace("normalize: false", "normalize: true", 1))
    result = run("merge", recipe, tmp_path / "third", "--intermediate-dir", stages)
    assert "stage 1 of 3: first is there already" in result.output
    assert "second is there" not in result.output
    # Another input of the first: nothing stays.
    file = models.models[0] / "model.safetensors"
    file.write_bytes(file.read_bytes())
    result = run("merge", recipe, tmp_path / "fourth", "--intermediate-dir", stages)
    assert "is there already" not in result.output
    assert result.exit_code == 0, result.output


def test_a_failure_leaves_finished_stages(models: Models, tmp_path: Path) -> None:
    bad = two_stages(models).replace("merge_method: linear", "merge_method: slerp\nparameters: {t: 9}", 1)
    with pytest.raises(sp.ParameterError):
        sp.merge(bad, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.stages" / "second" / "model.safetensors").is_file()
    sp.merge(two_stages(models), tmp_path / "out", progress=False)
    assert not (tmp_path / "out.stages").exists()


def test_an_existing_output_is_refused_before_any_stage(models: Models, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(sp.OutputExistsError):
        sp.merge(two_stages(models), tmp_path / "out", progress=False)
    assert not (tmp_path / "out.stages").exists()


def test_the_plan_shows_all_stages_without_making_one(models: Models, tmp_path: Path) -> None:
    plan = sp.plan(two_stages(models), tmp_path / "out")
    assert [stage["name"] for stage in plan.stages] == ["first", "second"]
    assert [each["path"] for each in plan.inputs] == [str(tmp_path / "out.stages" / "second"), str(models.models[2])]
    assert plan.stages[1].inputs[0]["path"] == str(tmp_path / "out.stages" / "first")
    assert plan.stages[1].output == tmp_path / "out.stages" / "second"
    assert not (tmp_path / "out.stages").exists()
    text = run("plan", write(tmp_path, two_stages(models))).output
    assert "stage first" in text
    assert "stage second" in text
    assert "last stage" in text
    found = json.loads(run("merge", tmp_path / "recipe.yaml", "--dry-run", "--json").output)
    assert [stage["name"] for stage in found["stages"]] == ["first", "second"]


def test_restacked_stages_are_planned(tmp_path: Path) -> None:
    """A later stage takes layers that only the earlier one makes."""
    from test_composition import llama

    llama(tmp_path / "a", 3, 0)
    recipe = {
        "deep": {"merge_method": "passthrough", "name": "deep"},
        "last": {"merge_method": "passthrough"},
    }
    source = {"model": str(tmp_path / "a"), "layer_range": [0, 3]}
    recipe["deep"]["slices"] = [{"sources": [source]}, {"sources": [source]}]  # type: ignore[assignment]
    recipe["last"]["slices"] = [{"sources": [{"model": "deep", "layer_range": [2, 6]}]}]  # type: ignore[assignment]
    text = "\n---\n".join(json.dumps(document) for document in recipe.values())
    plan = sp.plan(text)
    assert plan["stacks"][0]["layers"] == 4
    assert plan.warnings == []
    sp.merge(text, tmp_path / "out", progress=False)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4


def test_a_seed_is_given_to_all_stages(models: Models, tmp_path: Path) -> None:
    stages = tmp_path / "stages"
    recipe = write(tmp_path, two_stages(models))
    result = run("merge", recipe, tmp_path / "out", "--random-seed", 5, "--intermediate-dir", stages)
    assert result.exit_code == 0, result.output
    for folder in (stages / "first", stages / "second", tmp_path / "out"):
        assert json.loads((folder / "merge_report.json").read_text())["recipe"]["random_seed"] == 5


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path
