"""A golden set on disk: its cases, and what each output of a case is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.arrays import AnyArray, read_safetensors


@dataclass(frozen=True)
class Output:
    """One golden tensor: `kind` is output, output_tv or aux_..., `tensor` the name within a checkpoint."""

    key: str
    kind: str
    tensor: str
    widened: bool
    """From inputs widened to float32 (the name ends in _f32): what a low-precision candidate is held to."""
    rule: dict[str, Any]

    @property
    def compared(self) -> bool:
        """Whether the manifest calls it comparable."""
        return bool(self.rule["compare"])


@dataclass(frozen=True)
class Case:
    """One tensor-level case with its file read."""

    entry: dict[str, Any]
    arrays: dict[str, AnyArray]
    outputs: tuple[Output, ...]

    @property
    def identity(self) -> str:
        """The case's name in messages."""
        return str(self.entry["id"])

    def inputs(self) -> dict[str, AnyArray]:
        """Input tensors by their golden names."""
        return {name: self.arrays[name] for name in self.entry["inputs"]}

    def participants(self) -> list[str]:
        """Names before "::": base, model_0, ... in order."""
        names = {name.split("::")[0] for name in self.entry["inputs"]}
        return sorted(names, key=_order)

    def tensors(self) -> list[str]:
        """Names after "::"; empty for a case of one tensor."""
        found = (name.split("::", 1)[1] for name in self.entry["inputs"] if "::" in name)
        return list(dict.fromkeys(found))


def _order(name: str) -> tuple[int, str]:
    match = re.fullmatch(r"model_(\d+)", name)
    return (int(match[1]), "") if match else (-1, name)


def _outputs(entry: dict[str, Any]) -> Iterable[Output]:
    tensors = {name.split("::", 1)[1] for name in entry["inputs"] if "::" in name}
    for key, rule in entry["outputs"].items():
        kind, _, tensor = key.partition("::")
        whole = tensor or kind
        widened = whole.endswith("_f32") and tensor not in tensors
        if widened and tensor:
            tensor = tensor.removesuffix("_f32")
        elif widened:
            kind = kind.removesuffix("_f32")
        yield Output(key, kind, tensor, widened, rule)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a golden set."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("format") != 1:
        raise ValueError(f"{folder}: manifest format {manifest.get('format')!r} is not 1")
    return manifest


def read_case(folder: Path, entry: dict[str, Any]) -> Case:
    """A case and its tensors."""
    arrays = read_safetensors(folder / entry["file"])
    return Case(entry, arrays, tuple(_outputs(entry)))
