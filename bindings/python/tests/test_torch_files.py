"""PyTorch's files as inputs: read in place, nothing run, nothing lost, and nothing that a hostile file can do."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import write_folder
from reference.arrays import read_checkpoint, same_bytes
from torch_files import Call, Named, Storage, state_dict, tensor, write_torch

Tensors = dict[str, np.ndarray]
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.uint8, np.bool_]


def _arrays(seed: int = 0, dtype: Any = np.float32) -> Tensors:
    rng = np.random.default_rng(seed)
    shapes = {"a.weight": (16, 24), "a.bias": (16,), "b.weight": (300, 401), "scale": (), "none": (0, 4)}
    return {name: np.asarray(10 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def _same(path: Path, expected: Tensors) -> None:
    with sp.open(path) as checkpoint:
        assert set(checkpoint) == set(expected)
        for name, array in expected.items():
            assert checkpoint[name].dtype == array.dtype, name
            assert same_bytes(checkpoint[name], array), name


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reads_every_type(tmp_path: Path, dtype: Any, protocol: int) -> None:
    arrays = _arrays(dtype=dtype)
    _same(write_torch(tmp_path / "m.bin", state_dict(arrays), protocol=protocol), arrays)


def test_storage_without_a_type(tmp_path: Path) -> None:
    """Types that came after typed storages, float8 among them, are named beside an untyped one."""
    array = np.arange(24).reshape(4, 6).astype(ml_dtypes.float8_e4m3fn)
    untyped = tensor(Storage(array.view(np.uint8), "UntypedStorage"), (4, 6), dtype="float8_e4m3fn")
    _same(write_torch(tmp_path / "m.pt", {"w": untyped}), {"w": array})


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Tied and sliced tensors share a storage; each is read from its place."""
    whole = np.arange(40, dtype=np.float32)
    storage = Storage(whole)
    value = {
        "tied": tensor(storage),
        "again": tensor(storage),
        "slice": tensor(storage, (3, 4), offset=7),
        "column": tensor(storage, (5, 1), offset=1, strides=(1, 99)),
        "parameter": Call("torch._utils", "_rebuild_parameter", tensor(storage, (2,), 3), True, OrderedDict()),
    }
    expected = {
        "tied": whole,
        "again": whole,
        "slice": whole[7:19].reshape(3, 4),
        "column": whole[1:6].reshape(5, 1),
        "parameter": whole[3:5],
    }
    _same(write_torch(tmp_path / "m.pt", value), expected)


WRAPPED: dict[str, Any] = {
    "lightning": lambda tensors: {
        "epoch": 3,
        "state_dict": tensors,
        "optimizer_states": [{"state": {0: {"exp_avg": tensor(np.ones(3, np.float32))}}}],
        "hyper_parameters": Call("argparse", "Namespace"),
        "callbacks": {"x": Call("somewhere", "Callback", 1, "a")},
    },
    "model": lambda tensors: {"optimizer": None, "model": tensors, "step": 7},
    "nested": lambda tensors: {
        "a": {"weight": tensors["a.weight"], "bias": tensors["a.bias"]},
        **{name: tensors[name] for name in ("b.weight", "scale", "none")},
    },
    "with counters": lambda tensors: {
        **tensors,
        "_version": 1,
        "note": "text",
        "nothing": None,
        "shape": [1, 2],
        "pi": 3.14,
    },
}


@pytest.mark.parametrize("case", WRAPPED)
def test_state_dicts_inside(tmp_path: Path, case: str) -> None:
    arrays = _arrays()
    _same(write_torch(tmp_path / "m.ckpt", WRAPPED[case](state_dict(arrays))), arrays)


def test_zip64_and_comment(tmp_path: Path) -> None:
    arrays = _arrays()
    source = write_torch(tmp_path / "m.pt", state_dict(arrays))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "wide.pt", "w") as new:
        for name in old.namelist():
            with new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                entry.write(old.read(name))
        new.comment = b"PK\5\6 in a comment"
    _same(tmp_path / "wide.pt", arrays)


# ---- Folders


