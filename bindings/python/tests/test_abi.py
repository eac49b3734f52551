"""The ctypes mirror against include/stockpot.h: every constant, struct, field, offset and signature."""

from __future__ import annotations

import ast
import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from stockpot import _abi, dtypes, errors

pycparser = pytest.importorskip("pycparser")

SCALARS = {
    "char": ctypes.c_char,
    "double": ctypes.c_double,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "sp_status": ctypes.c_int32,
    "sp_dtype": ctypes.c_int32,
}


def plain_c(text: str) -> str:
    """The header without comments and preprocessor lines, after typedefs for what its includes define."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    known = "".join(f"typedef int {name};\n" for name in SCALARS if name.endswith("_t"))
    return known + text


class Header:
    """What the header declares."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.functions: dict[str, Any] = {}
        self.structs: dict[str, Any] = {}
        self.callbacks: dict[str, Any] = {}
        for node in pycparser.CParser().parse(plain_c(text)).ext:
            kind = type(node.type).__name__
            if kind == "FuncDecl":
                self.functions[node.name] = node.type
            elif kind == "TypeDecl" and type(node.type.type).__name__ == "Struct":
                self.structs[node.name] = node.type.type
            elif kind == "PtrDecl" and type(node.type.type).__name__ == "FuncDecl":
                self.callbacks[node.name] = node.type.type

    @property
    def macros(self) -> dict[str, str]:
        """Each #define with a value, as text."""
        return dict(re.findall(r"^#define (SP_\w+) ([^\\\n/]+?)\s*(?:/\*.*)?$", self.text, re.MULTILINE))

    def to_ctypes(self, node: Any) -> Any:
        """The ctypes type of a C type."""
        kind = type(node).__name__
        if kind in ("TypeDecl", "Typename", "Decl"):
            return self.to_ctypes(node.type)
        if kind == "ArrayDecl":
            return self.to_ctypes(node.type) * int(node.dim.value)
        if kind == "IdentifierType":
            name = node.names[0]
            if name in self.callbacks:
                return _abi.ProgressFunction
            if name in _abi.STRUCTS:
                return _abi.STRUCTS[name]
            return None if name == "void" else SCALARS[name]
        assert kind == "PtrDecl", kind
        return self.pointer_to(node.type)

    def pointer_to(self, node: Any) -> Any:
        """The ctypes type of a pointer to a C type."""
        target = node.type
        if type(node).__name__ == "PtrDecl":
            return ctypes.POINTER(self.to_ctypes(node))
        name = target.names[0]
        if name == "char":
            return ctypes.c_char_p
        if name == "void":
            return ctypes.c_void_p
        return _abi.HANDLES[name] if name in _abi.HANDLES else ctypes.POINTER(self.to_ctypes(node))

    def parameters(self, function: Any) -> tuple[Any, ...]:
        """The ctypes types of a function's parameters."""
        types = tuple(self.to_ctypes(parameter.type) for parameter in function.args.params)
        return () if types == (None,) else types


@pytest.fixture(scope="module")
def header(header_path: Path) -> Header:
    return Header(header_path.read_text())


def number(macro: str) -> int:
    return int(ast.literal_eval(re.sub(r"\(\w+\)", "", macro).strip("()")))


def test_functions(header: Header) -> None:
    declared = {
        name: (header.to_ctypes(function.type), header.parameters(function))
        for name, function in header.functions.items()
    }
    for name in _abi.LONG_TEXTS:
        result, parameters = declared[name]
        assert result is ctypes.c_char_p
        declared[name] = (ctypes.c_void_p, parameters)
    assert declared == _abi.FUNCTIONS
    assert {"sp_job_plan_json", "sp_job_report_json"} == _abi.LONG_TEXTS


def test_every_function_named_in_the_text_is_parsed(header: Header) -> None:
    text = re.sub(r"/\*.*?\*/", " ", header.text, flags=re.DOTALL)
    names = set(re.findall(r"\b(sp_\w+)\(", text))
    assert names == set(header.functions)


