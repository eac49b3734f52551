"""Arrays of any kind as sp_view, without a copy where the library can read them in place.

Taken: numpy arrays (with ml_dtypes' bfloat16 and float8), torch CPU tensors, anything that offers DLPack on the CPU,
and anything with the buffer protocol. torch is never imported: whoever has a tensor has imported it. An array that
is not contiguous, aligned and of the machine's byte order is copied first. Results are of the kind of the inputs: torch
tensors for torch tensors, numpy arrays for everything else.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _abi
from ._dlpack import Imported, from_dlpack
from .dtypes import DType, array_dtype, resolve
from .errors import error_for

if TYPE_CHECKING:
    import numpy as np


class Borrowed(NamedTuple):
    """An array of a caller, ready to be handed to the library.

    Attributes:
        address: of the first element.
        shape: dimensions, at most 8.
        dtype: element type.
        is_torch: whether it came as a torch tensor.
        owner: what must stay alive while `address` is used.
    """

    address: int
    shape: tuple[int, ...]
    dtype: DType
    is_torch: bool
    owner: Any

    def fill(self, view: _abi.View) -> None:
        """Describe the array in a zeroed sp_view."""
        view.data = self.address
        view.count = math.prod(self.shape)
        view.rank = len(self.shape)
        view.dtype = self.dtype.code
        for axis, length in enumerate(self.shape):
            view.shape[axis] = length

    def view(self) -> _abi.View:
        """Describe the array in an sp_view of its own."""
        view = _abi.View()
        self.fill(view)
        return view


def borrow(array: Any, what: str = "array") -> Borrowed:
    """Make an array readable by the library, in place if possible.

    Args:
        array: numpy array, torch CPU tensor, DLPack producer or buffer; any shape of up to 8 dimensions.
        what: what to call it in errors ("models[1]").

    Raises:
        ArgumentError: not an array, or not in the memory of the CPU.
        DTypeError: an element type that the library does not have.
        ShapeError: more than 8 dimensions.
    """
    if _is_numpy(array):
        borrowed = _from_numpy(array, what)
    elif _is_torch(array):
        borrowed = _from_torch(array, what)
    elif hasattr(array, "__dlpack__"):
        borrowed = _from_dlpack(array, what)
    else:
        borrowed = _from_buffer(array, what)
    if len(borrowed.shape) > _abi.MAX_RANK:
        raise error_for(
            "SP_E_SHAPE",
            f"{what} has {len(borrowed.shape)} dimensions and stockpot takes at most 8; reshape it",
        )
    return borrowed


def borrow_all(arrays: Iterable[Any], what: str) -> list[Borrowed]:
    """`borrow` each of several arrays; errors name them what[0], what[1], ...

    Raises:
        ArgumentError: `arrays` is a mapping, text or not iterable.
    """
    if isinstance(arrays, (Mapping, str, bytes)):
        raise error_for("SP_E_ARGUMENT", f"{what} is a {type(arrays).__name__}; give a list of arrays")
    try:
        items = list(arrays)
    except TypeError:
        raise error_for("SP_E_ARGUMENT", f"{what} is a {type(arrays).__name__}; give a list of arrays") from None
    return [borrow(item, f"{what}[{index}]") for index, item in enumerate(items)]


def view_table(arrays: Sequence[Borrowed]) -> ctypes.Array[_abi.View]:
    """The sp_view of each array, in one block as the library reads them."""
    table = (_abi.View * len(arrays))()
    for array, view in zip(arrays, table, strict=True):
        array.fill(view)
    return table


def allocate(shape: Sequence[int], dtype: DType, *, as_torch: bool = False) -> tuple[Any, Borrowed]:
    """Make an uninitialised array for a result: a torch tensor on the CPU, or a numpy array.

    Raises:
        DTypeError: the installed torch lacks the type.
        StockpotMemoryError: not enough memory.
    """
    result: Any
    try:
        if as_torch:
            torch = sys.modules["torch"]
            torch_dtype = getattr(torch, dtype.array, None)
            if torch_dtype is None:
                raise error_for("SP_E_DTYPE", f"the installed torch has no {dtype.array}; give another dtype")
            result = torch.empty(tuple(shape), dtype=torch_dtype, device="cpu")
            return result, Borrowed(int(result.data_ptr()), tuple(shape), dtype, True, result)
        import numpy as np

        result = np.empty(tuple(shape), dtype=array_dtype(dtype))
    except MemoryError:
        size = math.prod(shape) * dtype.size
        raise error_for("SP_E_MEMORY", f"a result of {size} bytes does not fit in memory") from None
    return result, Borrowed(_address(result), tuple(shape), dtype, False, result)


def _is_numpy(array: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(array, (numpy.ndarray, numpy.generic))


def _is_torch(array: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return isinstance(tensor, type) and isinstance(array, tensor)


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _from_numpy(array: Any, what: str) -> Borrowed:
    import numpy as np

    plain = np.asarray(array)
    dtype = resolve(plain.dtype, f"the element type of {what}")
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    if not (plain.flags.c_contiguous and plain.flags.aligned):
        # ascontiguousarray would make a vector of a scalar, and leave a misaligned array where it is.
        plain = plain.copy(order="C")
    return Borrowed(_address(plain), plain.shape, dtype, False, plain)


def _from_torch(tensor: Any, what: str) -> Borrowed:
    device = str(tensor.device)
    if device.split(":")[0] != "cpu":
        raise error_for("SP_E_ARGUMENT", f"{what} is a tensor on device {device}; give {what}.cpu()")
    layout = str(getattr(tensor, "layout", "torch.strided"))
    if layout != "torch.strided":
        raise error_for("SP_E_ARGUMENT", f"{what} has layout {layout}; give {what}.to_dense()")
    dtype = resolve(tensor.dtype, f"the element type of {what}")
    # A conjugate or a negative may be a mere flag on memory that holds the opposite.
    dense = tensor.resolve_conj().resolve_neg()
    dense = dense if dense.is_contiguous() else dense.contiguous()
    if int(dense.data_ptr()) % dtype.size:
        dense = dense.clone()
    return Borrowed(int(dense.data_ptr()), tuple(int(n) for n in dense.shape), dtype, True, dense)


class _Memory:
    """Memory of another library as numpy takes it, whatever its strides: elements are opaque bytes."""

    def __init__(self, source: Imported) -> None:
        self._owner = source.owner
        size = source.dtype.size
        self.__array_interface__ = {
            "version": 3,
            "data": (source.address, True),
            "shape": source.shape,
            "strides": None if source.strides is None else tuple(step * size for step in source.strides),
            "typestr": f"|V{size}",
        }


def _from_dlpack(array: Any, what: str) -> Borrowed:
    source = from_dlpack(array, what)
    if _is_compact(source.shape, source.strides) and source.address % source.dtype.size == 0:
        return Borrowed(source.address, source.shape, source.dtype, False, source.owner)
    import numpy as np

    return _from_numpy(np.array(_Memory(source), order="C").view(array_dtype(source.dtype)), what)


def _from_buffer(array: Any, what: str) -> Borrowed:
    import numpy as np

    try:
        return _from_numpy(np.asarray(memoryview(array)), what)
    except (TypeError, ValueError, BufferError):
        pass
    if hasattr(array, "__array_interface__") or hasattr(array, "__array__"):
        return _from_numpy(np.asarray(array), what)
    raise error_for(
        "SP_E_ARGUMENT",
        f"{what} is a {type(array).__name__}; give a numpy array, a torch CPU tensor, or anything with the buffer "
        "protocol or DLPack",
    )


def _is_compact(shape: Sequence[int], strides: Sequence[int] | None) -> bool:
    if strides is None or 0 in shape:
        return True
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True
