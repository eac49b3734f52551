"""Files of torch.save, written with zipfile and pickle alone, so that the tests need no torch."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Named:
    """A function or class of another module, pickled by its name only."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """An object that a named function makes of arguments when it is unpickled."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.function, self.arguments = (module, name), arguments


class Storage:
    """A storage: its array goes into an entry of its own. One object that is used twice is one entry."""

    def __init__(self, array: np.ndarray, kind: str | None = None) -> None:
        self.array = np.ascontiguousarray(array)
        self.kind = kind or STORAGES[array.dtype.name]


def tensor(
    storage: np.ndarray | Storage,
    shape: tuple[int, ...] | None = None,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    dtype: str | None = None,
) -> Call:
    """A tensor as torch.save writes it: all of an array, or a view of a storage; with dtype, by _rebuild_tensor_v3."""
    if shape is None:
        shape = storage.shape if isinstance(storage, np.ndarray) else storage.array.shape
    if not isinstance(storage, Storage):
        storage = Storage(storage)
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    more = (Named("torch", dtype),) if dtype else ()
    name = "_rebuild_tensor_v3" if dtype else "_rebuild_tensor_v2"
    return Call("torch._utils", name, storage, offset, shape, strides, False, OrderedDict(), *more)


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]  # the one in Python, whose save can be changed
    def __init__(self, out: io.BytesIO, protocol: int) -> None:
        super().__init__(out, protocol)
        self.storages: list[Storage] = []

    def persistent_id(self, found: Any) -> Any:
        if not isinstance(found, Storage):
            return None
        if not any(found is known for known in self.storages):
            self.storages.append(found)
        number = next(index for index, known in enumerate(self.storages) if found is known)
        kind = Named("torch.storage" if found.kind == "UntypedStorage" else "torch", found.kind)
        return ("storage", kind, str(number), "cpu", found.array.size)

    def save(self, found: Any, save_persistent_id: bool = True) -> None:
        if isinstance(found, Named):
            self.write(pickle.GLOBAL + f"{found.module}\n{found.name}\n".encode())
        elif isinstance(found, Call):
            self.save(Named(*found.function))
            self.save(found.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(found, save_persistent_id)


def write_torch(
    path: Path,
    value: Any,
    *,
    protocol: int = 2,
    prefix: str = "archive/",
    byteorder: str | None = "little",
    compress: bool = False,
) -> Path:
    """Write what torch.save(value) would; tensors are made by `tensor`."""
    out = io.BytesIO()
    pickler = _Pickler(out, protocol)
    pickler.dump(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}data.pkl", out.getvalue())
        if byteorder is not None:
            archive.writestr(f"{prefix}byteorder", byteorder)
        for number, storage in enumerate(pickler.storages):
            archive.writestr(f"{prefix}data/{number}", storage.array.tobytes())
        archive.writestr(f"{prefix}version", "3\n")
    return path


def state_dict(arrays: Mapping[str, np.ndarray]) -> OrderedDict[str, Call]:
    """Arrays as the tensors of a state dict, each with a storage of its own."""
    return OrderedDict((name, tensor(array)) for name, array in arrays.items())