def _folder(root: Path, files: dict[str, Tensors], index: bool = False) -> Path:
    for name, arrays in files.items():
        write_torch(root / name, state_dict(arrays))
    if index:
        names = {key: name for name, arrays in files.items() for key in arrays}
        (root / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return root


def test_folders(tmp_path: Path) -> None:
    arrays = _arrays()
    halves = [dict(list(arrays.items())[:2]), dict(list(arrays.items())[2:])]
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": half for i, half in enumerate(halves)}
    _same(_folder(tmp_path / "single", {"pytorch_model.bin": arrays, "training_args.bin": {}}), arrays)
    _same(_folder(tmp_path / "indexed", shards, index=True), arrays)
    _same(_folder(tmp_path / "series", shards), arrays)
    _same(_folder(tmp_path / "other", {"weights.pth": arrays, "optimizer.pt": {}, "scheduler.pt": {}}), arrays)
    (tmp_path / "series" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(sp.NotFoundError, match="only 1 of the 2"):
        sp.open(tmp_path / "series")
    (tmp_path / "indexed" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(sp.NotFoundError, match="incomplete"):
        sp.open(tmp_path / "indexed")
    with pytest.raises(sp.FormatError, match="give the path of the one"):
        sp.open(_folder(tmp_path / "two", {"a.pt": arrays, "b.pt": arrays}))


def test_safetensors_win(tmp_path: Path) -> None:
    arrays = _arrays()
    _folder(tmp_path / "both", {"pytorch_model.bin": {"other": np.zeros(3, np.float32)}}, index=True)
    write_folder(tmp_path / "both", arrays)
    _same(tmp_path / "both", arrays)


def test_merges_as_safetensors_do(tmp_path: Path) -> None:
    """The same bytes from either kind of file, for any block size."""
    models = []
    for seed in range(3):
        arrays = {name: array for name, array in _arrays(seed).items() if array.size}
        write_folder(tmp_path / f"s{seed}", arrays)
        models.append(write_torch(tmp_path / f"t{seed}" / "pytorch_model.bin", state_dict(arrays)).parent)
    outputs = []
    for kind, memory in (("s", None), ("t", None), ("t", "1MiB")):
        recipe = {
            "merge_method": "ties",
            "base_model": str(tmp_path / f"{kind}0"),
            "models": [str(tmp_path / f"{kind}{seed}") for seed in (1, 2)],
            "parameters": {"density": 0.4},
        }
        sp.merge(recipe, tmp_path / f"out-{kind}-{memory}", progress=False, max_memory=memory)
        outputs.append(read_checkpoint(tmp_path / f"out-{kind}-{memory}"))
    for other in outputs[1:]:
        assert all(same_bytes(other[name], array) for name, array in outputs[0].items())


# ---- What is refused


class _Attack:
    """What a hostile pickle does when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


REFUSED: dict[str, tuple[Any, str]] = {
    "transposed": ({"w": tensor(np.ones((3, 4), np.float32), (4, 3), strides=(1, 4))}, "order of its elements"),
    "expanded": ({"w": tensor(np.ones(3, np.float32), (2, 3), strides=(0, 1))}, "order of its elements"),
    "beyond its storage": ({"w": tensor(np.ones(3, np.float32), (4,))}, "ends after its data"),
    "offset beyond": ({"w": tensor(np.ones(3, np.float32), (1,), offset=3)}, "ends after its data"),
    "huge offset": ({"w": tensor(np.ones(3, np.float32), (1,), offset=2**62)}, "63 bits"),
    "huge shape": ({"w": tensor(np.ones(3, np.float32), (2**40, 2**40))}, "63 bits"),
    "quantized": ({"w": tensor(Storage(np.ones(3, np.uint8), "QInt8Storage"))}, "unknown to this library"),
    "object": (
        {"a": tensor(np.ones(1, np.float32)), "w": Call("torch._tensor", "_rebuild_from_type_v2", 1)},
        "would be lost",
    ),
    "list of tensors": ({"a": tensor(np.ones(1, np.float32)), "w": [tensor(np.ones(1, np.float32))]}, "would be lost"),
    "whole model": (Call("my_code", "Model"), "no state dict"),
    "no tensors": ({"epoch": 1, "loss": 0.5}, "no state dict"),
    "a list": ([tensor(np.ones(1, np.float32))], "no state dict"),
    "a class": ({"w": Named("torch", "float32"), "a": tensor(np.ones(1, np.float32))}, "would be lost"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_command_that_converts(tmp_path: Path, case: str) -> None:
    value, words = REFUSED[case]
    path = write_torch(tmp_path / "m.pt", value)
    with pytest.raises(sp.FormatError, match=words) as caught:
        sp.open(path)
    if not any(word in words for word in ("63 bits", "ends after")):
        assert "python -c" in str(caught.value)


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (_Attack(), {"w": _Attack()}, {"state_dict": {"w": tensor(np.ones(2, np.float32))}, "x": _Attack()}):
        path = write_torch(tmp_path / "m.pt", value)
        with contextlib.suppress(sp.FormatError):
            sp.open(path)
        assert not (tmp_path / "pwned").exists()
        os.remove(path)


def test_other_archives(tmp_path: Path) -> None:
    arrays = state_dict(_arrays())
    with pytest.raises(sp.FormatError, match="big-endian"):
        sp.open(write_torch(tmp_path / "big.pt", arrays, byteorder="big"))
    with pytest.raises(sp.FormatError, match="compressed"):
        sp.open(write_torch(tmp_path / "packed.pt", arrays, compress=True))
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(sp.FormatError, match=r"none of torch\.save"):
        sp.open(tmp_path / "other.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"more" * 10)
    with pytest.raises(sp.FormatError, match=r"before version 1\.6.*python -c"):
        sp.open(tmp_path / "old.pt")


def _pickled(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "only an end": b"\x80\x02.",
    "marks": b"\x80\x02" + b"(" * 500_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "deep dictionaries": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 200_000 + b"}" + b"s" * 200_000 + b".",
    "a dictionary in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "doubling": b"\x80\x02}X\x01\x00\x00\x00kK\x01s"
    + b"".join(b"q%c}X\x01\x00\x00\x00ah%csX\x01\x00\x00\x00bh%cs" % (i, i, i) for i in range(1, 60))
    + b".",
    "long text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "long number": b"\x80\x02\x8a\xff" + b"\xff" * 20 + b".",
    "unknown opcode": b"\x80\x02\xff.",
    "unknown memo": b"\x80\x02h\x07.",
    "call of a number": b"\x80\x02K\x01)R.",
    "storage of nothing": b"\x80\x02)Q.",
    "pop of a mark": b"\x80\x02(0.",
    "protocol 0": b"(dp0\nS'a'\nI1\ns.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles(tmp_path: Path, case: str) -> None:
    with pytest.raises(sp.FormatError):
        sp.open(_pickled(tmp_path / "m.pt", HOSTILE[case]))


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_refused_or_read(tmp_path: Path, seed: int) -> None:
    """Flipped, cut and repeated bytes of a sound file: a StockpotError or a checkpoint, and the process lives."""
    rng = random.Random(seed)
    arrays = {"a.weight": np.ones((4, 6), np.float32), "b": np.arange(9, dtype=np.int64)}
    value = {"state_dict": state_dict(arrays), "x": Call("a", "B", [1, {"c": (2.5, None, True)}])}
    sound = write_torch(tmp_path / "sound.pt", value, protocol=2 + seed % 3).read_bytes()
    pickled = zipfile.ZipFile(tmp_path / "sound.pt").read("archive/data.pkl")
    refused = 0
    for round_ in range(400):
        in_pickle = round_ % 2 == 0
        damaged = bytearray(pickled if in_pickle else sound)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(damaged))
            kind = rng.random()
            if kind < 0.6:
                damaged[place] = rng.randrange(256)
            elif kind < 0.8:
                del damaged[place : place + rng.randint(1, 8)]
            else:
                damaged[place:place] = damaged[place : place + rng.randint(1, 8)]
        path = tmp_path / "m.pt"
        if in_pickle:
            _pickled(path, bytes(damaged))
        else:
            path.write_bytes(bytes(damaged))
        try:
            with sp.open(path) as checkpoint:
                for name in checkpoint:
                    _ = checkpoint[name]
        except sp.StockpotError:
            refused += 1
    assert refused > 100


# ---- With torch


def test_what_torch_saves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Embedding(4, 3))
    expected = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    for name, value in (
        ("plain.bin", model.state_dict()),
        ("lightning.ckpt", {"state_dict": model.state_dict(), "epoch": 2, "optimizer_states": []}),
        ("parameters.pt", dict(model.named_parameters())),
    ):
        torch.save(value, tmp_path / name)
        _same(tmp_path / name, expected)
    torch.save({"w": torch.ones(3, 4).T}, tmp_path / "transposed.pt")
    torch.save(model, tmp_path / "model.pt")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("transposed.pt", "model.pt", "old.pt"):
        with pytest.raises(sp.FormatError, match="python -c"):
            sp.open(tmp_path / name)
    for kind in ("bfloat16", "float8_e4m3fn", "uint16", "float16", "bool"):
        torch.save({"w": torch.ones(2, 3).to(getattr(torch, kind))}, tmp_path / "typed.pt")
        assert sp.open(tmp_path / "typed.pt")["w"].astype(np.float32).tolist() == [[1.0] * 3] * 2
