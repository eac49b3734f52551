"""Tiny checkpoints whose tensors have the names that transformers gives them, by architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoint_files import write_folder

WIDTH, ROWS = 4, 6


class Architecture(NamedTuple):
    """Names of one architecture's tensors.

    Attributes:
        count: the config's key for the number of layers.
        stack: what the layers' names begin with.
        layer: what follows the layer's number; vectors end in "bias", or are norms.
        before: tensors before the layers.
        after: tensors behind them.
    """

    count: str
    stack: str
    layer: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def _attention(*parts: str) -> tuple[str, ...]:
    return tuple(f"self_attn.{part}.weight" for part in parts)


_LLAMA = (
    *_attention("q_proj", "k_proj", "v_proj", "o_proj"),
    *(f"mlp.{part}.weight" for part in ("gate_proj", "up_proj", "down_proj")),
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)
_HEAD = ("model.norm.weight", "lm_head.weight")
_EMBED = ("model.embed_tokens.weight",)


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("num_hidden_layers", "model.layers", _LLAMA, _EMBED, _HEAD),
    "mistral": Architecture("num_hidden_layers", "model.layers", _LLAMA, _EMBED, _HEAD),
    "qwen2": Architecture(
        "num_hidden_layers",
        "model.layers",
        (*_LLAMA, *(f"self_attn.{part}.bias" for part in ("q_proj", "k_proj", "v_proj"))),
        _EMBED,
        _HEAD,
    ),
    "gemma2": Architecture(
        "num_hidden_layers",
        "model.layers",
        (*_LLAMA, "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"),
        _EMBED,
        ("model.norm.weight",),
    ),
    "mixtral": Architecture(
        "num_hidden_layers",
        "model.layers",
        (
            *_attention("q_proj", "k_proj", "v_proj", "o_proj"),
            "block_sparse_moe.gate.weight",
            *(f"block_sparse_moe.experts.{expert}.w{part}.weight" for expert in range(8) for part in (1, 2, 3)),
            "input_layernorm.weight",
            "post_attention_layernorm.weight",
        ),
        _EMBED,
        _HEAD,
    ),
    "gpt_neox": Architecture(
        "num_hidden_layers",
        "gpt_neox.layers",
        (
            *_both("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            *_both("input_layernorm", "post_attention_layernorm"),
        ),
        ("gpt_neox.embed_in.weight",),
        (*_both("gpt_neox.final_layer_norm"), "embed_out.weight"),
    ),
    "gpt2": Architecture(
        "n_layer",
        "h",
        _both("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"),
        ("wte.weight", "wpe.weight"),
        _both("ln_f"),
    ),
    "bloom": Architecture(
        "n_layer",
        "h",
        _both("input_layernorm", "self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h"),
        ("word_embeddings.weight", *_both("word_embeddings_layernorm")),
        _both("ln_f"),
    ),
    "opt": Architecture(
        "num_hidden_layers",
        "model.decoder.layers",
        _both("self_attn.k_proj", "self_attn.out_proj", "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
        (
            "model.decoder.embed_tokens.weight",
            "model.decoder.embed_positions.weight",
            "model.decoder.project_in.weight",
        ),
        (*_both("model.decoder.final_layer_norm"), "model.decoder.project_out.weight", "lm_head.weight"),
    ),
    "phi": Architecture(
        "num_hidden_layers",
        "model.layers",
        _both("self_attn.q_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2", "input_layernorm"),
        _EMBED,
        (*_both("model.final_layernorm"), *_both("lm_head")),
    ),
    "falcon": Architecture(
        "num_hidden_layers",
        "transformer.h",
        ("self_attention.query_key_value.weight", "mlp.dense_h_to_4h.weight", *_both("ln_attn", "ln_mlp")),
        ("transformer.word_embeddings.weight",),
        (*_both("transformer.ln_f"), "lm_head.weight"),
    ),
}


def write(path: Path, name: str, layers: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Write a checkpoint of an architecture, float32; what it holds."""
    kind = ARCHITECTURES[name]
    rng = np.random.default_rng(seed)
    names = [*kind.before, *(f"{kind.stack}.{i}.{part}" for i in range(layers) for part in kind.layer), *kind.after]
    tensors = {}
    for each in names:
        is_vector = each.endswith("bias") or "norm" in each or "ln_" in each
        shape = (WIDTH,) if is_vector else (ROWS if "embed" in each or "head" in each else WIDTH, WIDTH)
        tensors[each] = rng.standard_normal(shape).astype(np.float32)
    write_folder(path, tensors, **{"model_type": name, kind.count: layers})
    return tensors
