"""Complaints of users of other tools, each a test named after its thread, where no other file is about the same thing.

Others: test_tied_weights.py, test_vocabulary.py, test_side_files.py, test_slices.py, test_adapters.py, test_memory.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder

pytestmark = pytest.mark.usefixtures("library")

Arrays = dict[str, np.ndarray]


def folders(root: Path, models: list[Arrays]) -> list[str]:
    """Write each as a folder; their paths."""
    paths = []
    for number, tensors in enumerate(models):
        (root / f"m{number}").mkdir()
        paths.append(str(write_folder(root / f"m{number}", tensors)))
    return paths


def merged(root: Path, recipe: dict[str, object]) -> Arrays:
    """What a recipe gives."""
    sp.merge(recipe, root / "out", progress=False)
    return dict(read_safetensors(root / "out" / "model.safetensors"))


def random(shapes: dict[str, tuple[int, ...]], seed: int, dtype: type = np.float32) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.linear_attn.in_proj_qkvz.weight",  # arcee-ai/mergekit#696
        "model.layers.0.self_attn.q_norm.weight",  # arcee-ai/mergekit#569
        "model.visual.blocks.3.norm1.weight",
        "something.nobody.has.heard.of",
    ],
)
def test_mergekit_569_no_table_decides_which_tensors_there_are(tmp_path: Path, name: str) -> None:
    """Tensors that a table of architectures did not list were dropped without a word."""
    shapes = {name: (4, 6), "model.norm.weight": (6,)}
    paths = folders(tmp_path, [random(shapes, 1), random(shapes, 2)])
    out = merged(tmp_path, {"merge_method": "linear", "models": paths})
    assert set(out) == set(shapes)
    mean = (random(shapes, 1)[name].astype(np.float64) + random(shapes, 2)[name]) / 2
    assert np.array_equal(out[name], mean.astype(np.float32))


def test_mergekit_692_packed_experts_keep_their_names_and_layout(tmp_path: Path) -> None:
    """Experts came out in another layout, or merged with one another."""
    shapes = {"model.layers.0.mlp.experts.gate_up_proj": (3, 4, 10), "model.layers.0.mlp.experts.down_proj": (3, 5, 4)}
    models = [random(shapes, seed) for seed in (1, 2)]
    out = merged(tmp_path, {"merge_method": "linear", "models": folders(tmp_path, models)})
    for name, shape in shapes.items():
        assert out[name].shape == shape
        for expert in range(3):
            mean = (models[0][name][expert].astype(np.float64) + models[1][name][expert]) / 2
            assert np.array_equal(out[name][expert], mean.astype(np.float32))


@pytest.mark.parametrize("models", [2, 3, 5])
def test_mergekit_246_model_stock_of_more_than_two(tmp_path: Path, models: int) -> None:
    """The ratio was that of two models for any number: t = N c / (1 + (N - 1) c), c the mean cosine of all pairs."""
    rng = np.random.default_rng(3)
    base = rng.standard_normal((8, 16)).astype(np.float32)
    common = rng.standard_normal((8, 16))
    tuned = [(base + 0.1 * common + 0.1 * rng.standard_normal((8, 16))).astype(np.float32) for _ in range(models)]
    paths = folders(tmp_path, [{"w": base}, *({"w": each} for each in tuned)])
    out = merged(tmp_path, {"merge_method": "model_stock", "base_model": paths[0], "models": paths[1:]})
    deltas = [each.astype(np.float64) - base for each in tuned]
    cosines = [
        (deltas[i] * deltas[j]).sum() / np.sqrt((deltas[i] ** 2).sum() * (deltas[j] ** 2).sum())
        for i in range(models)
        for j in range(i)
    ]
    c = float(np.mean(cosines))
    t = models * c / (1 + (models - 1) * c)
    want = t * np.mean(tuned, axis=0, dtype=np.float64) + (1 - t) * base
    # One rounding to float32.
    assert np.abs(out["w"] - want).max() <= 2**-24 * np.abs(want).max() * 1.01


def test_mergekit_71_rows_of_nan_are_named_not_spread(tmp_path: Path) -> None:
    """Embeddings of unused tokens held NaN, which was found when the result was quantised."""
    models = [random({"model.embed_tokens.weight": (6, 4)}, seed) for seed in (1, 2)]
    models[1]["model.embed_tokens.weight"][5] = np.nan
    paths = folders(tmp_path, models)
    recipe: dict[str, object] = {"merge_method": "linear", "models": paths}
    with pytest.raises(sp.NonFiniteError, match=r"'model\.embed_tokens\.weight' of .*m1 has a NaN .* element 20"):
        merged(tmp_path, recipe)
    assert not (tmp_path / "out").exists()
    out = merged(tmp_path, {**recipe, "on_non_finite": "ignore"})["model.embed_tokens.weight"]
    assert np.isnan(out[5]).all()
    assert np.isfinite(out[:5]).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "model_stock", "iso_c"])
def test_mergekit_69_sixteen_bits_on_a_cpu(tmp_path: Path, method: str, dtype: type) -> None:
    """'not implemented for Half' on a CPU."""
    models = [random({"w": (12, 20)}, seed, dtype) for seed in range(3)]
    paths = folders(tmp_path, models)
    recipe: dict[str, object] = {"merge_method": method, "models": paths[1:]}
    if method == "slerp":
        recipe["parameters"] = {"t": 0.5}
    elif method != "linear":
        recipe["base_model"] = paths[0]
    out = merged(tmp_path, recipe)["w"]
    assert out.dtype == dtype
    assert np.isfinite(out.astype(np.float32)).all()
    assert not np.array_equal(out, models[0]["w"])


def test_mlx_743_every_file_says_its_format(tmp_path: Path) -> None:
    """Without {"format": "pt"} transformers refuses a file."""
    paths = folders(tmp_path, [random({"a": (8,), "b": (8,)}, seed) for seed in (1, 2)])
    sp.merge({"merge_method": "linear", "models": paths}, tmp_path / "out", progress=False, shard_size=32)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) == 2
    for shard in shards:
        raw = shard.read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        assert header["__metadata__"]["format"] == "pt"
