"""LoRA adapters as inputs: W + scale B A in the stream, against numpy in float64; what is refused, and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import write_folder, write_safetensors
from reference.arrays import read_checkpoint, same_bytes

Tensors = dict[str, np.ndarray]
RANK, ALPHA = 4, 6.0
# Matrices, a square one, an embedding, a convolution, a norm, a bias; one tensor of several stretches.
SHAPES = {
    "model.embed_tokens.weight": (31, 24),
    "model.layers.0.mlp.down_proj.weight": (24, 40),
    "model.layers.0.self_attn.q_proj.weight": (24, 24),
    "model.layers.0.self_attn.q_proj.bias": (24,),
    "model.layers.1.mlp.down_proj.weight": (300, 501),
    "model.layers.1.norm.weight": (24,),
    "model.vision.conv.weight": (6, 3, 2, 2),
    "lm_head.weight": (31, 24),
}
MATRICES = [name[: -len(".weight")] for name, shape in SHAPES.items() if len(shape) == 2 and "embed" not in name]


def _base(seed: int = 0, dtype: Any = np.float32) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def _factors(
    modules: list[str], shapes: dict[str, tuple[int, ...]], seed: int = 1, rank: int = RANK, dtype: Any = np.float32
) -> Tensors:
    """Factors of linear layers, under PEFT's names."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for module in modules:
        out, *rest = shapes[f"{module}.weight"]
        tensors[f"base_model.model.{module}.lora_A.weight"] = 0.1 * rng.standard_normal((rank, *rest)).astype(dtype)
        tensors[f"base_model.model.{module}.lora_B.weight"] = 0.1 * rng.standard_normal((out, rank)).astype(dtype)
    return tensors


def _write(path: Path, tensors: Tensors, **config: Any) -> Path:
    """Write an adapter as PEFT saves it."""
    write_safetensors(path / "adapter_model.safetensors", tensors)
    text = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": ["q_proj"], **config}
    (path / "adapter_config.json").write_text(json.dumps({k: v for k, v in text.items() if v is not None}))
    return path


def _delta(tensors: Tensors, module: str, scale: float) -> np.ndarray:
    first = tensors[f"base_model.model.{module}.lora_A.weight"].astype(np.float64)
    second = tensors[f"base_model.model.{module}.lora_B.weight"].astype(np.float64)
    return scale * np.tensordot(second.reshape(len(second), -1), first, 1)


def _merged(reference: str, out: Path, method: str = "passthrough", **more: Any) -> Tensors:
    sp.merge({"merge_method": method, "models": [reference], **more}, out, progress=False)
    return read_checkpoint(out)


def _is_rounded(found: np.ndarray, exact: np.ndarray) -> bool:
    """Is each element the float64 value rounded once? (Sums of a few products differ in their last float64 bits.)"""
    unit = float(ml_dtypes.finfo(found.dtype).eps) / 2 if found.dtype != np.float64 else 1e-15
    error = np.abs(found.astype(np.float64) - exact)
    return bool(np.all(error <= unit * np.abs(exact) * (1 + 1e-6) + 1e-14))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16, np.float64], ids=str)
def test_sum_is_rounded_once(tmp_path: Path, dtype: Any) -> None:
    base = {name: array.astype(dtype) for name, array in _base().items()}
    factors = _factors(MATRICES, SHAPES, dtype=dtype if dtype != np.float64 else np.float32)
    write_folder(tmp_path / "base", base)
    _write(tmp_path / "lora", factors)
    merged = _merged(f"{tmp_path}/base+{tmp_path}/lora", tmp_path / "out")
    assert set(merged) == set(base)
    for name, array in base.items():
        module = name.removesuffix(".weight")
        if module in MATRICES and name.endswith("weight"):
            assert merged[name].dtype == dtype
            assert _is_rounded(merged[name], array.astype(np.float64) + _delta(factors, module, ALPHA / RANK)), name
            assert not same_bytes(merged[name], array)
        else:
            assert same_bytes(merged[name], array), name


