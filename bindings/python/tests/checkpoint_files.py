"""Checkpoints written by hand, byte by byte, so that the tests do not rest on the library's own writer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAMES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "bool": "BOOL",
    "uint8": "U8",
    "int32": "I32",
    "int64": "I64",
}


class Models(NamedTuple):
    """Paths of a base and its fine-tunes, and what they hold."""

    base: Path
    models: list[Path]
    tensors: list[dict[str, np.ndarray]]  # the base's first

    def recipe(self, method: str = "linear", **top: Any) -> dict[str, Any]:
        """A recipe that merges the models."""
        value: dict[str, Any] = {"merge_method": method, "models": [{"model": str(path)} for path in self.models]}
        return {**value, "base_model": str(self.base), **top}


def header_of(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The header that describes arrays one after another."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return header


def encode(header: Any, data: bytes) -> bytes:
    """A safetensors file of a header, which may be text or lies, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(header_of(tensors, metadata), b"".join(array.tobytes() for array in tensors.values())))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read one file back, without the library."""
    import ml_dtypes

    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    types = {value: key for key, value in NAMES.items()}
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind = types[entry["dtype"]]
        dtype = np.dtype(getattr(ml_dtypes, kind) if hasattr(ml_dtypes, kind) else kind)
        begin, end = entry["data_offsets"]
        found[name] = np.frombuffer(raw[8 + size + begin : 8 + size + end], dtype).reshape(entry["shape"])
    return found


def write_folder(path: Path, tensors: Mapping[str, np.ndarray], **config: Any) -> Path:
    """Write a model folder: model.safetensors and config.json."""
    write_safetensors(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps({"model_type": "test", "torch_dtype": "float32", **config}))
    return path


def write_models(root: Path, count: int = 3, seed: int = 0) -> Models:
    """Write a base and `count` fine-tunes of it, which went much the same way."""
    rng = np.random.default_rng(seed)
    base = {
        "a.bias": rng.standard_normal(16).astype(np.float32),
        "a.weight": rng.standard_normal((16, 24)).astype(np.float32),
        "b.weight": rng.standard_normal((3, 4, 5)).astype(np.float32),
        "position_ids": np.arange(7, dtype=np.int64),
        "scale": np.float32(1.5).reshape(()),
    }
    everything = [base]
    common = {name: rng.standard_normal(array.shape) for name, array in base.items()}
    for _ in range(count):
        everything.append(
            {
                name: array
                if array.dtype == np.int64
                else (array + 0.1 * (common[name] + rng.standard_normal(array.shape) / 2)).astype(np.float32)
                for name, array in base.items()
            }
        )
    write_folder(root / "base", base)
    (root / "base" / "tokenizer.json").write_text('{"version": "1.0"}')
    paths = [write_folder(root / f"model-{index}", tensors) for index, tensors in enumerate(everything[1:])]
    return Models(root / "base", paths, everything)


SPARSE_TENSORS, SPARSE_BYTES = 64, 4 * 1024**2


def write_sparse_models(root: Path, count: int = 12) -> list[Path]:
    """Write models whose merge takes a while: 256 MiB of zeros each, in files that take no place on the disk."""
    header = {
        f"layer.{i:02}": {
            "dtype": "BF16",
            "shape": [SPARSE_BYTES // 2],
            "data_offsets": [i * SPARSE_BYTES, (i + 1) * SPARSE_BYTES],
        }
        for i in range(SPARSE_TENSORS)
    }
    paths = [root / f"model-{index}.safetensors" for index in range(count)]
    for path in paths:
        path.write_bytes(encode(header, b""))
        os.truncate(path, path.stat().st_size + SPARSE_TENSORS * SPARSE_BYTES)
    return paths
