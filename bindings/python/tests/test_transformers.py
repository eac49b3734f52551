"""What a merge writes loads in transformers: all weights, the same ties, finite logits, a tokenizer in step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import write_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("library")

HIDDEN, INNER, LAYERS, HEADS = 16, 24, 3, 2
SPECIALS = ["<unk>", "<s>", "</s>"]


def tokenizer_of(words: list[str], added: tuple[str, ...] = ()) -> Any:
    vocabulary = {word: row for row, word in enumerate([*SPECIALS, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*SPECIALS, *added])
    return tokenizer


def write(path: Path, tokenizer: Any, seed: int, *, tied: bool = False, rows: int | None = None) -> Path:
    """A tiny Llama with its tokenizer."""
    rows = tokenizer.get_vocab_size() if rows is None else rows
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (rows, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not tied:
        shapes["lm_head.weight"] = (rows, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + f"{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {prefix + f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {prefix + f"mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes[prefix + "mlp.down_proj.weight"] = (HIDDEN, INNER)
    tensors = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    write_folder(path, tensors)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": rows,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (path / "config.json").write_text(json.dumps(config, indent=2))
    (path / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    tokenizer.save(str(path / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **names}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def check(output: Path, text: str, unknown: bool = False) -> Any:
    """The model loads without a word of missing or unexpected tensors, and computes finite logits for the text."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report.get(key), key
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    batch = tokenizer(text, return_tensors="pt")
    assert int(batch["input_ids"].max()) < model.config.vocab_size
    assert (tokenizer.unk_token_id in batch["input_ids"]) is unknown
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
    assert logits.shape[-1] == model.config.vocab_size == model.get_input_embeddings().weight.shape[0]
    assert torch.isfinite(logits).all()
    return model, tokenizer


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [
        write(tmp_path / "a", tokenizer_of(["one", "two", "three"]), 1),
        write(tmp_path / "b", tokenizer_of(["two", "four"], ("<|im_start|>", "<|im_end|>")), 2),
    ]


def recipe(paths: list[Path], method: str = "linear", **top: Any) -> dict[str, Any]:
    return {"merge_method": method, "models": [str(path) for path in paths], **top}


def test_a_sharded_merge_in_bfloat16(two: list[Path], tmp_path: Path) -> None:
    base = write(tmp_path / "base", tokenizer_of(["one", "two", "three"]), 3)
    value = recipe([two[0], two[0]], "ties", base_model=str(base), dtype="bfloat16")
    sp.merge(value, tmp_path / "out", progress=False, shard_size=4096)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    model, _ = check(tmp_path / "out", "one two three")
    assert model.dtype == torch.bfloat16


def test_a_union_of_tokenizers(two: list[Path], tmp_path: Path) -> None:
    value = recipe(two, tokenizer={"source": "union", "pad_to_multiple_of": 16}, chat_template="chatml")
    sp.merge(value, tmp_path / "out", progress=False)
    _, tokenizer = check(tmp_path / "out", "one two three four <|im_end|>")
    assert len(tokenizer) == 9
    messages = [{"role": "user", "content": "one"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 8
    assert "<|im_end|>" in tokenizer.get_added_vocab()


def test_a_union_computes_what_each_model_computed(two: list[Path], tmp_path: Path) -> None:
    """Passing one model through a wider vocabulary changes no logit of its tokens."""
    vocabulary = sp.plan(recipe(two, tokenizer_source="union"))["vocabulary"]
    assert vocabulary["size"] == 9
    value = recipe(two, tokenizer_source="union")
    value["models"] = [
        {"model": str(path), "parameters": {"weight": weight}} for path, weight in zip(two, (0.0, 1.0), strict=True)
    ]
    sp.merge(value, tmp_path / "out", progress=False)
    merged, tokenizer = check(tmp_path / "out", "two four")
    own = transformers.AutoModelForCausalLM.from_pretrained(two[1])
    before = transformers.AutoTokenizer.from_pretrained(two[1])
    text = "two four <|im_end|> two"
    with torch.no_grad():
        expected = own(input_ids=before(text, return_tensors="pt")["input_ids"]).logits[0]
        got = merged(input_ids=tokenizer(text, return_tensors="pt")["input_ids"]).logits[0]
    for token, row in before.get_vocab().items():
        torch.testing.assert_close(got[:, tokenizer.get_vocab()[token]], expected[:, row], rtol=1e-4, atol=1e-5)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    words = ["one", "two", "three"]
    paths = [write(tmp_path / name, tokenizer_of(words), seed, tied=True) for seed, name in enumerate("ab")]
    sp.merge(recipe(paths), tmp_path / "out", progress=False)
    model, _ = check(tmp_path / "out", "one two")
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_padded_vocabulary_keeps_its_height(tmp_path: Path) -> None:
    chat = tokenizer_of(["one", "two"], ("<chat>",))
    paths = [write(tmp_path / "a", tokenizer_of(["one", "two"]), 1, rows=12), write(tmp_path / "b", chat, 2, rows=12)]
    sp.merge(recipe(paths, tokenizer_source="union"), tmp_path / "out", progress=False)
    model, _ = check(tmp_path / "out", "one <chat> two")
    assert model.config.vocab_size == 12
