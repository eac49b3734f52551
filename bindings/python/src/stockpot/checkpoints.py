"""Checkpoints on disk, safetensors files or sharded folders: `open` reads one lazily, `save` writes one."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _abi, hub
from ._lib import c_path, c_text, call, lib, text
from ._values import parse_size, to_json
from .dtypes import DType, array_dtype, from_code
from .errors import error_for
from .views import borrow, view_table

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TensorInfo(NamedTuple):
    """What a checkpoint's header says of one tensor.

    Attributes:
        name: of the tensor.
        dtype: as safetensors spells it ("BF16").
        shape: dimensions.
        nbytes: size of its data.
        file: the file that holds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: Path


class _Handle:
    """An sp_checkpoint. It is freed with its last reference, which a reader holds while it reads."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        hub.fetch([os.fsdecode(path)])
        self.pointer = _abi.Checkpoint()
        call("sp_checkpoint_open", c_path(path), ctypes.byref(self.pointer))
        weakref.finalize(self, lib().sp_checkpoint_free, self.pointer)


class Checkpoint(Mapping[str, "NDArray[Any]"]):
    """A checkpoint opened for reading: a mapping of tensor name to numpy array, in order of the names.

    Nothing but the headers is read when it is opened, and a tensor each time it is asked for: `checkpoint[name]` is a
    new array of its own. bfloat16 and float8 come as ml_dtypes. Any number of threads may read; `close`, or leaving a
    `with` block, frees the handle.

    Raises:
        NotFoundError: (also a KeyError and a FileNotFoundError) no such name.
        FormatError: the file has shrunk since. ArgumentError: the checkpoint is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._handle: _Handle | None = _Handle(path)
        self.path = Path(path)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the handle, once no thread is reading. Arrays already read stay valid; closing twice is harmless."""
        self._handle = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle is None

    __eq__ = object.__eq__  # a mapping's would read and compare every tensor
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return int(lib().sp_checkpoint_tensor_count(self._open_handle().pointer))

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __getitem__(self, name: str) -> NDArray[Any]:
        import numpy as np

        handle = self._open_handle()
        index, info, dtype = self._find(name)
        array: NDArray[Any] = np.empty(info.shape, array_dtype(dtype))
        call("sp_checkpoint_read", handle.pointer, index, array.ctypes.data, array.nbytes)
        return array

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} tensors"
        return f"<stockpot.Checkpoint {str(self.path)!r}: {state}>"

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor; nothing is read.

        Raises:
            NotFoundError: no such name.
        """
        return self._find(name)[1]

    def infos(self) -> list[TensorInfo]:
        """What the headers say of every tensor, in order of the names."""
        return [info for _, info, _ in self._infos.values()]

    @functools.cached_property
    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of the first file."""
        handle = self._open_handle()
        found = json.loads(text(lib().sp_checkpoint_metadata_json(handle.pointer)) or "{}")
        return {str(key): str(value) for key, value in found.items()}

    @property
    def nbytes(self) -> int:
        """Sum of the sizes of all tensors."""
        return sum(info.nbytes for info in self.infos())

    @property
    def files(self) -> list[Path]:
        """The files that hold tensors, sorted."""
        return sorted({info.file for info in self.infos()})

    @functools.cached_property
    def _infos(self) -> dict[str, tuple[int, TensorInfo, DType]]:
        handle = self._open_handle()
        found = {}
        raw = _abi.TensorInfo(struct_size=ctypes.sizeof(_abi.TensorInfo))
        for index in range(len(self)):
            call("sp_checkpoint_tensor_info", handle.pointer, index, ctypes.byref(raw))
            dtype = from_code(raw.dtype)
            shape = tuple(raw.shape[: raw.rank])
            info = TensorInfo(text(raw.name), dtype.name, shape, raw.bytes, Path(os.fsdecode(raw.file)))
            found[info.name] = (index, info, dtype)
        return found

    def _find(self, name: str) -> tuple[int, TensorInfo, DType]:
        self._open_handle()
        try:
            return self._infos[name]
        except KeyError:
            raise error_for("SP_E_NOT_FOUND", _no_tensor(name, self)) from None

    def _open_handle(self) -> _Handle:
        if self._handle is None:
            raise error_for("SP_E_ARGUMENT", f"the checkpoint {self.path} is closed")
        return self._handle


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint for reading.

    Args:
        path: a folder with model.safetensors.index.json, a folder with *.safetensors files, a .safetensors file, or
            org/name[@revision] of the Hugging Face hub, which is fetched if it is not cached (docs/recipes.md).

    Returns:
        A lazy mapping of tensor name to numpy array, which is also a context manager.

    Raises:
        NotFoundError: no such path, or no safetensors file there. FileError: it cannot be read.
        FormatError: a header that is truncated or lies, or an index that does not match its files.
    """
    return Checkpoint(path)


def save(
    tensors: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    shard_size: int | str | None = None,
    overwrite: bool = False,
) -> None:
    """Write tensors as a safetensors checkpoint, in the reference writer's order and alignment.

    Args:
        tensors: arrays by name: numpy (with ml_dtypes), torch on the CPU, DLPack or buffers; up to 8 dimensions.
        path: ends in ".safetensors": one file. Otherwise a folder: model.safetensors, or shards with an index.
        metadata: text by name for `__metadata__`; {"format": "pt"} is added unless given.
        shard_size: bytes per shard of a folder, or text such as "5GB", which is the default.
        overwrite: replace an existing path, once the new one is complete.

    Raises:
        OutputExistsError: the path exists and `overwrite` is false. FileError: it cannot be written.
        DTypeError: an element type the library lacks. ArgumentError: not arrays, or metadata that is not text.
    """
    if not isinstance(tensors, Mapping):
        raise error_for("SP_E_ARGUMENT", f"tensors is a {type(tensors).__name__}; give a mapping of name to array")
    names = []
    for name in tensors:
        if not isinstance(name, str):
            raise error_for("SP_E_ARGUMENT", f"the name {name!r} of a tensor is not text")
        names.append(c_text(name, f"the name {name!r}"))
    arrays = [borrow(array, f"tensor {name!r}") for name, array in tensors.items()]
    for key, value in (metadata or {}).items():
        if not isinstance(value, str):
            raise error_for(
                "SP_E_ARGUMENT", f"metadata {key!r} is a {type(value).__name__}; safetensors holds only text"
            )
    call(
        "sp_checkpoint_save",
        c_path(path),
        (ctypes.c_char_p * len(names))(*names),
        view_table(arrays),
        len(arrays),
        None if metadata is None else to_json(metadata, "metadata", "SP_E_ARGUMENT"),
        parse_size(shard_size, "shard_size"),
        int(bool(overwrite)),
    )


def as_tensors(
    source: Mapping[str, Any] | str | os.PathLike[str], what: str
) -> AbstractContextManager[Mapping[str, Any]]:
    """A mapping as it is, or the checkpoint of a path, opened for a `with` block.

    Raises:
        ArgumentError: neither. NotFoundError, FormatError: the path is not a checkpoint.
    """
    if isinstance(source, Mapping):
        return nullcontext(source)
    if isinstance(source, (str, os.PathLike)):
        return Checkpoint(source)
    raise error_for(
        "SP_E_ARGUMENT",
        f"{what} is a {type(source).__name__}; give a mapping of tensor name to array, or a path",
    )


def _no_tensor(name: object, checkpoint: Checkpoint) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), list(checkpoint), n=1)
    advice = f"; did you mean {near[0]!r}?" if near else ""
    return f"{checkpoint.path} has no tensor {name!r}{advice}"
