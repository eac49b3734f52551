"""What of a donor's folder goes along: everything that deploying needs, and nothing that misleads a loader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import write_folder

pytestmark = pytest.mark.usefixtures("library")

CARRIED = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "image_preprocessor_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
    "additional_chat_templates/tool_use.jinja",
    "1_Pooling/config.json",
    "LICENSE",
    "NOTICE",
]
LEFT = ["optimizer.pt", "model.gguf", "pytorch_model.bin", "trainer_state.json", "README.md", "training_args.bin"]


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    path = write_folder(tmp_path / "a", {"a.weight": np.ones((4, 4), np.float32), "b.weight": np.ones(4, np.float32)})
    for name in (*CARRIED, *LEFT):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("{}")
    (path / "modules.json").write_text(json.dumps([{"path": "1_Pooling"}]))
    return path


def test_mergekit_275_files_beside_the_weights_go_along(donor: Path, tmp_path: Path) -> None:
    result = sp.merge({"merge_method": "linear", "models": [str(donor)]}, tmp_path / "out", progress=False)
    for name in (*CARRIED, "modules.json"):
        assert (tmp_path / "out" / name).read_bytes() == (donor / name).read_bytes(), name
    for name in set(LEFT) - {"README.md"}:
        assert not (tmp_path / "out" / name).exists(), name
    assert set(LEFT) <= set(result.plan["side_files"]["left"])
    assert (tmp_path / "out" / "README.md").read_text() != "{}"


def test_mergekit_105_code_that_a_config_refers_to_goes_along(donor: Path, tmp_path: Path) -> None:
    (donor / "modeling_own.py").write_text("class Own: ...\n")
    recipe = {"merge_method": "linear", "models": [str(donor)]}
    sp.merge(recipe, tmp_path / "without", progress=False)
    assert not (tmp_path / "without" / "modeling_own.py").exists()
    config = json.loads((donor / "config.json").read_text())
    (donor / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_own.Own"}}))
    sp.merge(recipe, tmp_path / "with", progress=False)
    assert (tmp_path / "with" / "modeling_own.py").read_text() == "class Own: ...\n"


def test_vllm_40765_no_other_weights_lie_in_the_folder(donor: Path, tmp_path: Path) -> None:
    """Loaders take every safetensors file they find where there is no index, and demand what an index names."""
    (donor / "old-model.safetensors.bak").write_text("x")
    recipe = {"merge_method": "linear", "models": [str(donor)]}
    sp.merge(recipe, tmp_path / "single", progress=False)
    assert [path.name for path in (tmp_path / "single").glob("*.safetensors*")] == ["model.safetensors"]
    sp.merge(recipe, tmp_path / "sharded", progress=False, shard_size=64)
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == shards
    assert index["metadata"]["total_size"] == 80
    found = {name: shard for shard in shards for name in sp.open(tmp_path / "sharded" / shard)}
    assert found == index["weight_map"]
