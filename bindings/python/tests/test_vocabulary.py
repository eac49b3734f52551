"""Embeddings whose rows are gathered: the recipe's `vocabulary`, given as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder
from stockpot._tables import plan_text

pytestmark = pytest.mark.usefixtures("library")

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WIDTH = 8


def tensors(rows: int, seed: int, dtype: Any = np.float32, width: int = WIDTH) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {EMBED: (rows, width), HEAD: (rows, width), "model.layers.0.mlp.weight": (width, width)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write(path: Path, rows: int, seed: int, dtype: Any = np.float32, **config: Any) -> Path:
    return write_folder(path, tensors(rows, seed, dtype), **{"vocab_size": rows, **config})


def recipe(paths: list[Path], vocabulary: dict[str, Any], method: str = "linear", **top: Any) -> dict[str, Any]:
    models = [{"model": str(path)} for path in paths]
    return {"merge_method": method, "models": models, "vocabulary": vocabulary, **top}


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "a", 10, 1), write(tmp_path / "b", 12, 2)]


def test_rows_are_own_filled_mean_zero_and_padding(two: list[Path], tmp_path: Path) -> None:
    a, b = (str(path) for path in two)
    vocabulary = {
        "size": 16,
        "padding": 2,
        "rows": {a: [[0, 2, 8], [8, 0, 2]], b: [[0, 0, 8], [10, 8, 1]]},
        "fill": [
            {"row": 8, "count": 2, "from": [[a, 3], [b, 10]]},
            {"row": 10, "from": [[b, 8]]},
            {"row": 11, "from": []},
            {"row": 12, "count": 2, "from": [[a, 8]]},
            {"row": 3, "from": [[b, 11]], "force": True},
        ],
    }
    sp.merge(recipe(two, vocabulary), tmp_path / "out", progress=False)
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")
    stored = [read_safetensors(path / "model.safetensors") for path in two]
    for name in (EMBED, HEAD):
        left, right = (each[name].astype(np.float64) for each in stored)
        mean = (left[3:5] + right[10:12]) / 2
        both = []
        for own, last in ((left, left[0:2]), (right, mean)):
            first = own[2:10] if own is left else own[0:8]
            eleventh = right[8:9]
            rows = np.concatenate([first, last, eleventh, np.zeros((1, WIDTH)), left[8:10]])
            rows[3] = right[11]
            both.append(np.concatenate([rows, np.repeat(rows.mean(0, keepdims=True), 2, 0)]))
        expected = (both[0] + both[1]) / 2
        assert merged[name].shape == (16, WIDTH)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        merged["model.layers.0.mlp.weight"], np.mean([t["model.layers.0.mlp.weight"] for t in stored], 0), rtol=1e-6
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 16


def test_a_row_that_is_taken_over_keeps_its_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "a", 300, 3, ml_dtypes.bfloat16)
    order = np.random.default_rng(0).permutation(300)
    rows = [[position, int(row), 1] for position, row in enumerate(order)]
    sp.merge(recipe([path], {"size": 300, "rows": {str(path): rows}}, "passthrough"), tmp_path / "out", progress=False)
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")
    stored = read_safetensors(path / "model.safetensors")
    for name in (EMBED, HEAD):
        np.testing.assert_array_equal(merged[name].view(np.uint16), stored[name][order].view(np.uint16))


def test_null_is_nothing(two: list[Path]) -> None:
    value = recipe(two, {"size": 10, "padding": None, "rows": None, "fill": None, "tensors": None, "files": None})
    assert sp.plan({**value, "tokenizer": None, "chat_template": None})["vocabulary"]["size"] == 10
    assert "vocabulary" not in sp.plan({**recipe(two[:1], {}), "vocabulary": None})


def test_models_that_are_not_named_keep_their_rows(two: list[Path], tmp_path: Path) -> None:
    sp.merge(recipe(two, {"size": 10}), tmp_path / "out", progress=False)
    stored = [read_safetensors(path / "model.safetensors")[EMBED][:10] for path in two]
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")[EMBED]
    np.testing.assert_allclose(merged, np.mean(stored, 0), rtol=1e-6)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "model_stock", "slerp"])
def test_a_gather_gives_what_a_model_with_those_rows_gives(tmp_path: Path, method: str) -> None:
    paths = [write(tmp_path / name, 40, seed) for seed, name in enumerate(("base", "a", "b"))]
    runs = [[0, 5, 30], [30, 0, 5]]
    there = []
    for path in paths:
        stored = read_safetensors(path / "model.safetensors")
        for name in (EMBED, HEAD):
            stored[name] = np.concatenate([stored[name][5:35], stored[name][0:5]])
        there.append(write_folder(tmp_path / f"{path.name}-moved", stored, vocab_size=35))
    top: dict[str, Any] = {"parameters": {"t": 0.3} if method == "slerp" else {}}
    first = 0 if method == "slerp" else 1
    if method == "slerp":
        paths, there = paths[:2], there[:2]
    vocabulary = {"size": 35, "rows": {str(path): runs for path in paths}}
    gathered = recipe(paths[first:], vocabulary, method, base_model=str(paths[0]), **top)
    moved = recipe(there[first:], {"size": 35}, method, base_model=str(there[0]), **top)
    sp.merge(gathered, tmp_path / "one", progress=False)
    sp.merge(moved, tmp_path / "two", progress=False)
    one, two = (read_safetensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_threads_and_memory_do_not_change_the_padding(tmp_path: Path) -> None:
    paths = [
        write_folder(tmp_path / name, tensors(3000, seed, ml_dtypes.bfloat16, 64), vocab_size=3000)
        for seed, name in enumerate("ab")
    ]
    vocabulary = {"size": 3100, "padding": 60, "fill": [{"row": 3000, "count": 40, "from": [[str(paths[0]), 7]]}]}
    outputs = []
    for name, options in (("one", {"threads": 1}), ("four", {"threads": 4, "max_memory": "2MiB"})):
        sp.merge(recipe(paths, vocabulary), tmp_path / name, progress=False, **options)
        outputs.append((tmp_path / name / "model.safetensors").read_bytes())
    assert outputs[0] == outputs[1]


def test_the_plan_says_what_is_reindexed(two: list[Path]) -> None:
    a, b = (str(path) for path in two)
    vocabulary = {"size": 12, "rows": {a: [[0, 0, 10]]}, "fill": [{"row": 10, "count": 2, "from": [[b, 10]]}]}
    plan = sp.plan(recipe(two, vocabulary))
    assert plan["vocabulary"] == {
        "size": 12,
        "padding": 0,
        "tensors": [HEAD, EMBED],
        "inputs": [
            {"path": a, "own": 10, "filled": 2, "zero": 0},
            {"path": b, "own": 12, "filled": 0, "zero": 0},
        ],
    }
    assert f"12 rows of {HEAD}, {EMBED}" in plan_text(plan)
    shapes = {tensor["name"]: tensor["shape"] for tensor in plan.tensors}
    assert shapes[EMBED] == shapes[HEAD] == [12, WIDTH]
    assert shapes["model.layers.0.mlp.weight"] == [WIDTH, WIDTH]


def test_embeddings_are_found_by_name_and_height(tmp_path: Path) -> None:
    def odd(rows: int) -> dict[str, np.ndarray]:
        extra = {
            "lm_head.bias": np.zeros(rows, np.float32),
            "vision.embeddings.weight": np.zeros((7, WIDTH), np.float32),
            "model.embed_positions.weight": np.zeros((9, WIDTH), np.float32),
            "model.mystery.weight": np.zeros((rows, WIDTH), np.float32),
        }
        return {**tensors(rows, 5), **extra}

    paths = [write_folder(tmp_path / name, odd(10)) for name in "ab"]
    plan = sp.plan(recipe(paths, {"size": 9}))
    assert sorted(plan["vocabulary"]["tensors"]) == ["lm_head.bias", HEAD, EMBED]
    text = " ".join(plan.warnings)
    assert "'vision.embeddings.weight' has 7 rows" in text
    assert "'model.mystery.weight' has as many rows" in text
    assert "states no vocab_size" in text
    named = sp.plan(recipe(paths, {"size": 9, "tensors": ["model.mystery.weight"]}))
    assert named["vocabulary"]["tensors"] == ["model.mystery.weight"]
    shapes = {tensor["name"]: tensor["shape"] for tensor in named.tensors}
    assert shapes["model.mystery.weight"] == [9, WIDTH]
    assert shapes[EMBED] == [10, WIDTH]


def test_a_nested_config_is_rewritten_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a", 10, 1)
    text = '{ "text_config": {"vocab_size" : 10, "n": 1.50}, "vision_config": {"vocab_size": 7} }'
    (path / "config.json").write_text(text)
    sp.merge(recipe([path], {"size": 8}, "passthrough"), tmp_path / "out", progress=False)
    expected = '{ "text_config": {"vocab_size" : 8, "n": 1.50}, "vision_config": {"vocab_size": 7} }'
    assert (tmp_path / "out" / "config.json").read_text() == expected


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"size": 0}, "vocabulary.size is 0"),
        ({}, "vocabulary.size is null"),
        ({"size": 10, "paddings": 1}, "unknown key 'paddings'"),
        ({"size": 10, "padding": 10}, "from 0 to 9"),
        ({"size": 11}, "row 10 of the vocabulary comes from nowhere in"),
        ({"size": 10, "rows": {"A": [[0, 1, 10]]}}, "takes row 10 of"),
        ({"size": 10, "rows": {"A": [[0, 0, 11]]}}, "the output's rows are 0 to 9"),
        ({"size": 10, "rows": {"A": [[0, 0, 6], [5, 6, 2]]}}, "output row 5 twice"),
        ({"size": 10, "rows": {"A": [[0, 0]]}}, "output row, stored row, count"),
        ({"size": 10, "rows": {"A": [[-1, 0, 1]]}}, "the output's rows are 0 to 9"),
        ({"size": 10, "rows": {"A": [[0, -1, 1]]}}, "whole numbers"),
        ({"size": 10, "rows": {"A": [[0, 0, 9223372036854775807]]}}, "the output's rows are 0 to 9"),
        ({"size": 10, "rows": {"nobody": [[0, 0, 1]]}}, "nobody, which is not one of the recipe's models"),
        ({"size": 10, "tensors": ["nothing"]}, "'nothing', which no input has"),
        ({"size": 11, "fill": [{"row": 10, "from": [["A", 10]]}]}, "row 10 of"),
        ({"size": 11, "fill": [{"row": 10, "from": [["nobody", 1]]}]}, "nobody, which is not one of"),
        ({"size": 11, "fill": [{"row": 11, "from": []}]}, "the output's rows are 0 to 10"),
        ({"size": 11, "fill": [{"row": 10}]}, "an empty list is zeros"),
        ({"size": 11, "fill": [{"row": 9, "count": 2, "from": []}, {"row": 10, "from": []}]}, "row 10 twice"),
        ({"size": 11, "fill": [{"row": 10, "from": [["A", -1]]}]}, "[model, row]"),
        ({"size": 11, "fill": [{"row": 10, "from": [], "why": 1}]}, "unknown key 'why'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    two: list[Path], vocabulary: dict[str, Any], words: str
) -> None:
    text = json.dumps(recipe([two[0], two[0]], vocabulary)).replace('"A"', json.dumps(str(two[0])))
    with pytest.raises(sp.RecipeError, match=words.replace("[", r"\[").replace("]", r"\]")):
        sp.plan(json.loads(text))


def test_models_of_another_width_are_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", 10, 1), write_folder(tmp_path / "b", tensors(10, 2, width=6), vocab_size=10)]
    with pytest.raises(sp.ShapeError):
        sp.plan(recipe(paths, {"size": 10}))


def test_a_task_vector_has_the_rows_of_its_base(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, 12, seed) for seed, name in enumerate(("base", "a"))]
    vector = {"merge_method": "task_arithmetic", "base_model": str(paths[0]), "models": [str(paths[1])]}
    sp.merge({**vector, "output": "task_vector"}, tmp_path / "vector", progress=False)
    moved = {"rows": {str(paths[0]): [[0, 2, 10]], str(tmp_path / "vector"): [[0, 2, 10]]}, "size": 10}
    added = {**vector, "models": [str(tmp_path / "vector")], "vocabulary": moved}
    sp.merge(added, tmp_path / "out", progress=False)
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")[EMBED]
    expected = read_safetensors(paths[1] / "model.safetensors")[EMBED][2:]
    # The differences, below 8, were rounded to binary32 once.
    np.testing.assert_allclose(merged, expected, rtol=2**-23, atol=8 * 2**-24)
