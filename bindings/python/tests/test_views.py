"""Arrays of every kind as sp_view: in place where possible, copied where not, refused with a reason otherwise."""

from __future__ import annotations

import array
import ctypes
import sys
import types
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import stockpot as sp
from stockpot import dtypes, views

FLOATS = [
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]
OTHERS = [
    *(np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, np.complex64),
    ml_dtypes.float8_e8m0fnu,
]


def content(borrowed: views.Borrowed) -> np.ndarray:
    """What the library would read."""
    count = int(np.prod(borrowed.shape, dtype=np.int64))
    raw = ctypes.string_at(borrowed.address, count * borrowed.dtype.size)
    return np.frombuffer(raw, dtypes.array_dtype(borrowed.dtype)).reshape(borrowed.shape)


@pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS], ids=lambda d: np.dtype(d).name)
def test_numpy_in_place(dtype: Any) -> None:
    source = np.arange(6).astype(dtype).reshape(2, 3)
    borrowed = views.borrow(source)
    assert borrowed.address == source.ctypes.data
    assert borrowed.shape == (2, 3)
    assert borrowed.dtype.array == np.dtype(dtype).name
    assert borrowed.dtype.is_float == (dtype in FLOATS)
    assert not borrowed.is_torch


def test_view_struct() -> None:
    source = np.zeros((2, 3, 4), np.float32)
    view = views.borrow(source).view()
    assert view.data == source.ctypes.data
    assert (view.count, view.rank, view.dtype, view.row_stride_bytes) == (24, 3, 1, 0)
    assert list(view.shape) == [2, 3, 4, 0, 0, 0, 0, 0]
    assert list(view.reserved) == [0, 0]


@settings(deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)), st.integers(0, 2))
def test_any_layout(source: np.ndarray, change: int) -> None:
    shown = [source, source.T, source[..., ::-1] if source.ndim else source][change]
    borrowed = views.borrow(shown)
    assert borrowed.shape == shown.shape
    np.testing.assert_array_equal(content(borrowed), shown)


def test_not_contiguous_is_copied() -> None:
    source = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    borrowed = views.borrow(source)
    assert borrowed.address != source.ctypes.data
    np.testing.assert_array_equal(content(borrowed), source)


