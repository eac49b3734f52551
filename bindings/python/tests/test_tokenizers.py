"""`tokenizer_source` and `tokenizer`: the output's vocabulary, its embeddings' rows, and its tokenizer files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import encode, header_of, read_safetensors, write_folder

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("library")

EMBED, HEAD, OTHER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.weight"
WIDTH = 6
SPECIALS = ["<unk>", "<s>", "</s>"]


def word_level(words: Iterable[str]) -> Any:
    vocabulary = {word: row for row, word in enumerate([*SPECIALS, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def byte_pairs(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> Any:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(dict(vocabulary), merges, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def write(path: Path, tokenizer: Any, seed: int, rows: int | None = None, **config: Any) -> Path:
    rows = tokenizer.get_vocab_size() if rows is None else rows
    rng = np.random.default_rng(seed)
    shapes = {EMBED: (rows, WIDTH), HEAD: (rows, WIDTH), OTHER: (3, 3)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    write_folder(path, tensors, vocab_size=rows)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 10**30, **config}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def recipe(paths: Iterable[Path], base: Path | None = None, **top: Any) -> dict[str, Any]:
    models = [{"model": str(path), "parameters": {"weight": position + 1.0}} for position, path in enumerate(paths)]
    value = {"merge_method": "linear" if base is None else "task_arithmetic", "models": models, **top}
    return value if base is None else {**value, "base_model": str(base)}


def vocabulary_of(folder: Path) -> dict[str, int]:
    found: dict[str, int] = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return found


def stored(folder: Path, name: str = EMBED) -> np.ndarray:
    return read_safetensors(folder / "model.safetensors")[name].astype(np.float64)


def mean_rows(paths: list[Path], output: Path, fallback: Mapping[str, Any] | None = None) -> None:
    """The output is the weighted mean of the models' rows by token; `fallback` gives rows of tokens by another rule."""
    weights = np.arange(1.0, len(paths) + 1)
    merged_vocabulary = vocabulary_of(output)
    for name in (EMBED, HEAD):
        merged = stored(output, name)
        for token, row in merged_vocabulary.items():
            own = [
                stored(path, name)[vocabulary_of(path)[token]] if token in vocabulary_of(path) else None
                for path in paths
            ]
            having = [each for each in own if each is not None]
            default = np.mean(having, 0) if having else np.zeros(WIDTH)
            if fallback and token in fallback:
                rule = fallback[token]
                default = np.zeros(WIDTH) if rule is None else stored(rule[0], name)[rule[1]]
                own = [None if rule is not None and len(rule) > 2 else each for each in own]
            rows = [default if each is None else each for each in own]
            expected = np.average(rows, axis=0, weights=weights)
            np.testing.assert_allclose(merged[row], expected, rtol=1e-6, atol=1e-7, err_msg=token)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    second = word_level(["one", "three", "four"])
    second.add_tokens([tokenizers.AddedToken("<|im_end|>", special=True, lstrip=True)])
    third = word_level(["four", "two", "five"])
    third.add_tokens([tokenizers.AddedToken("<|im_end|>", special=True)])
    return [
        write(tmp_path / "a", word_level(["one", "two", "three"]), 1),
        write(tmp_path / "b", second, 2),
        write(tmp_path / "c", third, 3),
    ]


