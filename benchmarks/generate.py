"""Write synthetic checkpoints to merge: one base and fine-tunes of it, Llama-like or a mixture of experts, sharded.

    python benchmarks/generate.py OUTPUT_DIR [--models 4] [--layers 16] [--dtype bf16] ...
    python benchmarks/generate.py OUTPUT_DIR --bytes 100MB                              another size
    python benchmarks/generate.py OUTPUT_DIR --bytes 2MB --models 128 --shards 10       many small ones
    python benchmarks/generate.py OUTPUT_DIR --layers 51 --width 256 --hidden 96 --experts 128   20,000 tensors, 1 GB

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
"""Most elements of the block of random numbers, and of what is written at once."""

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
    experts: int = 0
    """Above 0: every layer's MLP is this many experts, three matrices each, and their gate."""

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
            if self.experts:
                yield Tensor(prefix + "mlp.gate.weight", (self.experts, width))
            for part in [f"mlp.experts.{expert}" for expert in range(self.experts)] or ["mlp"]:
                yield Tensor(f"{prefix}{part}.gate_proj.weight", (hidden, width))
                yield Tensor(f"{prefix}{part}.up_proj.weight", (hidden, width))
                yield Tensor(f"{prefix}{part}.down_proj.weight", (width, hidden))
        yield Tensor("model.norm.weight", (width,))
        yield Tensor("lm_head.weight", (self.vocabulary, width))

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.elements for tensor in self.tensors()) * DTYPES[self.dtype][1]

    def in_shards(self, count: int) -> Model:
        """The same model in `count` shards, or as many fewer as its tensors allow."""
        size = self.bytes // count
        while len(self._replace(shard_size=size).shards()) > count:
            size += max(1, size // 100)
        return self._replace(shard_size=size)

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


def model_of_bytes(size: int, dtype: str = "bf16", layers: int = 16) -> Model:
    """A dense model of about `size` bytes: its width follows, and 20 rows of vocabulary per column.

    The nearest width that is a multiple of 8 (of 2 below 64) is taken, so small models are off by some per cent.
    """
    width = math.sqrt(size / DTYPES[dtype][1] / (16 * layers + 2 * 20))
    step = 8 if width > 64 else 2
    width = max(step, round(width / step) * step)
    return Model(layers, width, 4 * width, 20 * width, dtype, 500_000_000)


class Values:
    """An endless supply of weights in the bits of the element type."""

    def __init__(self, dtype: str, model: int, largest: int) -> None:
        """Draw the block of a model: -1 is the base, whose numbers all models share. `largest`: of its tensors."""
        self._dtype = dtype
        self._block = min(BLOCK, 1 << max(0, largest - 1).bit_length())
        base = np.random.default_rng(0).standard_normal(self._block, dtype=np.float32)
        noise = np.random.default_rng(model + 2).standard_normal(self._block, dtype=np.float32)
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
            count = min(left, self._block)
            file.write(self._bits[self._place : self._place + count].tobytes())
            self._place = (self._place + STEP) % self._block
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
    values = Values(model.dtype, number, max(tensor.elements for tensor in model.tensors()))
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
        "architectures": ["Qwen3MoeForCausalLM" if model.experts else "LlamaForCausalLM"],
        "model_type": "qwen3_moe" if model.experts else "llama",
        "hidden_size": model.width,
        "intermediate_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": max(1, model.width // 128),
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[model.dtype],
    }
    if model.experts:
        config |= {"num_experts": model.experts, "moe_intermediate_size": model.hidden, "num_experts_per_tok": 8}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return total


def write_set(output: Path, model: Model, models: int) -> int:
    """Write the base and its fine-tunes; returns the bytes of all tensors."""
    names = {-1: "base"} | {number: f"model-{number}" for number in range(models)}
    return sum(write_checkpoint(output / name, model, number) for number, name in names.items())


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
    parser.add_argument("--experts", type=int, default=0, help="experts per layer, each of --hidden (default 0: dense)")
    parser.add_argument("--bytes", type=parse_size, help="of a checkpoint, about: sets width, hidden and vocabulary")
    parser.add_argument("--shards", type=int, help="files of a checkpoint, instead of --shard-size")
    options = parser.parse_args()
    model = Model(
        *(options.layers, options.width, options.hidden, options.vocabulary, options.dtype, options.shard_size),
        experts=options.experts,
    )
    if options.bytes is not None:
        model = model_of_bytes(options.bytes, options.dtype, options.layers)._replace(shard_size=options.shard_size)
    if options.shards is not None:
        model = model.in_shards(options.shards)
    for number in range(-1, options.models):
        folder = options.output / ("base" if number < 0 else f"model-{number}")
        begun = time.perf_counter()
        total = write_checkpoint(folder, model, number)
        seconds = time.perf_counter() - begun
        print(f"{folder}: {total / 1e9:.3g} GB in {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