def test_misaligned_is_copied() -> None:
    source = np.frombuffer(b"\0" + np.arange(4, dtype=np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    assert source.ctypes.data % 4 != 0
    borrowed = views.borrow(source)
    assert borrowed.address % 4 == 0
    np.testing.assert_array_equal(content(borrowed), [0, 1, 2, 3])


def test_other_byte_order_is_converted() -> None:
    borrowed = views.borrow(np.array([1.0, 2.0], ">f4"))
    np.testing.assert_array_equal(content(borrowed), np.array([1, 2], np.float32))


def test_scalars_and_empty_arrays() -> None:
    assert views.borrow(np.float32(3)).shape == ()
    assert views.borrow(np.array(3.0)).shape == ()
    empty = views.borrow(np.empty((0, 4), np.float16)).view()
    assert (empty.count, empty.rank) == (0, 2)


def test_buffers() -> None:
    floats = array.array("f", [1, 2, 3])
    borrowed = views.borrow(floats)
    assert borrowed.address == floats.buffer_info()[0]
    assert (borrowed.dtype.name, borrowed.shape) == ("F32", (3,))
    assert views.borrow(b"abc").dtype.name == "U8"
    assert views.borrow(memoryview(np.ones((2, 2), np.float64))).shape == (2, 2)


def test_array_protocol() -> None:
    class Lazy:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.ones(3, np.float32)

    assert views.borrow(Lazy()).shape == (3,)


class Exporter:
    """Exports a numpy array through DLPack under another type, strides and device, as other libraries do."""

    def __init__(self, source: np.ndarray, **changes: Any) -> None:
        self.source, self.changes = source, changes
        self.released = False

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.changes.get("device", 1), 0

    def __dlpack__(self, **_: Any) -> Any:
        from stockpot import _dlpack

        source = self.source
        shape = (ctypes.c_int64 * source.ndim)(*source.shape)
        steps = (ctypes.c_int64 * source.ndim)(*(step // source.itemsize for step in source.strides))
        self.tensor = _dlpack._Tensor(
            source.ctypes.data,
            (1, 0),
            source.ndim,
            self.changes.get("type", (2, 32, 1)),
            shape,
            steps if self.changes.get("strides", True) else None,
            0,
        )
        self.keep = (shape, steps)
        new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(("PyCapsule_New", ctypes.pythonapi))(ctypes.addressof(self.tensor), b"dltensor", None)


@pytest.mark.parametrize("strides", [True, False])
def test_dlpack_in_place(strides: bool) -> None:
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    borrowed = views.borrow(Exporter(source, strides=strides))
    assert borrowed.address == source.ctypes.data
    assert (borrowed.shape, borrowed.dtype.name) == ((2, 3), "F32")


def test_dlpack_of_numpy_itself() -> None:
    class Wrapper:
        def __init__(self, source: np.ndarray) -> None:
            self.source = source

        def __dlpack__(self, **options: Any) -> Any:
            return self.source.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.source.__dlpack_device__()

    for source in (np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.array(3.0), np.empty((0, 2))):
        borrowed = views.borrow(Wrapper(source))
        assert borrowed.shape == source.shape
        np.testing.assert_array_equal(content(borrowed), source)


def test_dlpack_bfloat16_which_numpy_refuses() -> None:
    source = np.arange(4).astype(ml_dtypes.bfloat16)
    borrowed = views.borrow(Exporter(source, type=(4, 16, 1)))
    assert borrowed.address == source.ctypes.data
    assert borrowed.dtype.name == "BF16"


def test_dlpack_strided_is_copied() -> None:
    source = np.arange(12).astype(ml_dtypes.bfloat16).reshape(3, 4).T
    borrowed = views.borrow(Exporter(source, type=(4, 16, 1)))
    assert borrowed.shape == (4, 3)
    np.testing.assert_array_equal(content(borrowed), source)


def test_dlpack_on_a_gpu() -> None:
    with pytest.raises(sp.ArgumentError, match=r"models\[1\] is not in the memory of the CPU"):
        views.borrow(Exporter(np.zeros(2, np.float32), device=2), "models[1]")


def test_dlpack_of_an_unknown_type() -> None:
    with pytest.raises(sp.DTypeError, match="DLPack"):
        views.borrow(Exporter(np.zeros(2, np.float32), type=(17, 4, 2)))


def test_capsule_lives_as_long_as_the_view() -> None:
    borrowed = views.borrow(Exporter(np.zeros(2, np.float32)))
    assert type(borrowed.owner).__name__ == "PyCapsule"


@pytest.mark.parametrize("value", [[1.0, 2.0], 3.5, None, "text", object()])
def test_what_is_no_array(value: Any) -> None:
    with pytest.raises(sp.ArgumentError, match="base is a"):
        views.borrow(value, "base")


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([object()]), np.zeros(2, np.complex128), np.zeros(2, "M8[s]")]
)
def test_types_the_library_lacks(value: np.ndarray) -> None:
    with pytest.raises(sp.DTypeError, match="the element type of base"):
        views.borrow(value, "base")


def test_nine_dimensions() -> None:
    with pytest.raises(sp.ShapeError, match="9 dimensions"):
        views.borrow(np.zeros((1,) * 9, np.float32))


@pytest.mark.parametrize("value", [{"a": 1}, "text", 5])
def test_what_is_no_list(value: Any) -> None:
    with pytest.raises(sp.ArgumentError, match="models is a"):
        views.borrow_all(value, "models")


def test_a_stacked_array_is_a_list_of_its_rows() -> None:
    stacked = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert [borrowed.shape for borrowed in views.borrow_all(stacked, "models")] == [(2,)] * 3


@pytest.mark.parametrize(
    "name", ["bfloat16", "BF16", "bf16", "torch.bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)]
)
def test_names_of_a_type(name: Any) -> None:
    assert dtypes.resolve(name).name == "BF16"


@pytest.mark.parametrize("name", [np.float32, "float32", float, "F32", "fp32"])
def test_names_of_floats(name: Any) -> None:
    assert dtypes.resolve(name).name == ("F64" if name is float else "F32")


@pytest.mark.parametrize("name", ["float7", 5, object, np.complex128, "int4"])
def test_unknown_types(name: Any) -> None:
    with pytest.raises(sp.DTypeError, match="dtype is"):
        dtypes.resolve(name)


class FakeTensor:
    """Just what the binding may ask of a torch tensor."""

    def __init__(self, source: np.ndarray, *, device: str = "cpu", layout: str = "torch.strided") -> None:
        self.array, self.device, self.layout = source, device, layout
        self.shape = source.shape

    @property
    def dtype(self) -> Any:
        class DType:
            def __str__(me) -> str:  # noqa: N805
                return f"torch.{self.array.dtype.name}"

        return DType()

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def contiguous(self) -> FakeTensor:
        return FakeTensor(self.array.copy(order="C"))

    def resolve_conj(self) -> FakeTensor:
        return self

    def resolve_neg(self) -> FakeTensor:
        return self

    def clone(self) -> FakeTensor:
        return FakeTensor(self.array.copy(order="C"))


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("torch")
    module.Tensor = FakeTensor  # type: ignore[attr-defined]
    module.bfloat16, module.float32 = ml_dtypes.bfloat16, np.float32  # type: ignore[attr-defined]
    module.empty = lambda shape, dtype, device: FakeTensor(np.zeros(shape, dtype))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_tensors_by_what_they_can_do(fake_torch: types.ModuleType) -> None:
    source = np.arange(4).astype(ml_dtypes.bfloat16)
    borrowed = views.borrow(FakeTensor(source))
    assert (borrowed.address, borrowed.dtype.name, borrowed.is_torch) == (source.ctypes.data, "BF16", True)
    strided = views.borrow(FakeTensor(source[::2]))
    np.testing.assert_array_equal(content(strided), source[::2])


def test_tensors_elsewhere(fake_torch: types.ModuleType) -> None:
    zeros = np.zeros(2, np.float32)
    with pytest.raises(sp.ArgumentError, match=r"base is a tensor on device cuda:0; give base\.cpu\(\)"):
        views.borrow(FakeTensor(zeros, device="cuda:0"), "base")
    with pytest.raises(sp.ArgumentError, match="sparse"):
        views.borrow(FakeTensor(zeros, layout="torch.sparse_coo"))


def test_results_are_tensors(fake_torch: types.ModuleType) -> None:
    result, borrowed = views.allocate((2, 3), dtypes.resolve("bf16"), as_torch=True)
    assert isinstance(result, FakeTensor)
    assert (borrowed.address, borrowed.shape) == (result.data_ptr(), (2, 3))
    with pytest.raises(sp.DTypeError, match="torch has no uint64"):
        views.allocate((2,), dtypes.resolve("uint64"), as_torch=True)


def test_results_that_do_not_fit() -> None:
    with pytest.raises(sp.StockpotMemoryError, match="does not fit"):
        views.allocate((2**60,), dtypes.resolve("uint8"))


def test_torch_itself(library: Any) -> None:
    torch = pytest.importorskip("torch")
    models = [torch.randn(4, 5).to(torch.bfloat16) for _ in range(2)]
    merged = sp.merge_tensors("linear", models, weight=[0.25, 0.75])
    assert isinstance(merged, torch.Tensor)
    assert merged.dtype == torch.bfloat16
    expected = (0.25 * models[0].double() + 0.75 * models[1].double()).to(torch.bfloat16)
    assert torch.equal(merged, expected)
    transposed = sp.cast(models[0].T, torch.float32)
    assert torch.equal(transposed, models[0].T.float())
    assert sp.cast(torch.nn.Parameter(models[0].float()), "bf16").dtype == torch.bfloat16