@pytest.mark.parametrize("name", _abi.STRUCTS)
def test_struct(header: Header, name: str) -> None:
    mirror = _abi.STRUCTS[name]
    fields = [(field.name, header.to_ctypes(field.type)) for field in header.structs[name].decls]
    assert fields == list(mirror._fields_)
    rebuilt = type(name, (ctypes.Structure,), {"_fields_": fields})
    for field, _ in fields:
        assert getattr(rebuilt, field).offset == getattr(mirror, field).offset, field
        assert getattr(rebuilt, field).size == getattr(mirror, field).size, field
    assert ctypes.sizeof(rebuilt) == ctypes.sizeof(mirror)


def test_all_structs_and_handles_are_mirrored(header: Header) -> None:
    complete = {name for name, struct in header.structs.items() if struct.decls is not None}
    opaque = {name for name, struct in header.structs.items() if struct.decls is None}
    assert complete == set(_abi.STRUCTS)
    assert opaque == set(_abi.HANDLES)


def test_callback(header: Header) -> None:
    function = header.callbacks["sp_progress_fn"]
    assert _abi.ProgressFunction._restype_ is header.to_ctypes(function.type)
    assert tuple(_abi.ProgressFunction._argtypes_) == header.parameters(function)
    assert not _abi.ProgressFunction()


def test_status_codes(header: Header) -> None:
    declared = {
        name: number(text) for name, text in header.macros.items() if name == "SP_OK" or name.startswith("SP_E_")
    }
    assert declared == errors.STATUS


def test_element_types(header: Header) -> None:
    declared = {name: number(text) for name, text in header.macros.items() if name.startswith("SP_DTYPE_")}
    assert declared == _abi.DTYPES
    assert {row.code for row in dtypes._TABLE} == set(declared.values())


def test_versions(header: Header) -> None:
    macros = header.macros
    assert number(macros["SP_ABI_VERSION"]) == _abi.ABI_VERSION
    assert tuple(number(macros[f"SP_VERSION_{part}"]) for part in ("MAJOR", "MINOR", "PATCH")) == _abi.VERSION


def test_every_constant_is_accounted_for(header: Header) -> None:
    known = {*errors.STATUS, *_abi.DTYPES, "SP_ABI_VERSION", *(f"SP_VERSION_{p}" for p in ("MAJOR", "MINOR", "PATCH"))}
    assert set(header.macros) == known


def test_error_is_512_bytes() -> None:
    assert ctypes.sizeof(_abi.Error) == 512


@pytest.mark.parametrize("name", _abi.STRUCTS)
def test_struct_sizes_of_the_library(library: ctypes.CDLL, name: str) -> None:
    assert library.sp_struct_size(name.encode()) == ctypes.sizeof(_abi.STRUCTS[name])


def test_unknown_struct(library: ctypes.CDLL) -> None:
    assert library.sp_struct_size(b"sp_nothing") == 0
    assert library.sp_struct_size(None) == 0


def test_status_names_of_the_library(library: ctypes.CDLL) -> None:
    for name, code in errors.STATUS.items():
        assert library.sp_status_name(code).decode() == name
    assert library.sp_status_name(-9999) == b"SP_UNKNOWN"
    assert library.sp_status_name(7) == b"SP_UNKNOWN"


@pytest.mark.parametrize("row", dtypes._TABLE, ids=lambda row: row.name)
def test_element_types_of_the_library(library: ctypes.CDLL, row: dtypes.DType) -> None:
    assert library.sp_dtype_name(row.code).decode() == row.name
    assert library.sp_dtype_size(row.code) == row.size
    assert dtypes.array_dtype(row).itemsize == row.size


def test_unknown_element_type(library: ctypes.CDLL) -> None:
    assert library.sp_dtype_name(99) is None
    assert library.sp_dtype_size(99) == 0


def test_version_of_the_library(library: ctypes.CDLL) -> None:
    assert library.sp_version_string().decode() == ".".join(map(str, _abi.VERSION))
