"""Model references: local paths, the Hugging Face cache, what is fetched and what is not. No test uses the network."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors, write_folder
from stockpot import hub

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "0123ffffffffffffffffffffffffffffffffffff"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return root


def _cached(root: Path, name: str, commit: str, value: float, reference: str | None = None) -> Path:
    """Put a model into a cache."""
    folder = root / ("models--" + name.replace("/", "--"))
    if reference is not None:
        (folder / "refs" / reference).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / reference).write_text(commit)
    return write_folder(folder / "snapshots" / commit, {"w": np.full((2, 3), value, np.float32)})


def _value(reference: str) -> float:
    with sp.open(reference) as checkpoint:
        return float(checkpoint["w"][0, 0])


def test_revisions(cache: Path) -> None:
    _cached(cache, "org/name", COMMIT, 1.0, "main")
    _cached(cache, "org/name", OTHER, 2.0, "refs/pr/7")
    assert _value("org/name") == 1.0
    assert _value("org/name@main") == 1.0
    assert _value(f"org/name@{OTHER}") == 2.0
    assert _value("org/name@0123f") == 2.0
    assert _value("org/name@refs/pr/7") == 2.0
    with pytest.raises(sp.NotFoundError, match="begins 2 commits"):
        sp.open("org/name@0123")
    for bad in ("v2", "../../etc", "main/.."):
        with pytest.raises(sp.NotFoundError, match="revision"):
            sp.open(f"org/name@{bad}")


def test_the_error_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(sp.NotFoundError, match=r"hf download org/name --revision v1.*stockpot\[hub\]"):
        sp.open("org/name@v1")
    with pytest.raises(sp.NotFoundError, match=r"there is no checkpoint at \./org/name"):
        sp.open("./org/name")


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_place_of_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Each variable counts only where those before it are not set."""
    inner = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub", "HOME": ".cache/huggingface/hub"}[variable]
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv(variable, str(cache / "elsewhere"))
    _cached(cache / "elsewhere" / inner, "org/name", COMMIT, 3.0, "main")
    assert _value("org/name") == 3.0


def test_a_path_that_exists_as_written_wins(cache: Path) -> None:
    """So a folder may have + and @ in its name, and one called as a repository hides it."""
    _cached(cache, "org/name", COMMIT, 1.0, "main")
    root = cache.parent
    for index, name in enumerate(["a@b", "a+b", "c++/x@1", "org/name"]):
        write_folder(root / name, {"w": np.full((2, 3), 10.0 + index, np.float32)})
        assert _value(name) == 10 + index
    with pytest.raises(sp.NotFoundError, match=r"no revision .*v1.*leave the @ out"):
        sp.open("a@b@v1" if Path("a@b@v1").exists() else "org/name@v1")


def test_mapping_form(cache: Path) -> None:
    _cached(cache, "org/name", COMMIT, 1.0, "main")
    _cached(cache, "org/name", OTHER, 2.0, "v2")
    write_folder(cache.parent / "a@b", {"w": np.full((2, 3), 9.0, np.float32)})
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "models": [
            {"model": {"model": {"path": "org/name", "revision": "v2"}}},
            {"model": {"path": "a@b"}},
            {"model": {"model": "org/name@main", "override_architecture": "LlamaForCausalLM"}},
        ],
    }
    plan = sp.plan(recipe)
    assert [found["path"] for found in plan.inputs][:2] == ["org/name@v2", "a@b"]
    sp.merge(recipe, "out", progress=False)
    assert read_safetensors(Path("out/model.safetensors"))["w"][0, 0] == 4.0
    for bad in ({"model": {"lora": "x"}}, {"model": {"path": "x", "revison": "v"}}, {"model": {"model": 3}}, {}):
        with pytest.raises(sp.RecipeError, match="model"):
            sp.plan({"merge_method": "linear", "models": [bad]})


@pytest.mark.parametrize("text", ["a@b@c", "+x", "x+", "a+b+c", "@v"])
def test_references_that_are_none(cache: Path, text: str) -> None:
    with pytest.raises(sp.RecipeError, match="model reference"):
        sp.open(text)


def test_the_same_model_by_two_paths(cache: Path) -> None:
    """A base among the models is left out, by whichever path."""
    base = write_folder(cache.parent / "base", {"w": np.full((2, 3), 1.0, np.float32)})
    other = write_folder(cache.parent / "other", {"w": np.full((2, 3), 3.0, np.float32)})
    plan = sp.plan({"merge_method": "task_arithmetic", "base_model": str(base), "models": ["./base", str(other)]})
    assert [found["role"] for found in plan.inputs] == ["base", "model"]


# ---- Fetching


@pytest.fixture
def fake_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, str | None]]]:
    """A huggingface_hub that "fetches" into the cache; what it fetched."""
    fetched: list[tuple[str, str | None]] = []

    def snapshot_download(
        name: str,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
    ) -> str:
        found = cache / ("models--" + name.replace("/", "--")) / "snapshots" / COMMIT
        if local_files_only:
            if not found.is_dir():
                raise FileNotFoundError(name)
            return str(found)
        if name == "org/none":
            raise type("RepositoryNotFoundError", (OSError,), {})("404: no such repository\nmore")
        assert allow_patterns is not None
        assert "*.safetensors" in allow_patterns
        fetched.append((name, revision))
        return str(_cached(cache, name, COMMIT, 5.0, revision or "main"))

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return lambda: fetched


def test_what_is_not_cached_is_fetched_once(
    fake_hub: Callable[[], list[tuple[str, str | None]]], capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "org/name@v1"}, {"model": "org/name@v1"}]}
    sp.merge(recipe, "out", progress=False)
    assert fake_hub() == [("org/name", "v1")]
    assert capfd.readouterr().err == "fetching org/name@v1 from the Hugging Face hub\n"
    sp.plan(recipe)
    assert len(fake_hub()) == 1


def test_incomplete_snapshots_are_fetched_again(
    cache: Path, fake_hub: Callable[[], list[tuple[str, str | None]]]
) -> None:
    """A snapshot with a config only, or without a shard that its index names, is no model."""
    folder = _cached(cache, "org/name", COMMIT, 1.0, "main")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    hub.fetch(["org/name"])
    assert fake_hub() == [("org/name", None)]


def test_offline_fetches_nothing(
    fake_hub: Callable[[], list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from stockpot.cli import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    result = CliRunner().invoke(main, ["inspect", "org/name", "--offline"])
    assert result.exit_code == 1
    assert "hf download org/name" in result.output
    assert fake_hub() == []


def test_the_hub_does_not_have_it(fake_hub: Callable[[], list[tuple[str, str | None]]]) -> None:
    with pytest.raises(sp.NotFoundError, match=r"org/none is no folder here, and could not be fetched .* 404"):
        sp.open("org/none")


def test_references_of_a_recipe() -> None:
    recipe = {
        "slices": [{"sources": [{"model": "a/b", "layer_range": [0, 1]}, {"model": {"path": "c/d", "revision": "r"}}]}],
        "base_model": "e/f@v+g/h@w",
        "modules": {"text": {"models": ["i/j", {"model": "k/l", "parameters": {"weight": 1}}]}},
    }
    found = [part for reference in hub.references(recipe) for part in hub.parts(reference)]
    assert found == [
        ("a/b", None), ("c/d", "r"), ("e/f", "v"), ("g/h", "w"), ("i/j", None), ("k/l", None),
    ]  # fmt: skip
    assert (
        list(hub.parts("./x")) == list(hub.parts("/x/y")) == list(hub.parts("a/b/c")) == list(hub.parts("gpt2")) == []
    )
