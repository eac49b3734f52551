"""TALL masks and corrections on disk, task models rebuilt from them, and stored task vectors applied later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from reference.arrays import BF16, F32, F64, AnyArray, read_checkpoint, same_bytes, unpack_bits, widen

Tensors = dict[str, AnyArray]

SHAPES = {"layers.0.weight": (40, 24), "layers.1.weight": (24, 40), "norm": (24,), "conv": (6, 3, 3, 3), "scale": ()}
MODELS = ("first", "second", "third")


@pytest.fixture(params=[F32, BF16], ids=str)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.dtype[Any]]:
    """A base and three models with integers among their tensors."""
    dtype = request.param
    rng = np.random.default_rng(11)
    base = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    base["ids"] = np.arange(5)
    sp.save(base, tmp_path / "base")
    for model in MODELS:
        changed = {name: (widen(base[name]) + 0.1 * rng.standard_normal(SHAPES[name])).astype(dtype) for name in SHAPES}
        sp.save({**changed, "ids": base["ids"]}, tmp_path / model)
    return tmp_path, dtype


def _merge(folder: Path, method: str, place: str, **more: Any) -> Path:
    parameters = more.pop("parameters", {})
    recipe = {
        "merge_method": method,
        "base_model": str(folder / "base"),
        "models": [str(folder / model) for model in more.pop("models", MODELS)],
        "parameters": parameters,
        **more,
    }
    sp.merge(recipe, folder / place, progress=False)
    return folder / place


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_tall_mask_round_trip(family: tuple[Path, np.dtype[Any]], scale: float) -> None:
    """A rebuilt model is base + mask * (merged - base) / lambda, rounded once; with lambda 1 it is made of copies."""
    folder, _ = family
    output = _merge(folder, "tall_mask", "out", parameters={"lambda": scale})
    base, merged = read_checkpoint(folder / "base"), read_checkpoint(output / "merged")
    for index, model in enumerate(MODELS):
        report = sp.reconstruct(output / "merged", output / "masks" / model, folder / f"re-{model}", progress=False)
        rebuilt, stored = read_checkpoint(folder / f"re-{model}"), read_checkpoint(output / "masks" / model)
        assert set(rebuilt) == set(merged)
        assert set(stored) == set(SHAPES)
        assert report["summary"]["rebuilt"] == len(SHAPES)
        assert report["summary"]["copied"] == 1
        assert report["summary"]["correction_bytes"] == sum(array.nbytes for array in stored.values())
        assert same_bytes(rebuilt["ids"], merged["ids"])
        task_models = [read_checkpoint(folder / name) for name in MODELS]
        for name, shape in SHAPES.items():
            mask = unpack_bits(stored[name], shape)
            expected = sp.tall_masks([each[name] for each in task_models], base[name], name=name)[index]
            assert np.array_equal(mask, expected)
            want = widen(base[name]) + mask * (widen(merged[name]) - widen(base[name])) / scale
            assert np.array_equal(widen(rebuilt[name]), widen(want.astype(base[name].dtype)))


def test_tall_mask_metadata(family: tuple[Path, np.dtype[Any]]) -> None:
    folder, _ = family
    output = _merge(folder, "tall_mask", "out")
    metadata = sp.open(output / "masks" / "second").metadata
    assert metadata["stockpot.format"] == "tall_mask"
    assert metadata["stockpot.version"] == "1"
    assert json.loads(metadata["stockpot.lambda"]) == 1.0
    assert metadata["stockpot.base"] == str(folder / "base")
    assert metadata["stockpot.model"] == str(folder / "second")


def test_base_can_be_named(family: tuple[Path, np.dtype[Any]]) -> None:
    folder, _ = family
    output = _merge(folder, "tall_mask", "out")
    (folder / "base").rename(folder / "moved")
    with pytest.raises(sp.NotFoundError, match="base"):
        sp.reconstruct(output / "merged", output / "masks" / "first", folder / "rebuilt", progress=False)
    sp.reconstruct(
        output / "merged", output / "masks" / "first", folder / "rebuilt", base=folder / "moved", progress=False
    )
    assert (folder / "rebuilt" / "model.safetensors").is_file()


@pytest.mark.parametrize("strategy", ["row", "global", "n:m"])
@pytest.mark.parametrize("sparsity", [0.1, 0.8])
def test_correction_round_trip(family: tuple[Path, np.dtype[Any]], strategy: str, sparsity: float) -> None:
    """What is rebuilt is merged + U V + S of the single-tensor tool; sizes are those that were planned."""
    folder, dtype = family
    chosen = {"sparsity": sparsity, "mask_strategy": strategy, "num_iters": 3}
    if strategy == "n:m":
        chosen |= {"prune_n": 2, "prune_m": 4}
    output = _merge(folder, "scale_svd", "out", parameters={"then": "extract", **chosen})
    assert not (output / "merged").exists()
    report = sp.reconstruct(folder / "base", output / "corrections" / "second", folder / "rebuilt", progress=False)
    stored, rebuilt = read_checkpoint(output / "corrections" / "second"), read_checkpoint(folder / "rebuilt")
    base, model = read_checkpoint(folder / "base"), read_checkpoint(folder / "second")
    assert report["summary"]["correction_bytes"] == sum(array.nbytes for array in stored.values())
    unit = 2.0**-24 if dtype == F32 else 2.0**-8
    for name, shape in SHAPES.items():
        delta = widen(model[name]) - widen(base[name])
        if len(shape) != 2:
            assert np.array_equal(widen(stored[f"{name}.difference"]), widen(delta.astype(dtype)))
            continue
        left, right, sparse = (np.asarray(part, np.float64) for part in sp.low_rank_plus_sparse(delta, **chosen))
        values = stored[f"{name}.sparse_values"]
        mask = unpack_bits(stored[f"{name}.sparse_mask"], shape)
        assert int(mask.sum()) == values.size
        assert np.all(mask[sparse != 0.0])
        # Factors and values are each rounded once into the stored type, and the sum once into the model's.
        size = np.abs(left) @ np.abs(right) + np.abs(sparse)
        bound = 4.0 * unit * (size + np.abs(widen(base[name])) + np.abs(delta))
        assert np.all(np.abs(widen(rebuilt[name]) - widen(base[name]) - left @ right - sparse) <= bound)


def test_correction_of_an_unchanged_model(family: tuple[Path, np.dtype[Any]]) -> None:
    """A model equal to the merged one has a correction of zeros, of full size, and comes back bit for bit."""
    folder, _ = family
    sp.save(read_checkpoint(folder / "base"), folder / "same")
    output = _merge(folder, "scale_svd", "out", models=["same"], parameters={"then": "extract"})
    sp.reconstruct(folder / "base", output / "corrections" / "same", folder / "rebuilt", progress=False)
    rebuilt = read_checkpoint(folder / "rebuilt")
    for name, array in read_checkpoint(folder / "base").items():
        assert same_bytes(rebuilt[name], array), name


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(family: tuple[Path, np.dtype[Any]], threads: int) -> None:
    folder, _ = family
    tall = _merge(folder, "tall_mask", "tall")
    low = _merge(folder, "scale_svd", "low", parameters={"then": "extract", "sparsity": 0.5})
    for number, (merged, correction) in enumerate(
        [(tall / "merged", tall / "masks" / "first"), (folder / "base", low / "corrections" / "first")]
    ):
        outputs = [folder / f"one-{number}.safetensors", folder / f"many-{number}.safetensors"]
        sp.reconstruct(merged, correction, outputs[0], threads=1, progress=False)
        sp.reconstruct(merged, correction, outputs[1], threads=threads, progress=False)
        assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_what_does_not_belong_together(family: tuple[Path, np.dtype[Any]]) -> None:
    folder, dtype = family
    output = _merge(folder, "tall_mask", "out")
    mask = output / "masks" / "first"
    with pytest.raises(sp.FormatError, match="no TALL mask"):
        sp.reconstruct(output / "merged", folder / "first", folder / "rebuilt", progress=False)
    sp.save({"other": np.zeros(3, dtype)}, folder / "other")
    with pytest.raises(sp.MissingTensorError, match="belong to none"):
        sp.reconstruct(folder / "other", mask, folder / "rebuilt", progress=False)
    changed = read_checkpoint(output / "merged")
    changed["norm"] = np.zeros(25, dtype)
    sp.save(changed, folder / "changed")
    with pytest.raises(sp.StockpotError, match="norm"):
        sp.reconstruct(folder / "changed", mask, folder / "rebuilt", progress=False)
    with pytest.raises(sp.OutputExistsError):
        sp.reconstruct(output / "merged", mask, folder / "base", progress=False)
    assert not (folder / "rebuilt").exists()
    assert not (folder / "rebuilt.partial").exists()


def test_command(family: tuple[Path, np.dtype[Any]]) -> None:
    folder, _ = family
    output = _merge(folder, "tall_mask", "out")
    command = [sys.executable, "-m", "stockpot", "reconstruct", output / "merged", output / "masks" / "third"]
    done = subprocess.run([*command, folder / "rebuilt"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 rebuilt, 1 copied" in done.stdout
    assert "times smaller" in done.stdout
    again = subprocess.run([*command, folder / "rebuilt"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    done = subprocess.run([*command, folder / "more", "--json"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["summary"]["rebuilt"] == 5


@pytest.mark.parametrize("method", ["ties", "iso_c", "tsvm", "model_stock"])
def test_stored_task_vector_is_applied_with_any_lambda(family: tuple[Path, np.dtype[Any]], method: str) -> None:
    """A grid over lambda needs the merge once: base + lambda * stored vector, to the rounding of the stored one."""
    folder, dtype = family
    _merge(folder, method, "vector", output="task_vector", dtype="float64")
    vector = read_checkpoint(folder / "vector")
    assert all(array.dtype == F64 for name, array in vector.items() if name != "ids")
    base = read_checkpoint(folder / "base")
    for scale in (0.3, 1.0):
        output = _merge(folder, "task_arithmetic", f"applied-{scale}", models=["vector"], parameters={"lambda": scale})
        applied = read_checkpoint(output)
        for name in SHAPES:
            want = widen(base[name]) + scale * vector[name]
            assert applied[name].dtype == dtype
            error = np.abs(widen(applied[name]) - want)
            assert np.all(error <= (2.0**-24 if dtype == F32 else 2.0**-8) * np.abs(want) + 1e-15), name
        assert same_bytes(applied["ids"], base["ids"])


def test_task_vector_is_no_model(family: tuple[Path, np.dtype[Any]]) -> None:
    """Averaging one with weights, or taking it for the base, would be nonsense: it is refused."""
    folder, _ = family
    _merge(folder, "ties", "vector", output="task_vector")
    for recipe in (
        {"merge_method": "linear", "models": [str(folder / "vector"), str(folder / "first")]},
        {"merge_method": "ties", "base_model": str(folder / "vector"), "models": [str(folder / "first")]},
    ):
        with pytest.raises(sp.MethodError, match="is a task vector"):
            sp.plan(recipe)


def test_task_vectors_and_models_mix(family: tuple[Path, np.dtype[Any]]) -> None:
    """A stored task vector of one model stands for that model."""
    folder, _ = family
    _merge(folder, "task_arithmetic", "vector", models=["first"], output="task_vector", dtype="float64")
    chosen = {"density": 0.4}
    direct = read_checkpoint(_merge(folder, "ties", "direct", parameters=chosen))
    mixed = read_checkpoint(_merge(folder, "ties", "mixed", models=["vector", "second", "third"], parameters=chosen))
    for name in SHAPES:
        close = np.abs(widen(direct[name]) - widen(mixed[name])) <= 2.0**-7 * np.abs(widen(direct[name]))
        assert np.mean(close) > 0.99, name  # float64 ranks may tell apart what is equal in float32


def test_tensors_that_are_copied_are_zero_in_a_task_vector(family: tuple[Path, np.dtype[Any]]) -> None:
    folder, _ = family
    partial = read_checkpoint(folder / "first")
    del partial["norm"]
    sp.save(partial, folder / "partial")
    with pytest.warns(sp.StockpotWarning, match="missing"):
        output = _merge(folder, "ties", "vector", models=["partial"], output="task_vector", on_missing="base")
    vector = read_checkpoint(output)
    assert not widen(vector["norm"]).any()
    assert np.array_equal(vector["ids"], np.arange(5))