def test_union_has_all_tokens_and_every_row_is_of_its_token(three: list[Path], tmp_path: Path) -> None:
    result = sp.merge(recipe(three, tokenizer_source="union"), tmp_path / "out", progress=False)
    names = ["<unk>", "<s>", "</s>", "one", "two", "three", "four", "five", "<|im_end|>"]
    assert vocabulary_of(tmp_path / "out") == {token: row for row, token in enumerate(names)}
    mean_rows(three, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 9
    assert any("'<|im_end|>' different settings" in warning for warning in result.plan.warnings)
    added = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_added_tokens_decoder()[8]
    assert added.special
    assert added.lstrip
    left, right = (read_safetensors(path / "model.safetensors")[OTHER] for path in three[:2])
    third = read_safetensors(three[2] / "model.safetensors")[OTHER]
    merged = read_safetensors(tmp_path / "out" / "model.safetensors")[OTHER]
    np.testing.assert_allclose(merged, (left + 2.0 * right + 3.0 * third) / 6, rtol=1e-5, atol=1e-6)


def test_the_base_gives_the_rows_that_models_lack(three: list[Path], tmp_path: Path) -> None:
    a, b, c = three
    sp.merge(recipe([a, c], base=b, tokenizer={"source": "union"}), tmp_path / "out", progress=False)
    vocabulary = vocabulary_of(tmp_path / "out")
    assert list(vocabulary_of(b).items()) != list(vocabulary.items())
    row = vocabulary["four"]
    base, other = (stored(path)[vocabulary_of(path)["four"]] for path in (b, c))
    # a has no "four": it gets the base's, so its task vector is zero there.
    np.testing.assert_allclose(stored(tmp_path / "out")[row], base + 2 * (other - base), rtol=1e-6)
    two = vocabulary["two"]
    left, right = (stored(path)[vocabulary_of(path)["two"]] for path in (a, c))
    mean = (left + right) / 2
    np.testing.assert_allclose(stored(tmp_path / "out")[two], mean + (left - mean) + 2 * (right - mean), atol=1e-6)


def test_base_and_a_model_as_the_source(three: list[Path], tmp_path: Path) -> None:
    for source, owner in (("base", three[0]), (str(three[2]), three[2])):
        output = tmp_path / f"out-{owner.name}"
        sp.merge(recipe(three, tokenizer_source=source), output, progress=False)
        assert vocabulary_of(output) == vocabulary_of(owner)
        mean_rows(three, output)
        assert (output / "tokenizer.json").read_bytes() == (owner / "tokenizer.json").read_bytes()


def test_sources_of_single_tokens(three: list[Path], tmp_path: Path) -> None:
    a, b, c = three
    tokens = {
        "five": {"source": {"kind": "zero"}},
        "<|im_end|>": {"source": str(c)},
        "<s>": {"source": str(b), "force": True},
        "<new>": {"source": {"kind": "model_token", "model": str(b), "token": "four"}},
        "<row>": {"source": {"kind": "model_token", "model": {"model": {"path": str(a)}}, "token_id": 2}},
        "<void>": {},
    }
    result = sp.merge(recipe(three, tokenizer={"source": "union", "tokens": tokens}), tmp_path / "out", progress=False)
    rules = {
        "five": None,
        "<|im_end|>": (c, vocabulary_of(c)["<|im_end|>"]),
        "<s>": (b, 1, "force"),
        "<new>": (b, vocabulary_of(b)["four"]),
        "<row>": (a, 2),
        "<void>": None,
    }
    mean_rows(three, tmp_path / "out", rules)
    assert any("1 tokens ('<void>') are in no model's tokenizer" in warning for warning in result.plan.warnings)


def test_padding_is_the_mean_of_the_rows(three: list[Path], tmp_path: Path) -> None:
    sp.merge(recipe(three, tokenizer={"pad_to_multiple_of": 8}), tmp_path / "out", progress=False)
    merged = stored(tmp_path / "out")
    assert merged.shape == (16, WIDTH)
    mean_rows(three, tmp_path / "out")
    # The mean of weighted means is the weighted mean of the means.
    np.testing.assert_allclose(merged[9:], np.tile(merged[:9].mean(0), (7, 1)), rtol=1e-5, atol=1e-7)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 16


def test_mergekit_425_rows_are_not_cut(tmp_path: Path) -> None:
    """Qwen's embeddings have more rows than its tokenizer has tokens; they stay, unless mergekit's way is asked for."""
    chat = word_level(["one"])
    chat.add_tokens([tokenizers.AddedToken("<chat>", special=True)])
    paths = [write(tmp_path / "a", word_level(["one"]), 1, rows=12), write(tmp_path / "b", chat, 2, rows=12)]
    sp.merge(recipe(paths, tokenizer_source="union"), tmp_path / "out", progress=False)
    merged = stored(tmp_path / "out")
    a, b = (stored(path) for path in paths)
    assert merged.shape == (12, WIDTH)
    np.testing.assert_allclose(merged[5:], (a[5:] + 2 * b[5:]) / 3, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(merged[4], b[4], rtol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 12
    same = recipe(paths, tokenizer_source="union", compat="mergekit")
    sp.merge(same, tmp_path / "cut", progress=False)
    np.testing.assert_array_equal(stored(tmp_path / "cut"), merged[:5])


def test_tokens_beyond_the_embeddings_are_stripped(tmp_path: Path) -> None:
    letters = {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6}
    merges = [("a", "b"), ("b", "c"), ("ab", "c")]
    full = byte_pairs(letters, merges)
    full.add_tokens([tokenizers.AddedToken("<pad>", special=True)])
    short = write(tmp_path / "short", full, 1, rows=5, bos_token=None, eos_token=None, pad_token="<pad>")
    other = write(tmp_path / "other", byte_pairs({"<unk>": 0, "a": 1, "b": 2}, []), 2)
    result = sp.merge(recipe([short, other], tokenizer_source="base"), tmp_path / "out", progress=False)
    assert vocabulary_of(tmp_path / "out") == {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4}
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert made.encode("abc").ids == [4, 3]
    assert stored(tmp_path / "out").shape == (5, WIDTH)
    assert "pad_token" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert any("pad_token" in warning for warning in result.plan.warnings)


def test_the_files_beside_follow_the_tokenizer(three: list[Path], tmp_path: Path) -> None:
    a = three[0]
    settings = json.loads((a / "tokenizer_config.json").read_text())
    decoder = {"0": {"content": "<unk>", "special": True}}
    (a / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": decoder, "kept": [1]}))
    (a / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    (a / "added_tokens.json").write_text(json.dumps({}))
    (a / "vocab.json").write_text("{}")
    (a / "merges.txt").write_text("")
    (a / "chat_template.jinja").write_text("{{ messages }}")
    (a / "generation_config.json").write_text("{}")
    result = sp.merge(recipe(three, tokenizer_source="union"), tmp_path / "out", progress=False)
    output = tmp_path / "out"
    written = json.loads((output / "tokenizer_config.json").read_text())
    assert written["kept"] == [1]
    assert written["model_max_length"] == 10**30
    found = {int(row): entry["content"] for row, entry in written["added_tokens_decoder"].items()}
    assert found == {0: "<unk>", 1: "<s>", 2: "</s>", 6: "four", 7: "five", 8: "<|im_end|>"}
    assert json.loads((output / "special_tokens_map.json").read_text()) == {"eos_token": "</s>"}
    assert json.loads((output / "added_tokens.json").read_text()) == {"four": 6, "five": 7, "<|im_end|>": 8}
    # What told of the old vocabulary is gone; what has nothing to do with it stays.
    assert not (output / "vocab.json").exists()
    assert not (output / "merges.txt").exists()
    assert (output / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (output / "generation_config.json").exists()
    assert {"vocab.json", "merges.txt"} <= set(result.plan["side_files"]["left"])
    assert "tokenizer.json" in result.plan["side_files"]["written"]


def test_the_report_has_the_recipe_as_it_was(three: list[Path], tmp_path: Path) -> None:
    value = recipe(three, tokenizer_source="union")
    result = sp.merge(value, tmp_path / "out", progress=False)
    assert result.report["recipe"] == value
    assert result.plan["vocabulary"]["size"] == 9


def test_a_stopped_merge_goes_on(three: list[Path], tmp_path: Path) -> None:
    for path in three:
        # Layers that take longer than the first look at the progress, and no place on the disk.
        tensors = {f"model.layers.{i}.w": np.broadcast_to(np.float32(0), (1 << 20,)) for i in range(32)}
        tensors = {**read_safetensors(path / "model.safetensors"), **tensors}
        own = b"".join(array.tobytes() for name, array in tensors.items() if not name.endswith(".w"))
        (path / "model.safetensors").write_bytes(encode(header_of(tensors), own))
        os.truncate(path / "model.safetensors", (path / "model.safetensors").stat().st_size + 32 * 4 * (1 << 20))
    value = recipe(three, tokenizer_source="union")

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sp.merge(value, tmp_path / "out", progress=stop, threads=1)
    result = sp.merge(value, tmp_path / "out", progress=False, resume=True)
    assert result.report["resumed"]
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    mean_rows(three, tmp_path / "out")


def test_a_vocabulary_comes_back(three: list[Path], tmp_path: Path) -> None:
    """The output's tokenizer reads what each model's tokenizer reads, and says it again."""
    sp.merge(recipe(three, tokenizer_source="union"), tmp_path / "out", progress=False)
    merged = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for path in three:
        own = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        for text in ("one two three", "four five", "two<|im_end|>one", "<s> three </s>"):
            tokens = [own.id_to_token(row) for row in own.encode(text).ids]
            again = [merged.id_to_token(row) for row in merged.encode(text).ids]
            assert "<unk>" not in again
            assert "<unk>" in tokens or again == tokens


def test_models_without_a_tokenizer_have_the_first_ones(three: list[Path], tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", word_level(["one", "two", "three"]), 9)
    (plain / "tokenizer.json").unlink()
    plan = sp.plan(recipe([three[0], plain], tokenizer_source="union"))
    assert any("has no tokenizer.json: its rows are taken to be those of" in warning for warning in plan.warnings)
    assert [entry["own"] for entry in plan["vocabulary"]["inputs"]] == [6, 6]


def test_sentencepiece_alone_is_refused_with_the_remedy(three: list[Path], tmp_path: Path) -> None:
    (three[1] / "tokenizer.json").unlink()
    (three[1] / "tokenizer.model").write_bytes(b"")
    with pytest.raises(sp.RecipeError, match=r"has tokenizer\.model but no tokenizer\.json.*save_pretrained"):
        sp.plan(recipe(three, tokenizer_source="union"))


def test_the_extra_is_named_when_it_is_missing(three: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(sp.RecipeError, match=r"pip install 'stockpot\[tokenizers\]'"):
        sp.plan(recipe(three, tokenizer_source="union"))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ({"tokenizer_source": "union", "tokenizer": {}}, "both tokenizer_source and tokenizer"),
        ({"tokenizer_source": "union", "vocabulary": {"size": 9}}, "both a tokenizer section and 'vocabulary'"),
        ({"tokenizer": "union"}, "give a mapping with source, tokens, pad_to_multiple_of"),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, "whole number from 1"),
        ({"tokenizer": {"pad_to_multiple_of": True}}, "whole number from 1"),
        ({"tokenizer": {"tokens": []}}, "tokens is|"),
        ({"tokenizer": {"tokens": {"one": 1}}}, "give a mapping with source and force"),
        ({"tokenizer": {"tokens": {"one": {"force": True}}}}, "force without a source"),
        ({"tokenizer": {"tokens": {"one": {"source": {"kind": "mean"}}}}}, "give zero or model_token"),
        (
            {"tokenizer": {"tokens": {"one": {"source": {"kind": "model_token", "model": "A"}}}}},
            "either token or token_id",
        ),
        ({"tokenizer": {"tokens": {"five": {"source": "A"}}}}, "whose tokenizer has no such token"),
        ({"tokenizer": {"tokens": {"five": {"source": "nobody"}}}}, "not one of the recipe's models"),
        (
            {"tokenizer": {"tokens": {"x": {"source": {"kind": "model_token", "model": "A", "token_id": 6}}}}},
            "of which .* has no row",
        ),
        (
            {"tokenizer": {"tokens": {"x": {"source": {"kind": "model_token", "model": "A", "token": "five"}}}}},
            "of which .* has no row",
        ),
    ],
)
def test_what_a_section_does_not_take(three: list[Path], top: dict[str, Any], words: str) -> None:
    value = json.loads(json.dumps(recipe(three, **top)).replace('"A"', json.dumps(str(three[0]))))
    if words.endswith("|"):
        assert sp.plan(value)["vocabulary"]["size"] == 9  # an empty list names nothing
        return
    with pytest.raises(sp.RecipeError, match=words):
        sp.plan(value)


def test_unknown_keys_warn_or_are_refused(three: list[Path]) -> None:
    value = recipe(three, tokenizer={"sources": "union"})
    assert any("unknown key 'sources'" in warning for warning in sp.plan(value).warnings)
    with pytest.raises(sp.RecipeError, match="unknown key 'sources'"):
        sp.plan(value, strict=True)


def test_tokenizers_of_models_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """org/name and org/name@revision are looked up where the library finds their weights."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--org--chat"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    write(cached / "snapshots" / commit, word_level(["salt", "pepper"]), 1)
    (tmp_path / "plain").mkdir()
    plain = write(tmp_path / "plain", word_level(["salt"]), 2)
    for number, model in enumerate(
        ["org/chat", f"org/chat@{commit[:12]}", {"model": {"path": "org/chat", "revision": "main"}}]
    ):
        value = {"merge_method": "linear", "tokenizer_source": "union", "models": [
            {"model": str(plain), "parameters": {"weight": 1.0}}, {"model": model, "parameters": {"weight": 1.0}}
        ]}  # fmt: skip
        out = tmp_path / f"out{number}"
        sp.merge(value, out, progress=False)
        assert set(vocabulary_of(out)) == {*SPECIALS, "salt", "pepper"}
    with pytest.raises(sp.NotFoundError, match="org/none"):
        sp.merge({**recipe([plain]), "tokenizer_source": "org/none"}, tmp_path / "none", progress=False)