@pytest.mark.parametrize("method", ["linear", "ties", "task_arithmetic", "model_stock"])
def test_methods_see_the_unrounded_sum(tmp_path: Path, method: str) -> None:
    """Two adapters on one bfloat16 base merge as the two float64 models they stand for do."""
    base = _base(dtype=ml_dtypes.bfloat16)
    write_folder(tmp_path / "base", base)
    references = []
    for seed in (1, 2):
        factors = _factors(MATRICES, SHAPES, seed)
        _write(tmp_path / f"lora{seed}", factors)
        whole = {name: array.astype(np.float64) for name, array in base.items()}
        for module in MATRICES:
            whole[f"{module}.weight"] += _delta(factors, module, ALPHA / RANK)
        write_folder(tmp_path / f"whole{seed}", whole)
        references.append(f"{tmp_path}/base+{tmp_path}/lora{seed}")
    recipe = {
        "merge_method": method,
        "base_model": str(tmp_path / "base"),
        "dtype": "float64",
        "parameters": {"weight": 0.5} if method in ("linear", "task_arithmetic") else {},
    }
    sp.merge({**recipe, "models": references}, tmp_path / "a", progress=False)
    sp.merge({**recipe, "models": [f"{tmp_path}/whole1", f"{tmp_path}/whole2"]}, tmp_path / "b", progress=False)
    ours, wanted = read_checkpoint(tmp_path / "a"), read_checkpoint(tmp_path / "b")
    for name in base:
        np.testing.assert_allclose(ours[name], wanted[name], rtol=1e-12, atol=1e-13)


def test_peft_3004_deltas_are_merged_not_factors(tmp_path: Path) -> None:
    """huggingface/peft#3004: the mean of two adapters has no cross terms such as B1 A2."""
    base = _base()
    write_folder(tmp_path / "base", base)
    deltas = []
    for seed in (1, 2):
        factors = _factors(["lm_head"], SHAPES, seed)
        _write(tmp_path / f"lora{seed}", factors)
        deltas.append(_delta(factors, "lm_head", ALPHA / RANK))
    models = [f"{tmp_path}/base+{tmp_path}/lora{seed}" for seed in (1, 2)]
    sp.merge({"merge_method": "linear", "models": models}, tmp_path / "out", progress=False)
    exact = base["lm_head.weight"].astype(np.float64) + (deltas[0] + deltas[1]) / 2
    assert _is_rounded(read_checkpoint(tmp_path / "out")["lm_head.weight"], exact)


def test_peft_3449_rank_stabilised_scale(tmp_path: Path) -> None:
    """huggingface/peft#3449: with use_rslora the scale is alpha / sqrt(r), the patterns' alpha and r among them."""
    base = _base()
    write_folder(tmp_path / "base", base)
    first, second = "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"
    factors = {**_factors([first, "lm_head"], SHAPES), **_factors([second], SHAPES, rank=9)}
    _write(
        tmp_path / "lora",
        factors,
        use_rslora=True,
        rank_pattern={r"layers\.\d+\.self_attn.*": 2, r"layers.[1-9]\.mlp\.(up|down)_proj": 9},
        alpha_pattern={"1.mlp.down_proj": 5, "down_proj": 3},
    )
    merged = _merged(f"{tmp_path}/base+{tmp_path}/lora", tmp_path / "out")
    scales = {first: 3 / np.sqrt(RANK), second: 5 / np.sqrt(9), "lm_head": ALPHA / np.sqrt(RANK)}
    for module, scale in scales.items():
        name = f"{module}.weight"
        assert _is_rounded(merged[name], base[name].astype(np.float64) + _delta(factors, module, scale)), module


@pytest.mark.parametrize("fan_in_fan_out", [False, True])
def test_orientation(tmp_path: Path, fan_in_fan_out: bool) -> None:
    """Shapes decide; for a square matrix fan_in_fan_out does. Embeddings are added transposed."""
    rng = np.random.default_rng(5)
    base = {"h.0.c_proj.weight": rng.standard_normal((8, 8)).astype(np.float32)}
    base["h.0.c_fc.weight"] = rng.standard_normal((8, 12) if fan_in_fan_out else (12, 8)).astype(np.float32)
    base["wte.weight"] = rng.standard_normal((10, 8)).astype(np.float32)
    write_folder(tmp_path / "base", base)
    factors = _factors(["h.0.c_proj", "h.0.c_fc"], {"h.0.c_proj.weight": (8, 8), "h.0.c_fc.weight": (12, 8)})
    # PEFT's names have the prefix of the class that was trained, the checkpoint's have not.
    named = {name.replace("model.h", "model.transformer.h"): array for name, array in factors.items()}
    one, other = rng.standard_normal((RANK, 10)).astype(np.float32), rng.standard_normal((8, RANK)).astype(np.float32)
    named["base_model.model.transformer.wte.lora_embedding_A"] = one
    named["base_model.model.transformer.wte.lora_embedding_B"] = other
    _write(tmp_path / "lora", named, fan_in_fan_out=fan_in_fan_out)
    merged = _merged(f"{tmp_path}/base+{tmp_path}/lora", tmp_path / "out")
    for module in ("h.0.c_proj", "h.0.c_fc"):
        delta = _delta(factors, module, ALPHA / RANK)
        exact = base[f"{module}.weight"].astype(np.float64) + (delta.T if fan_in_fan_out else delta)
        assert _is_rounded(merged[f"{module}.weight"], exact), module
    delta = ALPHA / RANK * (other.astype(np.float64) @ one.astype(np.float64)).T
    assert _is_rounded(merged["wte.weight"], base["wte.weight"].astype(np.float64) + delta)


