"""`chat_template`: which text, and in which file of the output."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import write_folder

pytestmark = pytest.mark.usefixtures("library")

NAMES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
LITERAL = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LONG = '"model_max_length": 1000000000000000019884624838656'


def write(path: Path, config: str | None = None, jinja: str | None = None) -> Path:
    write_folder(path, {"a.weight": np.ones((2, 2), np.float32)})
    if config is not None:
        (path / "tokenizer_config.json").write_text(config)
    if jinja is not None:
        (path / "chat_template.jinja").write_text(jinja)
    return path


def recipe(*paths: Path, **top: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [str(path) for path in paths], **top}


def merged(output: Path, *paths: Path, **top: Any) -> Path:
    sp.merge(recipe(*paths, **top), output, progress=False)
    return output


def test_it_is_written_into_the_config_that_holds_one(tmp_path: Path) -> None:
    config = f'{{\n "chat_template" : "old {{{{ x }}}}",\r\n\t{LONG}, "b": [1, {{"chat_template": 2}}] }}\n'
    output = merged(tmp_path / "out", write(tmp_path / "a", config), chat_template=LITERAL)
    expected = config.replace('"old {{ x }}"', json.dumps(LITERAL))
    assert (output / "tokenizer_config.json").read_bytes() == expected.encode()
    assert not (output / "chat_template.jinja").exists()


def test_it_is_written_into_the_file_that_holds_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a", f"{{{LONG}}}", "old")
    output = merged(tmp_path / "out", path, chat_template=LITERAL)
    assert (output / "chat_template.jinja").read_text() == LITERAL
    assert (output / "tokenizer_config.json").read_text() == f"{{{LONG}}}"


def test_where_there_was_none_it_gets_a_file(tmp_path: Path) -> None:
    output = merged(tmp_path / "out", write(tmp_path / "a", "{}"), chat_template=LITERAL)
    assert (output / "chat_template.jinja").read_text() == LITERAL


def test_several_named_templates_become_one(tmp_path: Path) -> None:
    several = json.dumps(
        {"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}]}
    )
    output = merged(tmp_path / "out", write(tmp_path / "a", several), chat_template=LITERAL)
    assert json.loads((output / "tokenizer_config.json").read_text()) == {"chat_template": LITERAL}


def test_mergekit_589_the_donors_template_stays_unless_another_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a", json.dumps({"chat_template": "old"}), "older")
    output = merged(tmp_path / "out", path)
    assert (output / "chat_template.jinja").read_text() == "older"
    assert json.loads((output / "tokenizer_config.json").read_text()) == {"chat_template": "old"}


def test_auto_is_the_commonest(tmp_path: Path) -> None:
    named = json.dumps(
        {"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "two\n"}]}
    )
    paths = [
        write(tmp_path / "a", jinja="one"),
        write(tmp_path / "b", jinja=" two "),
        write(tmp_path / "c", named),
        write(tmp_path / "d"),
    ]
    output = merged(tmp_path / "out", *paths, chat_template="auto")
    assert (output / "chat_template.jinja").read_text() == "two"
    tie = merged(tmp_path / "tie", *paths[:2], chat_template="auto")
    assert (tie / "chat_template.jinja").read_text() == "one"


def test_auto_without_any_template_says_so(tmp_path: Path) -> None:
    plan = sp.plan(recipe(write(tmp_path / "a"), chat_template="auto"))
    assert any("no input has a chat template" in warning for warning in plan.warnings)
    assert plan["side_files"]["written"] == []


@pytest.mark.parametrize("value", ["llama", "{{ short }}", "no braces but long enough", 7, ["chatml"]])
def test_what_is_no_template_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(sp.RecipeError, match="chat_template"):
        sp.plan(recipe(write(tmp_path / "a"), chat_template=value))


def test_a_broken_tokenizer_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(sp.FormatError, match="tokenizer_config"):
        sp.plan(recipe(write(tmp_path / "a", '{"chat_template": "x"'), chat_template="chatml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_template(tmp_path: Path, name: str) -> None:
    output = merged(tmp_path / "out", write(tmp_path / "a", "{}"), chat_template=name)
    text = (output / "chat_template.jinja").read_text()
    assert text.count("{%") == text.count("%}") > 0
    assert "messages" in text


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("alpaca", [USER], PREAMBLE + "### Instruction:\nHi\n\n### Response:\n"),
        ("alpaca", [SYSTEM, USER], "Be brief.\n\n### Instruction:\nHi\n\n### Response:\n"),
        ("chatml", [USER], "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "llama3",
            [SYSTEM, USER],
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", [USER, ANSWER, USER], "<s>[INST] Hi [/INST] Hello.</s>[INST] Hi [/INST]"),
        ("mistral", [SYSTEM, USER], "<s>[INST] Be brief.\n\nHi [/INST]"),
        (
            "exaone",
            [USER, ANSWER, USER],
            "[|system|][|endofturn|]\n[|user|]Hi\n[|assistant|]Hello.[|endofturn|]\n[|user|]Hi\n[|assistant|]",
        ),
    ],
)
def test_names_render_as_their_formats_say(
    tmp_path: Path, name: str, messages: list[dict[str, str]], expected: str
) -> None:
    jinja2 = pytest.importorskip("jinja2")
    output = merged(tmp_path / "out", write(tmp_path / "a", "{}"), chat_template=name)
    # As transformers renders templates.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((output / "chat_template.jinja").read_text())
    values = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>"}
    assert template.render(add_generation_prompt=True, **values) == expected
    assert not re.search(r"[ \t]\n|\A\s", expected)


def test_it_is_set_in_the_tokenizer_that_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a", jinja="old")
    (path / "config.json").write_text(json.dumps({"vocab_size": 2}))
    files = tmp_path / "files"
    files.mkdir()
    (files / "tokenizer_config.json").write_text('{"chat_template": "new"}')
    (files / "tokenizer.json").write_text("{}")
    vocabulary = {"size": 2, "tensors": ["a.weight"], "files": str(files)}
    output = merged(tmp_path / "out", path, vocabulary=vocabulary, chat_template=LITERAL)
    assert json.loads((output / "tokenizer_config.json").read_text()) == {"chat_template": LITERAL}
    assert not (output / "chat_template.jinja").exists()
    assert (output / "tokenizer.json").read_text() == "{}"
    kept = merged(tmp_path / "kept", path, vocabulary=vocabulary)
    assert json.loads((kept / "tokenizer_config.json").read_text()) == {"chat_template": "new"}


def test_only_tokenizer_files_are_written(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"")
    vocabulary = {"size": 2, "tensors": ["a.weight"], "files": str(files)}
    with pytest.raises(sp.RecipeError, match=r"'model\.safetensors', which is no tokenizer file"):
        sp.plan(recipe(write(tmp_path / "a"), vocabulary=vocabulary))
    with pytest.raises(sp.NotFoundError, match="is no folder"):
        sp.plan(recipe(tmp_path / "a", vocabulary={**vocabulary, "files": str(tmp_path / "none")}))
