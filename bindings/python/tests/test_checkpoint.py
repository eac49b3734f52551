"""Reading and writing checkpoints."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import Models, encode, header_of, read_safetensors, write_safetensors

pytestmark = pytest.mark.usefixtures("library")

EVERY_TYPE = [
    *(np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    *(np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, np.complex64),
    ml_dtypes.float8_e8m0fnu,
]


def test_mapping(models: Models) -> None:
    expected = models.tensors[0]
    with sp.open(models.base) as checkpoint:
        assert list(checkpoint) == sorted(expected)
        assert len(checkpoint) == len(expected)
        assert "a.bias" in checkpoint
        assert "nothing" not in checkpoint
        assert 5 not in checkpoint
        for name, array in checkpoint.items():
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])
        assert checkpoint["scale"].shape == ()
        assert checkpoint["a.bias"] is not checkpoint["a.bias"]
        assert checkpoint["a.bias"].flags.writeable
        assert checkpoint.get("nothing") is None
        assert "5 tensors" in repr(checkpoint)
        assert checkpoint == checkpoint
        assert hash(checkpoint) is not None


def test_info(models: Models) -> None:
    with sp.open(str(models.base)) as checkpoint:
        info = checkpoint.info("b.weight")
        assert (info.name, info.dtype, info.shape, info.nbytes) == ("b.weight", "F32", (3, 4, 5), 240)
        assert info.file == models.base / "model.safetensors"
        assert [each.name for each in checkpoint.infos()] == list(checkpoint)
        assert checkpoint.nbytes == sum(array.nbytes for array in models.tensors[0].values())
        assert checkpoint.files == [models.base / "model.safetensors"]
        assert checkpoint.metadata == {"format": "pt"}


def test_unknown_name(models: Models) -> None:
    with sp.open(models.base) as checkpoint:
        with pytest.raises(KeyError, match=r"no tensor 'a\.weigth'; did you mean 'a\.weight'"):
            _ = checkpoint["a.weigth"]
        with pytest.raises(sp.NotFoundError):
            checkpoint.info("x")


def test_closed(models: Models) -> None:
    checkpoint = sp.open(models.base)
    kept = checkpoint["a.bias"]
    checkpoint.close()
    checkpoint.close()
    assert checkpoint.closed
    assert "closed" in repr(checkpoint)
    for use in (lambda: checkpoint["a.bias"], lambda: len(checkpoint), lambda: checkpoint.info("a.bias")):
        with pytest.raises(sp.ArgumentError, match="is closed"):
            use()
    np.testing.assert_array_equal(kept, models.tensors[0]["a.bias"])


def test_handles_are_freed(models: Models) -> None:
    for _ in range(3000):  # more than a process may have files open
        _ = sp.open(models.base)["a.bias"]
    gc.collect()


def test_threads_may_read_while_another_closes(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    write_safetensors(path, {"w": np.arange(2_000_000, dtype=np.float32)})
    for _ in range(20):
        checkpoint = sp.open(path)
        start = threading.Barrier(4)
        failures: list[BaseException] = []

        def read(checkpoint: Any = checkpoint, start: Any = start, failures: Any = failures) -> None:
            start.wait()
            try:
                assert checkpoint["w"][-1] == 1_999_999
            except sp.ArgumentError:
                pass
            except BaseException as error:
                failures.append(error)

        workers = [threading.Thread(target=read) for _ in range(3)]
        for worker in workers:
            worker.start()
        start.wait()
        checkpoint.close()
        for worker in workers:
            worker.join()
        assert not failures


def test_single_file_and_folder_of_files(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": np.ones(3, np.float32)}, {"format": "pt", "note": "ü"})
    write_safetensors(tmp_path / "two.safetensors", {"b": np.zeros(2, np.int64)})
    with sp.open(tmp_path / "one.safetensors") as checkpoint:
        assert list(checkpoint) == ["a"]
        assert checkpoint.metadata["note"] == "ü"
    with sp.open(tmp_path) as checkpoint:
        assert list(checkpoint) == ["a", "b"]
        assert len(checkpoint.files) == 2


@pytest.mark.parametrize("dtype", EVERY_TYPE, ids=lambda d: np.dtype(d).name)
def test_every_type_survives(tmp_path: Path, dtype: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 256, 16 * np.dtype(dtype).itemsize)
    array = bits.astype(np.uint8).view(dtype).reshape(2, 8)
    path = tmp_path / "x.safetensors"
    sp.save({"w": array, "empty": array[:0], "scalar": array[0, 0]}, path)
    with sp.open(path) as checkpoint:
        assert checkpoint["w"].dtype == dtype
        assert checkpoint["w"].tobytes() == array.tobytes()
        assert checkpoint["empty"].shape == (0, 8)
        assert checkpoint["scalar"].shape == ()


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = ["ü.ñ", "with space", 'quo"te', "back\\slash", "emoji 🎛", "a" * 5000, "line\nbreak", "."]
    path = tmp_path / "x.safetensors"
    sp.save({name: np.full(2, i, np.float32) for i, name in enumerate(names)}, path)
    with sp.open(path) as checkpoint:
        assert set(checkpoint) == set(names)
        for i, name in enumerate(names):
            assert checkpoint[name][0] == i
    assert set(read_safetensors(path)) == set(names)


def test_shards(tmp_path: Path) -> None:
    tensors = {f"w{i}": np.full(1000, i, np.float32) for i in range(10)}
    sp.save(tensors, tmp_path / "out", shard_size="10kB", metadata={"note": "x"})
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files[0] == "model-00001-of-00005.safetensors"
    assert files[-1] == "model.safetensors.index.json"
    with sp.open(tmp_path / "out") as checkpoint:
        assert len(checkpoint.files) == 5
        assert checkpoint.metadata == {"format": "pt", "note": "x"}
        for name, array in tensors.items():
            np.testing.assert_array_equal(checkpoint[name], array)


def test_save_what_was_opened(models: Models, tmp_path: Path) -> None:
    with sp.open(models.base) as checkpoint:
        sp.save(checkpoint, tmp_path / "copy")
    with sp.open(tmp_path / "copy") as copy:
        for name, array in models.tensors[0].items():
            np.testing.assert_array_equal(copy[name], array)


def test_existing_output(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    sp.save({"w": np.zeros(1, np.float32)}, path)
    with pytest.raises(sp.OutputExistsError, match=r"x\.safetensors"):
        sp.save({"w": np.ones(1, np.float32)}, path)
    assert sp.open(path)["w"][0] == 0
    sp.save({"w": np.ones(1, np.float32)}, path, overwrite=True)
    assert sp.open(path)["w"][0] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


def test_save_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(sp.ArgumentError, match="is not text"):
        sp.save({1: np.zeros(1)}, path)  # type: ignore[dict-item]
    with pytest.raises(sp.ArgumentError, match="mapping of name to array"):
        sp.save([np.zeros(1)], path)  # type: ignore[arg-type]
    with pytest.raises(sp.ArgumentError, match="tensor 'w' is a list"):
        sp.save({"w": [1.0]}, path)
    with pytest.raises(sp.ArgumentError, match="NUL"):
        sp.save({"a\0b": np.zeros(1)}, path)
    with pytest.raises(sp.ArgumentError, match="metadata 'n' is a int"):
        sp.save({"w": np.zeros(1)}, path, metadata={"n": 1})  # type: ignore[dict-item]
    with pytest.raises(sp.ArgumentError, match="shard_size"):
        sp.save({"w": np.zeros(1)}, tmp_path / "out", shard_size="big")
    with pytest.raises(sp.DTypeError):
        sp.save({"w": np.zeros(1, np.complex128)}, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["nothing", "nothing.safetensors", "empty"])
def test_not_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(sp.NotFoundError, match=path):
        sp.open(tmp_path / path)


def test_path_with_nul() -> None:
    with pytest.raises(sp.ArgumentError, match="NUL"):
        sp.open("a\0b")


def test_truncated_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"w": np.ones(100, np.float32)})
    with sp.open(path) as checkpoint:
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises((sp.FormatError, sp.FileError)):
            _ = checkpoint["w"]


def test_nine_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    array = np.zeros((1,) * 9, np.float32)
    path.write_bytes(encode(header_of({"w": array}), array.tobytes()))
    with pytest.raises(sp.ShapeError), sp.open(path) as checkpoint:
        _ = checkpoint["w"]


def test_digits(digits: Path) -> None:
    with sp.open(digits / "base") as checkpoint:
        assert len(checkpoint) == 56
        for name, array in read_safetensors(digits / "base" / "model.safetensors").items():
            np.testing.assert_array_equal(checkpoint[name], array)
