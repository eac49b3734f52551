"""Write synthetic checkpoints to merge: one base and fine-tunes of it, Llama-like, sharded.

    python benchmarks/generate.py OUTPUT_DIR [--models 4] [--layers 16] [--dtype bf16] ...

OUTPUT_DIR/base and OUTPUT_DIR/model-0, ... are written, 1.4 GB each by default (0.7 G parameters in bf16). Nothing but
NumPy is needed, and memory stays at a few blocks: values come from one block of random numbers that is read from
another place for every stretch of every tensor. They are neither independent nor trained, and meant for timing: the
base has the size of real weights, a fine-tune is the base plus noise of one per cent of it, different for every model.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 22
"""Elements of the block of random numbers, and of what is written at once."""

STEP = 1_000_003
"""Distance between the places of consecutive stretches in the block; odd, so that all places come up."""

WEIGHT_SCALE = 0.02
DTYPES = {"bf16": ("BF16", 2), "f16": ("F16", 2), "f32": ("F32", 4)}


class Tensor(NamedTuple):
    """Name and shape of a tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Model(NamedTuple):
    """What a checkpoint looks like."""

    layers: int
    width: int
    hidden: int
    vocabulary: int
    dtype: str
    shard_size: int

    def tensors(self) -> Iterator[Tensor]:
        """The tensors in the order of the layers."""
        width, hidden = self.width, self.hidden
        yield Tensor("model.embed_tokens.weight", (self.vocabulary, width))
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            yield Tensor(prefix + "input_layernorm.weight", (width,))
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield Tensor(f"{prefix}self_attn.{name}.weight", (width, width))
            yield Tensor(prefix + "post_attention_layernorm.weight", (width,))
            yield Tensor(prefix + "mlp.gate_proj.weight", (hidden, width))
            yield Tensor(prefix + "mlp.up_proj.weight", (hidden, width))
            yield Tensor(prefix + "mlp.down_proj.weight", (width, hidden))
        yield Tensor("model.norm.weight", (width,))
        yield Tensor("lm_head.weight", (self.vocabulary, width))

    def shards(self) -> list[list[Tensor]]:
        """The tensors file by file; one that is larger than a shard has its own."""
        size = DTYPES[self.dtype][1]
        shards: list[list[Tensor]] = [[]]
        filled = 0
        for tensor in self.tensors():
            if shards[-1] and filled + tensor.elements * size > self.shard_size:
                shards.append([])
                filled = 0
            shards[-1].append(tensor)
            filled += tensor.elements * size
        return shards


class Values:
    """An endless supply of weights in the bits of the element type."""

    def __init__(self, dtype: str, model: int) -> None:
        """Draw the block of a model: -1 is the base, whose numbers all models share."""
        self._dtype = dtype
        base = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
        noise = np.random.default_rng(model + 2).standard_normal(BLOCK, dtype=np.float32)
        self._base = base * np.float32(WEIGHT_SCALE)
        self._noise = noise * np.float32(0.0 if model < 0 else 0.01 * WEIGHT_SCALE)
        # Twice in a row, so that a stretch may begin anywhere.
        both = np.concatenate([self._encode(self._base + self._noise)] * 2)
        self._bits: npt.NDArray[np.generic] = both
        self._place = 0

    def _encode(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        if self._dtype == "f32":
            return values
        if self._dtype == "f16":
            return values.astype(np.float16)
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even

    def write(self, file: BinaryIO, tensor: Tensor) -> None:
        """Write the elements of a tensor; vectors (norms) are ones plus a tenth of the noise's size."""
        if len(tensor.shape) == 1:
            own = np.float32(1.0) + np.float32(5.0) * self._base[: tensor.elements] + self._noise[: tensor.elements]
            file.write(self._encode(own).tobytes())
            return
        left = tensor.elements
        while left:
            count = min(left, BLOCK)
            file.write(self._bits[self._place : self._place + count].tobytes())
            self._place = (self._place + STEP) % BLOCK
            left -= count


def write_shard(path: Path, tensors: list[Tensor], values: Values, dtype: str) -> None:
    """One .safetensors file: the length of the header, the header, the data."""
    name, size = DTYPES[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.elements * size
        header[tensor.name] = {"dtype": name, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors:
            values.write(file, tensor)


def write_checkpoint(folder: Path, model: Model, number: int) -> int:
    """Write a checkpoint with its index and config; returns the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    values = Values(model.dtype, number)
    shards = model.shards()
    weight_map = {}
    total = 0
    for index, tensors in enumerate(shards):
        name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        write_shard(folder / name, tensors, values, model.dtype)
        for tensor in tensors:
            weight_map[tensor.name] = name
            total += tensor.elements * DTYPES[model.dtype][1]
    if len(shards) > 1:
        index_file = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=2), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.width,
        "intermediate_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": max(1, model.width // 128),
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[model.dtype],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return total


def parse_size(text: str) -> int:
    """Bytes of "500MB", "2GB" or a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 500MB or 2GB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def main() -> int:
    """Write the checkpoints that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR", help="folder for base/, model-0/, model-1/, ...")
    parser.add_argument("--models", type=int, default=4, help="fine-tunes beside the base (default 4)")
    parser.add_argument("--layers", type=int, default=16, help="decoder layers (default 16)")
    parser.add_argument("--width", type=int, default=1536, help="hidden size (default 1536)")
    parser.add_argument("--hidden", type=int, default=6144, help="size of the MLP (default 6144)")
    parser.add_argument("--vocabulary", type=int, default=32000, help="rows of embedding and head (default 32000)")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="element type (default bf16)")
    parser.add_argument("--shard-size", type=parse_size, default=500_000_000, help="of a file (default 500MB)")
    options = parser.parse_args()
    model = Model(options.layers, options.width, options.hidden, options.vocabulary, options.dtype, options.shard_size)
    for number in range(-1, options.models):
        folder = options.output / ("base" if number < 0 else f"model-{number}")
        begun = time.perf_counter()
        total = write_checkpoint(folder, model, number)
        seconds = time.perf_counter() - begun
        print(f"{folder}: {total / 1e9:.2f} GB in {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
