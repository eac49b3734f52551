"""Find, check and load the shared library, once and on first use.

The library is `libstockpot.so` beside this file, or the file named by the environment variable STOCKPOT_LIBRARY. It is
built for x86-64-v3: an older processor would die on an illegal instruction, so the processor's flags are read first.
After loading, the version of the interface and the size of every struct are compared with `_abi`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any, Final

from . import _abi
from .errors import STATUS, LibraryError, error_for

ENVIRONMENT_VARIABLE: Final = "STOCKPOT_LIBRARY"

# What gcc and the psABI call x86-64-v3, by the names of /proc/cpuinfo: abm is LZCNT, and there is no flag for OSXSAVE.
_X86_64_V3: Final = frozenset(
    {
        *("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"),
        *("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"),
    }
)

_lock = threading.Lock()
_library: ctypes.CDLL | None = None


def lib() -> ctypes.CDLL:
    """Return the loaded library; load it on the first call.

    Raises:
        LibraryError: the file is missing, the processor is too old, or the library is of another version.
    """
    global _library
    if _library is None:
        with _lock:
            if _library is None:
                _library = _load(find_library())
    return _library


def build_info() -> dict[str, Any]:
    """Version, compiler, target and the versions of OpenBLAS and Jansson of the loaded library, for bug reports."""
    import json

    info: dict[str, Any] = json.loads(text(lib().sp_build_json()) or "{}")
    return {**info, "path": lib()._name}


def call(function: str, *arguments: Any) -> None:
    """Call a function that returns a status and takes an sp_error last; raise what it reports.

    Args:
        function: its name in the header.
        arguments: everything but the sp_error.
    """
    error = _abi.Error(struct_size=ctypes.sizeof(_abi.Error))
    status = int(getattr(lib(), function)(*arguments, ctypes.byref(error)))
    if status != 0:
        raise error_for(status, error.message.decode("utf-8", "replace") or f"{function} failed")


def text(value: bytes | None) -> str:
    """Decode a string of the library; None becomes ""."""
    return "" if value is None else value.decode("utf-8", "replace")


def long_text(address: int | None) -> str:
    """Decode one of `_abi.LONG_TEXTS`, without a copy of its bytes in between; None becomes ""."""
    if address is None:
        return ""
    strlen = lib().strlen
    strlen.restype, strlen.argtypes = ctypes.c_size_t, (ctypes.c_void_p,)
    return str((ctypes.c_char * strlen(address)).from_address(address), "utf-8", "replace")


def c_path(path: str | os.PathLike[str]) -> bytes:
    """Encode a path for the library.

    Raises:
        ArgumentError: the path holds a NUL character.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise error_for("SP_E_ARGUMENT", f"the path {os.fspath(path)!r} holds a NUL character")
    return encoded


def c_text(value: str, what: str) -> bytes:
    """Encode text for the library as UTF-8.

    Raises:
        ArgumentError: it holds a NUL character or half a surrogate pair.
    """
    try:
        encoded = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise error_for("SP_E_ARGUMENT", f"{what} is not valid Unicode: {error.reason}") from None
    if b"\0" in encoded:
        raise error_for("SP_E_ARGUMENT", f"{what} holds a NUL character")
    return encoded


def find_library() -> Path:
    """Where the library is to be loaded from.

    Raises:
        LibraryError: there is no such file.
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    if override:
        path = Path(override)
        if not path.is_file():
            raise _library_error(f"{ENVIRONMENT_VARIABLE} names {path}, which is not a file")
        return path
    name = "libstockpot.dylib" if sys.platform == "darwin" else "libstockpot.so"
    path = Path(__file__).with_name(name)
    if not path.is_file():
        raise _library_error(
            f"{name} is not installed beside the package; build it (make) or name it in {ENVIRONMENT_VARIABLE}"
        )
    return path


def missing_cpu_flags(cpuinfo: str) -> list[str]:
    """Names of the x86-64-v3 features that a /proc/cpuinfo does not list; empty if it lists no flags at all."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return sorted(_X86_64_V3.difference(value.split()))
    return []


def _check_cpu() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    missing = missing_cpu_flags(cpuinfo)
    if missing:
        raise _library_error(
            "this processor is older than x86-64-v3 (Intel Haswell 2013, AMD Excavator 2015), which stockpot needs; "
            f"it lacks {', '.join(missing)}"
        )


def _load(path: Path) -> ctypes.CDLL:
    _check_cpu()
    try:
        # An absolute path, since a bare name would be looked up in the system's folders.
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise _library_error(f"{path} cannot be loaded: {error}") from error
    try:
        for name, (result, parameters) in _abi.FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = parameters
    except AttributeError:
        raise _library_error(f"{path} has no function {name}; it is not the library of this package") from None
    _check_versions(library, path)
    return library


def _check_versions(library: ctypes.CDLL, path: Path) -> None:
    version = int(library.sp_abi_version())
    if version != _abi.ABI_VERSION:
        raise _library_error(
            f"{path} has version {version} of the interface and this package needs {_abi.ABI_VERSION}; "
            "install the package and the library of one release"
        )
    for name, struct in _abi.STRUCTS.items():
        size = int(library.sp_struct_size(name.encode()))
        if size != ctypes.sizeof(struct):
            raise _library_error(
                f"{path} has a {name} of {size} bytes and this package one of {ctypes.sizeof(struct)}; "
                "install the package and the library of one release"
            )


def _library_error(message: str) -> LibraryError:
    return LibraryError(STATUS["SP_E_NOT_FOUND"], "SP_E_NOT_FOUND", message)
