"""Models of the Hugging Face hub: what a recipe names and is not on this machine yet is fetched, if that is wanted.

The library reads the local cache by itself. Fetching needs `huggingface_hub`, the optional extra `stockpot[hub]`;
without it, with HF_HUB_OFFLINE=1 and with `--offline` nothing is fetched, and the library says how to get what is
missing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from .errors import error_for

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_SIDE_FILES: Final = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py", "*.spm", "LICENSE*", "NOTICE*")
_WEIGHTS: Final = ("*.safetensors",)
_OLD_WEIGHTS: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TRAINING: Final = ("optimizer*", "scheduler*", "rng_state*", "training_args*", "checkpoint-*/*", "runs/*")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids to fetch."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def parts(reference: str | Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The repositories that a reference names: (org/name, revision) of the model, then of its adapter.

    Args:
        reference: `path[@revision][+adapter[@revision]]`, or the mapping form. What exists as a local path is no
            repository, nor is anything that does not look like one.
    """
    if isinstance(reference, Mapping):
        if isinstance(reference.get("path"), str):
            revision = reference.get("revision")
            yield from _repository(reference["path"], revision if isinstance(revision, str) else None)
            return
        for key in ("model", "lora"):
            if isinstance(reference.get(key), (str, Mapping)):
                yield from parts(reference[key])
        return
    if os.path.lexists(reference):
        return
    for text in reference.split("+"):
        if not os.path.lexists(text):
            path, _, revision = text.partition("@")
            yield from _repository(path, revision or None)


def _repository(path: str, revision: str | None) -> Iterator[tuple[str, str | None]]:
    if _REPOSITORY.fullmatch(path) and not os.path.lexists(path) and ".." not in path and "--" not in path:
        yield path, revision


def references(recipe: Any) -> Iterator[str | Mapping[str, Any]]:
    """Every model reference in a recipe: `model`, `base_model`, and texts in `models`, at any depth."""
    if isinstance(recipe, Mapping):
        for key, value in recipe.items():
            if key in ("model", "base_model") and isinstance(value, (str, Mapping)):
                yield value
            elif key == "models" and isinstance(value, (list, tuple)):
                yield from (entry for entry in value if isinstance(entry, str))
                yield from (found for entry in value if not isinstance(entry, str) for found in references(entry))
            else:
                yield from references(value)
    elif isinstance(recipe, (list, tuple)):
        for entry in recipe:
            yield from references(entry)


def fetch(wanted: Iterable[str | Mapping[str, Any]]) -> None:
    """Fetch the repositories that references name and the local cache lacks; one line on standard error for each.

    Nothing happens without huggingface_hub, or offline.

    Raises:
        NotFoundError: the hub has no such repository or revision, or asks for a login. FileError: the hub cannot be
            reached.
    """
    missing = dict.fromkeys(found for reference in wanted for found in parts(reference))
    if not missing or is_offline() or ("huggingface_hub" not in sys.modules and find_spec("huggingface_hub") is None):
        return
    for repository, revision in missing:
        _fetch(repository, revision)


def _fetch(repository: str, revision: str | None) -> None:
    import huggingface_hub as hub

    patterns = [*_WEIGHTS, *_SIDE_FILES]
    try:
        if _is_complete(Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))):
            return
    except Exception:  # not cached: whatever its class is called in this version
        pass
    name = repository if revision is None else f"{repository}@{revision}"
    print(f"fetching {name} from the Hugging Face hub", file=sys.stderr)
    try:
        folder = Path(
            hub.snapshot_download(
                repository, revision=revision, allow_patterns=patterns, ignore_patterns=list(_TRAINING)
            )
        )
        if not any(folder.glob("*.safetensors")):
            hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[*patterns, *_OLD_WEIGHTS],
                ignore_patterns=list(_TRAINING),
            )
    except OSError as error:  # also huggingface_hub's own, which are HTTP errors
        kind = type(error).__name__
        status = "SP_E_NOT_FOUND" if "NotFound" in kind or "Gated" in kind else "SP_E_FILE"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else kind
        raise error_for(
            status, f"{name} is no folder here, and could not be fetched from the Hugging Face hub: {reason}"
        ) from error
    except ValueError as error:
        raise error_for(
            "SP_E_NOT_FOUND", f"{name} is no folder here and no name of the Hugging Face hub: {error}"
        ) from error


def _is_complete(folder: Path) -> bool:
    """Whether the weights of a snapshot are all there: those that an index names, or any."""
    import json

    for index in folder.glob("*.index.json"):
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return False
        if all((folder / str(file)).is_file() for file in files):
            return True
    if any(folder.glob("*.index.json")):
        return False
    return any(path.is_file() for pattern in (*_WEIGHTS, *_OLD_WEIGHTS) for path in folder.glob(pattern))