def test_convolution_and_whole_tensors(tmp_path: Path) -> None:
    base = _base()
    write_folder(tmp_path / "base", base)
    rng = np.random.default_rng(3)
    prefix = "base_model.model."
    first, second = rng.standard_normal((RANK, 3, 2, 2)), rng.standard_normal((6, RANK, 1, 1))
    norm, bias = rng.standard_normal(24).astype(np.float32), rng.standard_normal(24).astype(np.float32)
    head = rng.standard_normal((31, 24)).astype(ml_dtypes.bfloat16)
    tensors = {
        f"{prefix}model.vision.conv.lora_A.weight": first.astype(np.float32),
        f"{prefix}model.vision.conv.lora_B.weight": second.astype(np.float32),
        f"{prefix}model.layers.1.norm.weight": norm,
        f"{prefix}model.layers.0.self_attn.q_proj.base_layer.bias": bias,
        f"{prefix}lm_head.modules_to_save.default.weight": head,
    }
    _write(tmp_path / "lora", tensors, bias="lora_only", modules_to_save=["norm", "lm_head"])
    reference = f"{tmp_path}/base+{tmp_path}/lora"
    merged = _merged(reference, tmp_path / "out")
    conv = np.tensordot(second.astype(np.float32).astype(np.float64)[:, :, 0, 0], first.astype(np.float32), 1)
    exact = base["model.vision.conv.weight"].astype(np.float64) + ALPHA / RANK * conv
    assert _is_rounded(merged["model.vision.conv.weight"], exact)
    assert same_bytes(merged["model.layers.1.norm.weight"], norm)
    assert same_bytes(merged["model.layers.0.self_attn.q_proj.bias"], bias)
    np.testing.assert_array_equal(merged["lm_head.weight"].astype(np.float32), head.astype(np.float32))
    plan = sp.plan({"merge_method": "passthrough", "models": [reference]})
    assert plan.inputs[0]["adapter"] == {"path": str(tmp_path / "lora"), "updated": 1, "replaced": 3}


