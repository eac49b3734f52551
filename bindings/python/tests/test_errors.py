"""Exceptions: which class belongs to which code, and what they are to ordinary handlers."""

from __future__ import annotations

import pickle

import pytest

import stockpot as sp
from stockpot import _lib, errors


@pytest.mark.parametrize("name", [name for name in errors.STATUS if name != "SP_OK"])
def test_every_code_has_a_class(name: str) -> None:
    error = errors.error_for(name, "a sentence")
    assert type(error) is not errors.StockpotError
    assert (error.status, error.name, str(error)) == (errors.STATUS[name], name, "a sentence")
    assert type(errors.error_for(error.status, "x")) is type(error)


def test_unknown_code() -> None:
    error = errors.error_for(-4711, "new in a later version")
    assert type(error) is sp.StockpotError
    assert (error.status, error.name) == (-4711, "SP_UNKNOWN")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SP_E_ARGUMENT", ValueError),
        ("SP_E_NULL", ValueError),
        ("SP_E_ALIGNMENT", ValueError),
        ("SP_E_OVERLAP", ValueError),
        ("SP_E_SHAPE", ValueError),
        ("SP_E_DTYPE", TypeError),
        ("SP_E_MISSING_TENSOR", KeyError),
        ("SP_E_FILE", OSError),
        ("SP_E_NOT_FOUND", FileNotFoundError),
        ("SP_E_NOT_FOUND", KeyError),
        ("SP_E_EXISTS", FileExistsError),
        ("SP_E_MEMORY", MemoryError),
        ("SP_E_RECIPE", ValueError),
    ],
)
def test_ordinary_handlers_catch_it(name: str, builtin: type[Exception]) -> None:
    error = errors.error_for(name, "file x has no tensor 'y'")
    assert isinstance(error, builtin)
    assert str(error) == "file x has no tensor 'y'"  # not the repr that KeyError makes of it


@pytest.mark.parametrize("name", [name for name in errors.STATUS if name != "SP_OK"])
def test_pickling(name: str) -> None:
    error = errors.error_for(name, "a sentence")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.status, copy.name, copy.message) == (error.status, error.name, error.message)


def test_public_classes() -> None:
    for name in errors.__all__:
        if name != "error_for":
            assert getattr(sp, name) is getattr(errors, name)


def test_library_named_by_the_environment_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPOT_LIBRARY", "/nowhere/libstockpot.so")
    with pytest.raises(sp.LibraryError, match=r"STOCKPOT_LIBRARY names /nowhere/libstockpot\.so"):
        _lib.find_library()


def test_not_a_library(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libstockpot.so"
    path.write_text("not a library")
    with pytest.raises(sp.LibraryError, match="cannot be loaded"):
        _lib._load(path)


def test_a_library_of_something_else() -> None:
    import ctypes.util

    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("no libm to load")
    loaded = ctypes.CDLL(name)
    with pytest.raises(sp.LibraryError, match="has no function sp_version_string"):
        _lib._load(_path_of(loaded._name))


def _path_of(name: str):
    from pathlib import Path

    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if path.rsplit("/", 1)[-1] == name:
            return Path(path)
    pytest.skip(f"{name} is not in /proc/self/maps")


V3 = "fpu sse4_1 sse4_2 ssse3 popcnt cx16 lahf_lm abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"


def test_cpu_flags() -> None:
    assert _lib.missing_cpu_flags(f"processor\t: 0\nflags\t\t: {V3}\n") == []
    assert _lib.missing_cpu_flags(f"flags : {V3.replace('avx2 ', '').replace(' fma', '')}") == ["avx2", "fma"]
    assert _lib.missing_cpu_flags("Features : fp asimd") == []


def test_old_cpu_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(_lib, "missing_cpu_flags", lambda text: ["avx2"])
    monkeypatch.setattr(_lib.sys, "platform", "linux")
    monkeypatch.setattr(_lib.platform, "machine", lambda: "x86_64")
    with pytest.raises(sp.LibraryError, match=r"x86-64-v3.*avx2"):
        _lib._load(tmp_path / "never-looked-at.so")


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, library) -> None:
    monkeypatch.setattr(_lib._abi, "ABI_VERSION", 999)
    with pytest.raises(sp.LibraryError, match="needs 999"):
        _lib._load(_lib.find_library())


def test_another_struct_is_refused(monkeypatch: pytest.MonkeyPatch, library) -> None:
    monkeypatch.setitem(_lib._abi.STRUCTS, "sp_view", _lib._abi.Progress)
    with pytest.raises(sp.LibraryError, match="sp_view"):
        _lib._load(_lib.find_library())
