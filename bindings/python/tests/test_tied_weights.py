"""Heads tied to embeddings, embeddings of unequal height, and what becomes of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder

pytestmark = pytest.mark.usefixtures("library")

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write(path: Path, seed: int, *, head: bool, rows: int = 10, bias: bool = False, **config: Any) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {EMBED: rng.standard_normal((rows, 4)).astype(np.float32), "model.norm.weight": np.ones(4, np.float32)}
    if head:
        tensors[HEAD] = rng.standard_normal((rows, 4)).astype(np.float32)
    if bias:
        tensors["lm_head.bias"] = rng.standard_normal(rows).astype(np.float32)
    return write_folder(path, tensors, vocab_size=rows, **config)


def recipe(*paths: Path, **top: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [str(path) for path in paths], **top}


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    return read_safetensors(path / "model.safetensors")


def config_of(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_mergekit_424_tied_models_merge(tmp_path: Path, method: str) -> None:
    """Also 350, 615 and 464: "lm_head.weight required but not present"."""
    paths = [write(tmp_path / name, seed, head=False, tie_word_embeddings=True) for seed, name in enumerate("xab")]
    value = recipe(*paths[1:], merge_method=method, base_model=str(paths[0]))
    result = sp.merge(value, tmp_path / "out", progress=False)
    assert set(tensors_of(tmp_path / "out")) == {EMBED, "model.norm.weight"}
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert result.plan.warnings == []


@pytest.mark.parametrize("extras", ["drop", "keep"])
def test_mergekit_390_a_tie_gets_no_second_copy(tmp_path: Path, extras: str) -> None:
    """Also 632: a merged Gemma with a head written beside its tie."""
    base = write(tmp_path / "base", 0, head=False, tie_word_embeddings=True)
    untied = write(tmp_path / "untied", 1, head=True, tie_word_embeddings=False)
    value = recipe(untied, untied, merge_method="task_arithmetic", base_model=str(base), extras=extras)
    plan = sp.plan(value)
    assert HEAD not in {tensor["name"] for tensor in plan.tensors}
    assert sum("ties its head to its embedding: it is left out" in warning for warning in plan.warnings) == 2
    assert not any("extras: keep would" in warning for warning in plan.warnings)
    sp.merge(value, tmp_path / "out", progress=False)
    assert set(tensors_of(tmp_path / "out")) == {EMBED, "model.norm.weight"}
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True


@pytest.mark.parametrize("config", [{"tie_word_embeddings": True}, {}, {"text_config": {"tie_word_embeddings": True}}])
def test_a_tied_model_gives_its_embedding_as_head(tmp_path: Path, config: dict[str, Any]) -> None:
    untied = write(tmp_path / "untied", 1, head=True, tie_word_embeddings=False)
    tied = write(tmp_path / "tied", 2, head=False, **config)
    result = sp.merge(recipe(untied, tied), tmp_path / "out", progress=False)
    merged = tensors_of(tmp_path / "out")
    one, other = tensors_of(untied), tensors_of(tied)
    np.testing.assert_allclose(merged[HEAD], (one[HEAD] + other[EMBED]) / 2, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(merged[EMBED], (one[EMBED] + other[EMBED]) / 2, rtol=1e-6, atol=1e-7)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert any("its head is tied to 'model.embed_tokens.weight'" in warning for warning in result.plan.warnings)


def test_a_head_that_is_lost_is_no_tie(tmp_path: Path) -> None:
    untied = write(tmp_path / "untied", 1, head=True)
    broken = write(tmp_path / "broken", 2, head=False, tie_word_embeddings=False)
    with pytest.raises(sp.MissingTensorError, match=r"lm_head\.weight.*is missing in .*broken"):
        sp.plan(recipe(untied, broken))


def test_a_tie_and_a_vocabulary(tmp_path: Path) -> None:
    untied = write(tmp_path / "untied", 1, head=True, rows=10)
    tied = write(tmp_path / "tied", 2, head=False, rows=8, tie_word_embeddings=True)
    fill = [{"row": 8, "count": 2, "from": [[str(untied), 8]]}]
    value = recipe(untied, tied, vocabulary={"size": 10, "rows": {str(tied): [[0, 0, 8]]}, "fill": fill})
    sp.merge(value, tmp_path / "out", progress=False)
    merged, one, other = tensors_of(tmp_path / "out"), tensors_of(untied), tensors_of(tied)
    np.testing.assert_allclose(merged[HEAD][:8], (one[HEAD][:8] + other[EMBED]) / 2, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(merged[HEAD][8:], one[HEAD][8:], rtol=1e-6)


# Unequal heights without a tokenizer section


def test_mergekit_47_unequal_vocabularies_are_refused_with_the_remedies(tmp_path: Path) -> None:
    """Also 139, 342 and fusion_bench 104: a crash, or garbage."""
    paths = [write(tmp_path / name, seed, head=True, rows=rows) for name, seed, rows in (("a", 1, 10), ("b", 2, 8))]
    with pytest.raises(sp.ShapeError, match=r"tokenizer_source: union .* or on_shape_mismatch: crop"):
        sp.plan(recipe(*paths))


@pytest.mark.parametrize("top", [{"on_shape_mismatch": "crop"}, {"compat": "mergekit"}])
def test_crop_keeps_the_common_rows_and_says_so(tmp_path: Path, top: dict[str, Any]) -> None:
    paths = [
        write(tmp_path / name, seed, head=True, rows=rows, bias=True)
        for name, seed, rows in (("a", 1, 10), ("b", 2, 8))
    ]
    result = sp.merge(recipe(*paths, **top), tmp_path / "out", progress=False)
    merged, one, other = (tensors_of(path) for path in (tmp_path / "out", *paths))
    for name in (EMBED, HEAD, "lm_head.bias"):
        np.testing.assert_allclose(merged[name], (one[name][:8] + other[name]) / 2, rtol=1e-6, atol=1e-7)
    assert config_of(tmp_path / "out")["vocab_size"] == 8
    assert any("cropped to [8, 4]" in warning for warning in result.plan.warnings)


def test_a_crop_of_the_other_model_leaves_the_config(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, seed, head=True, rows=rows) for name, seed, rows in (("a", 1, 8), ("b", 2, 10))]
    sp.merge(recipe(*paths, on_shape_mismatch="crop"), tmp_path / "out", progress=False)
    assert config_of(tmp_path / "out")["vocab_size"] == 8
    assert tensors_of(tmp_path / "out")[EMBED].shape == (8, 4)