def test_bits_do_not_depend_on_blocks_or_threads(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", _base(dtype=ml_dtypes.bfloat16))
    for seed in (1, 2):
        _write(tmp_path / f"lora{seed}", _factors(MATRICES, SHAPES, seed))
    recipe = {
        "merge_method": "ties",
        "base_model": str(tmp_path / "base"),
        "models": [f"{tmp_path}/base+{tmp_path}/lora{seed}" for seed in (1, 2)],
        "parameters": {"density": 0.3},
    }
    plan = sp.plan(recipe, threads=1)
    outputs = []
    for threads, memory in ((1, None), (3, None), (1, "6MiB"), (2, "9MiB")):
        place = tmp_path / f"out-{threads}-{memory}"
        sp.merge(recipe, place, progress=False, threads=threads, max_memory=memory)
        outputs.append((place / "model.safetensors").read_bytes())
    assert len(set(outputs)) == 1
    # Factors of both models are held while a tensor is in work, and the plan says so.
    assert plan.memory >= 2 * (300 + 501) * RANK * 8
    with pytest.raises(sp.StockpotMemoryError, match=r"needs .* bytes"):
        sp.plan(recipe, max_memory=400_000)


def test_cropped_embeddings(tmp_path: Path) -> None:
    """The update is that of the cropped elements."""
    rng = np.random.default_rng(4)
    wide = rng.standard_normal((12, 10)).astype(np.float32)
    small = rng.standard_normal((9, 7)).astype(np.float32)
    write_folder(tmp_path / "base", {"lm_head.weight": wide})
    write_folder(tmp_path / "other", {"lm_head.weight": small})
    factors = _factors(["lm_head"], {"lm_head.weight": (12, 10)})
    _write(tmp_path / "lora", factors)
    sp.merge(
        {
            "merge_method": "linear",
            "models": [f"{tmp_path}/base+{tmp_path}/lora", str(tmp_path / "other")],
            "on_shape_mismatch": "crop",
        },
        tmp_path / "out",
        progress=False,
    )
    exact = (wide.astype(np.float64) + _delta(factors, "lm_head", ALPHA / RANK))[:9, :7]
    assert _is_rounded(read_checkpoint(tmp_path / "out")["lm_head.weight"], (exact + small) / 2)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "DoRA"),
    "loha": ({"peft_type": "LOHA"}, "LOHA"),
    "pissa": ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
    "bias": ({"lora_bias": True}, "lora_bias"),
    "activated": ({"alora_invocation_tokens": [1, 2]}, "activated"),
    "replicated": ({"layer_replication": [[0, 2]]}, "repeated layers"),
    "pattern": ({"rank_pattern": {"(?<=x)y": 3}}, "pattern"),
    "rank": ({"r": 8}, "have rank 4, where .* says 8"),
    "no rank": ({"r": None}, "no rank"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configs_that_are_refused(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    write_folder(tmp_path / "base", _base())
    _write(tmp_path / "lora", _factors(MATRICES, SHAPES), **change)
    with pytest.raises(sp.FormatError, match=words):
        sp.plan({"merge_method": "passthrough", "models": [f"{tmp_path}/base+{tmp_path}/lora"]})


PREFIX = "base_model.model."
LOST: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "no target": ({"model.layers.7.x.lora_A.weight": (4, 3), "model.layers.7.x.lora_B.weight": (3, 4)}, "layers.7.x"),
    "one factor": ({"lm_head.lora_A.weight": (4, 24)}, "only one of the two"),
    "wrong shape": ({"lm_head.lora_A.weight": (4, 25), "lm_head.lora_B.weight": (31, 4)}, "trained on"),
    "magnitude": ({"lm_head.lora_magnitude_vector": (31,)}, "DoRA"),
    "unknown part": ({"lm_head.lora_C.weight": (31,)}, "would be lost"),
    "unknown whole": ({"score.weight": (31,)}, "score"),
    "ranks differ": ({"lm_head.lora_A.weight": (4, 24), "lm_head.lora_B.weight": (31, 5)}, "multiplied"),
    "vectors": ({"lm_head.lora_A.weight": (4,), "lm_head.lora_B.weight": (31,)}, "multiplied"),
}


@pytest.mark.parametrize("case", LOST)
def test_no_tensor_of_an_adapter_is_lost(tmp_path: Path, case: str) -> None:
    shapes, words = LOST[case]
    write_folder(tmp_path / "base", _base())
    _write(tmp_path / "lora", {PREFIX + name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises((sp.MissingTensorError, sp.FormatError, sp.ShapeError), match=re.escape(words)):
        sp.plan({"merge_method": "passthrough", "models": [f"{tmp_path}/base+{tmp_path}/lora"]})


def test_tied_head_is_named(tmp_path: Path) -> None:
    base = _base()
    del base["lm_head.weight"]
    write_folder(tmp_path / "base", base)
    _write(tmp_path / "lora", _factors(["lm_head"], SHAPES))
    with pytest.raises(sp.MissingTensorError, match="tied weights"):
        sp.plan({"merge_method": "passthrough", "models": [f"{tmp_path}/base+{tmp_path}/lora"]})


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    _write(tmp_path / "lora", _factors(MATRICES, SHAPES))
    with pytest.raises(sp.FormatError, match="is a LoRA adapter, not a model: write MODEL"):
        sp.plan({"merge_method": "passthrough", "models": [str(tmp_path / "lora")]})
    write_folder(tmp_path / "base", _base())
    with pytest.raises(sp.NotFoundError, match="adapter_config"):
        sp.plan({"merge_method": "passthrough", "models": [f"{tmp_path}/base+{tmp_path}/base"]})
    with pytest.raises(sp.RecipeError, match="with an adapter"):
        sp.open(f"{tmp_path}/base+{tmp_path}/lora")
