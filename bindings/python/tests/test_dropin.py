"""The seed tools' own entry points, called as their documentation calls them."""

from __future__ import annotations

import csv
import inspect
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import Models, read_safetensors, write_folder
from stockpot import dropin
from stockpot.dropin import ModelStock, compute_angle, compute_ratio, merge_models_yoyo_scale, merge_weights, run_merge

EPS = 1e-8


def signature(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


def test_signatures_are_the_originals() -> None:
    empty = inspect.Parameter.empty
    assert signature(merge_models_yoyo_scale) == [
        ("model_paths", empty),
        ("base_path", empty),
        ("output_path", empty),
        ("config_source_index", 0),
    ]
    assert signature(run_merge) == [
        ("model_paths", empty),
        ("output_dir", empty),
        ("anchor_index", 0),
        ("config_dir", 1),
        ("use_k_minus_one_truncation", True),
        ("use_geometric_median", False),
    ]
    assert [name for name, _ in signature(compute_angle)] == [
        *("state_dict_1", "state_dict_2", "ref_state_dict", "ignore_keys", "return_cos"),
    ]
    assert signature(compute_ratio) == [("angle_dict", empty), ("k", 2)]
    assert [name for name, _ in signature(merge_weights)] == ["w1", "w2", "w0", "ratio"]
    assert [name for name, _ in signature(ModelStock)] == ["ignore_keys", "model_save_path", "model_save_kwargs"]


# YOYO Scale and YOYO-Fusion


def test_yoyo_scale(library: Any, models: Models, tmp_path: Path) -> None:
    output = tmp_path / "merged"
    merge_models_yoyo_scale(
        model_paths=[str(path) for path in models.models],
        base_path=str(models.base),
        output_path=str(output),
        config_source_index=0,
    )
    merged = read_safetensors(output / "model.safetensors")
    for name, array in merged.items():
        tensors = [t[name] for t in models.tensors]
        if array.dtype == np.int64:
            continue
        assert array.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(array, sp.yoyo_scale(tensors[1:], tensors[0], dtype="bf16"))
    rows = list(csv.reader((output / "yoyo_scale.csv").open()))
    assert rows[0] == ["tensor_name", "model_0_lambda", "model_1_lambda", "model_2_lambda"]
    assert {row[0] for row in rows[1:]} == set(models.tensors[0])
    assert (output / "tokenizer.json").exists()
    assert json.loads((output / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_yoyo_scale_takes_config_of_a_model(library: Any, models: Models, tmp_path: Path) -> None:
    (models.models[1] / "config.json").write_text('{"model_type": "second"}')
    merge_models_yoyo_scale(models.models, models.base, tmp_path / "out", 2)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "second"


def test_yoyo_scale_copies_what_does_not_fit(library: Any, models: Models, tmp_path: Path) -> None:
    write_folder(models.models[0], {**models.tensors[1], "a.weight": np.zeros((2, 2), np.float32)})
    with pytest.warns(sp.StockpotWarning, match=r"a\.weight"):
        merge_models_yoyo_scale(models.models, models.base, tmp_path / "out")
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")["a.weight"]
    np.testing.assert_array_equal(merged, models.tensors[0]["a.weight"].astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("geometric", [False, True])
@pytest.mark.parametrize("anchor", [0, 2])
def test_yoyo_fusion(library: Any, models: Models, tmp_path: Path, geometric: bool, anchor: int) -> None:
    (models.models[2] / "config.json").write_text('{"model_type": "third"}')
    run_merge(
        model_paths=models.models,
        output_dir=tmp_path / "merged",
        anchor_index=anchor,
        config_dir=3,
        use_k_minus_one_truncation=True,
        use_geometric_median=geometric,
    )
    merged = read_safetensors(tmp_path / "merged" / "model.safetensors")
    tensors = [t["a.weight"] for t in models.tensors[1:]]
    alone = sp.yoyo_fusion(
        tensors, anchor_index=anchor, use_k_minus_one_truncation=True, use_geometric_median=geometric, dtype="bf16"
    )
    np.testing.assert_array_equal(merged["a.weight"], alone)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "third"


def test_existing_folders_are_replaced_after_success_only(library: Any, models: Models, tmp_path: Path) -> None:
    output = tmp_path / "merged"
    run_merge(models.models, output)
    first = (output / "model.safetensors").read_bytes()
    with pytest.raises(sp.NotFoundError):
        run_merge([*models.models, tmp_path / "nothing"], output)
    assert (output / "model.safetensors").read_bytes() == first
    merge_models_yoyo_scale(models.models, models.base, output)
    assert (output / "model.safetensors").read_bytes() != first


def test_index_errors(tmp_path: Path) -> None:
    for call in (
        lambda: merge_models_yoyo_scale(["a", "b"], "base", tmp_path / "out", 3),
        lambda: merge_models_yoyo_scale(["a", "b"], "base", tmp_path / "out", -1),
        lambda: merge_models_yoyo_scale([], "base", tmp_path / "out"),
        lambda: merge_models_yoyo_scale("a", "base", tmp_path / "out"),
        lambda: run_merge(["a"], tmp_path / "out"),
        lambda: run_merge(["a", "b"], tmp_path / "out", anchor_index=3),
        lambda: run_merge(["a", "b"], tmp_path / "out", config_dir=0),
    ):
        with pytest.raises(sp.ArgumentError):
            call()


# Model Stock


def states(count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    base = {"w": rng.standard_normal((4, 6)), "b": rng.standard_normal(5), "same": np.ones(3), "ids": np.arange(4)}
    models = [
        {
            "w": base["w"] + rng.standard_normal((4, 6)) + 0.5,
            "b": base["b"] + rng.standard_normal(5) + 0.5,
            "same": np.ones(3),
            "ids": np.arange(4),
        }
        for _ in range(count)
    ]
    return [base, *models]


def seed_angle(one: np.ndarray, two: np.ndarray, base: np.ndarray) -> float:
    """The seed page's compute_angle, for one tensor."""
    a, b = (one - base).ravel(), (two - base).ravel()
    return float(np.arccos(np.clip((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + EPS), -1, 1)))


def seed_ratio(angle: float, k: int) -> float:
    return k * np.cos(angle) / ((k - 1) * np.cos(angle) + 1 + EPS)


def test_compute_angle(library: Any) -> None:
    base, one, two = states(2)
    angles = compute_angle(one, two, base)
    assert set(angles) == {"w", "b", "same"}
    for name in ("w", "b"):
        assert angles[name] == pytest.approx(seed_angle(one[name], two[name], base[name]), rel=1e-12)
    assert angles["same"] == pytest.approx(np.pi / 2)
    found = compute_angle(one, two, base, return_cos=True)
    assert found["w"] == pytest.approx(np.cos(angles["w"]), rel=1e-12)
    assert set(compute_angle(one, two, base, ignore_keys=["w", "same"])) == {"b"}


def test_compute_angle_skips_shapes_with_a_warning(library: Any) -> None:
    base, one, two = states(2)
    two["w"] = two["w"][:2]
    with pytest.warns(sp.StockpotWarning, match=r"w has shapes \[4, 6\] and \[2, 6\]: it is skipped"):
        angles = compute_angle(one, two, base)
    assert set(angles) == {"b", "same"}


def test_compute_angle_misses_a_tensor(library: Any) -> None:
    base, one, two = states(2)
    del two["w"]
    with pytest.raises(KeyError, match="state_dict_2 has no tensor 'w'"):
        compute_angle(one, two, base)


def test_compute_ratio() -> None:
    angles = {"a": 0.0, "b": np.pi / 2, "c": 1.0}
    for k in (2, 5):
        found = compute_ratio(angles, k=k)
        for name, angle in angles.items():
            assert found[name] == pytest.approx(seed_ratio(angle, k), rel=1e-14)
    assert compute_ratio({"a": 0.0})["a"] == pytest.approx(1)


def test_the_two_model_pipeline(library: Any) -> None:
    base, one, two = states(2)
    ratio = compute_ratio(compute_angle(one, two, base, ignore_keys=["b"]))
    merged = merge_weights(one, two, base, ratio)
    assert set(merged) == set(base)
    t = seed_ratio(seed_angle(one["w"], two["w"], base["w"]), 2)
    np.testing.assert_allclose(merged["w"], t * (one["w"] + two["w"]) / 2 + (1 - t) * base["w"], rtol=1e-12)
    np.testing.assert_allclose(merged["b"], (one["b"] + two["b"]) / 2, rtol=1e-14)
    np.testing.assert_array_equal(merged["ids"], base["ids"])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_model_stock(library: Any, count: int) -> None:
    base, *models = states(count)
    pool = {"_pretrained_": base, **{f"model-{i}": model for i, model in enumerate(models)}}
    merged = ModelStock(ignore_keys=["b"]).run(pool)
    assert list(merged) == list(base)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    angle = np.mean([seed_angle(models[i]["w"], models[j]["w"], base["w"]) for i, j in pairs])
    t = seed_ratio(float(angle), count)
    mean = np.mean([model["w"] for model in models], axis=0)
    np.testing.assert_allclose(merged["w"], t * mean + (1 - t) * base["w"], rtol=1e-7)
    np.testing.assert_allclose(merged["b"], np.mean([model["b"] for model in models], axis=0), rtol=1e-13)
    np.testing.assert_array_equal(merged["same"], base["same"])
    np.testing.assert_array_equal(merged["ids"], base["ids"])


def test_model_stock_with_other_shapes(library: Any) -> None:
    base, *models = states(2)
    for model in models:
        model["w"] = model["w"][:2]
    models[1]["b"] = models[1]["b"][:2]
    pool = {"_pretrained_": base, "one": models[0], "two": models[1]}
    with pytest.warns(sp.StockpotWarning) as caught:
        merged = ModelStock().run(pool)
    assert len(caught) == 2
    np.testing.assert_allclose(merged["w"], (models[0]["w"] + models[1]["w"]) / 2, rtol=1e-14)
    np.testing.assert_array_equal(merged["b"], base["b"])


def test_model_stock_of_paths_saves(library: Any, models: Models, tmp_path: Path) -> None:
    pool: dict[str, Any] = {"_pretrained_": models.base, "one": str(models.models[0]), "two": sp.open(models.models[1])}
    folder = tmp_path / "deep" / "merged"
    merged = ModelStock(model_save_path=folder, model_save_kwargs={"metadata": {"note": "x"}}).run(pool)
    saved = read_safetensors(folder / "model.safetensors")
    assert set(saved) == set(merged) == set(models.tensors[0])
    for name, array in saved.items():
        np.testing.assert_array_equal(array, merged[name])
    again = ModelStock(model_save_path=folder).run(pool)
    assert set(again) == set(merged)


def test_model_stock_refuses(library: Any) -> None:
    base, one, two = states(2)
    with pytest.raises(ValueError, match="_pretrained_"):
        ModelStock().run({"one": one, "two": two})
    with pytest.raises(ValueError, match="two models or more; the pool has 1"):
        ModelStock().run({"_pretrained_": base, "one": one})
    del two["w"]
    with pytest.raises(KeyError, match="two has no tensor 'w'"):
        ModelStock().run({"_pretrained_": base, "one": one, "two": two})


def test_clip_keys() -> None:
    assert len(dropin.CLIP_IGNORE_KEYS) == 6
    assert "model.logit_scale" in dropin.CLIP_IGNORE_KEYS
