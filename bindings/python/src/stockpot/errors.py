"""The exceptions of the package: one class per family of status codes of the C library.

Every exception is a `StockpotError` with the code (`status`, `name`) and one sentence for people (`message`), which
names the file, the tensor and the remedy. Where Python has a class for the same mistake (`ValueError`,
`FileNotFoundError`, `MemoryError`, ...) the exception is one of those too, so that ordinary handlers catch it. The
codes are the contract and never change; the sentences may be reworded.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "ArgumentError",
    "Cancelled",
    "DTypeError",
    "FileError",
    "FormatError",
    "InternalError",
    "LibraryError",
    "MethodError",
    "MissingTensorError",
    "NonFiniteError",
    "NotFoundError",
    "OutputExistsError",
    "ParameterError",
    "QuantizedError",
    "RecipeError",
    "ShapeError",
    "StockpotError",
    "StockpotMemoryError",
    "StockpotWarning",
    "error_for",
]

STATUS: Final[dict[str, int]] = {
    "SP_OK": 0,
    "SP_E_ARGUMENT": -10,
    "SP_E_NULL": -11,
    "SP_E_ALIGNMENT": -12,
    "SP_E_OVERLAP": -13,
    "SP_E_SHAPE": -20,
    "SP_E_DTYPE": -21,
    "SP_E_MISSING_TENSOR": -22,
    "SP_E_FILE": -30,
    "SP_E_NOT_FOUND": -31,
    "SP_E_EXISTS": -32,
    "SP_E_FORMAT": -40,
    "SP_E_QUANTIZED": -41,
    "SP_E_RECIPE": -42,
    "SP_E_METHOD": -50,
    "SP_E_PARAMETER": -51,
    "SP_E_NON_FINITE": -52,
    "SP_E_MEMORY": -60,
    "SP_E_CANCELLED": -70,
    "SP_E_INTERNAL": -99,
}
"""Every status of include/stockpot.h by its symbolic name."""

_NAMES: Final[dict[int, str]] = {code: name for name, code in STATUS.items()}


class StockpotWarning(UserWarning):
    """Something a merge did that its author may not have meant; the same text stands in the plan or the report."""


class StockpotError(Exception):
    """A failure reported by the library, or found by the package before calling it.

    Args:
        status: the code of include/stockpot.h, negative.
        name: its symbolic name ("SP_E_SHAPE").
        message: one sentence for people.
    """

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status}, {self.name!r}, {self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.name, self.message)


class ArgumentError(StockpotError, ValueError):
    """A count, index, flag, address or combination of arguments that cannot be (-10 to -13)."""


class ShapeError(StockpotError, ValueError):
    """Shapes that differ, or that the operation does not take (-20)."""


class DTypeError(StockpotError, TypeError):
    """An element type that is unknown, or that the operation does not take (-21)."""


class MissingTensorError(StockpotError, KeyError):
    """A tensor that some input lacks (-22)."""


class FileError(StockpotError, OSError):
    """The system refused to open, read, write or rename (-30)."""


class NotFoundError(StockpotError, FileNotFoundError, KeyError):
    """No such file, folder or tensor name (-31)."""


class OutputExistsError(StockpotError, FileExistsError):
    """The output exists, or is one of the inputs (-32)."""


class FormatError(StockpotError, ValueError):
    """A file that is not what it says: truncated, overlapping, lying (-40)."""


class QuantizedError(StockpotError, ValueError):
    """A quantised checkpoint, whose packed integers cannot be averaged (-41)."""


class RecipeError(StockpotError, ValueError):
    """A recipe that cannot be understood (-42)."""


class MethodError(StockpotError, ValueError):
    """An unknown merge method, or inputs it cannot take (-50)."""


class ParameterError(StockpotError, ValueError):
    """An unknown parameter, or a value out of range (-51)."""


class NonFiniteError(StockpotError, ValueError):
    """NaN or infinity in an input (-52)."""


class StockpotMemoryError(StockpotError, MemoryError):
    """The work does not fit in max_memory, or an allocation failed (-60)."""


class Cancelled(StockpotError):  # noqa: N818 (it reports a request that was granted, not an error)
    """The job was cancelled (-70). Ctrl-C raises KeyboardInterrupt instead."""


class InternalError(StockpotError, RuntimeError):
    """A defect of the library (-99): please report it."""


class LibraryError(StockpotError, OSError):
    """The shared library is missing, of another version, or cannot run on this machine."""


_CLASSES: Final[dict[str, type[StockpotError]]] = {
    "SP_E_ARGUMENT": ArgumentError,
    "SP_E_NULL": ArgumentError,
    "SP_E_ALIGNMENT": ArgumentError,
    "SP_E_OVERLAP": ArgumentError,
    "SP_E_SHAPE": ShapeError,
    "SP_E_DTYPE": DTypeError,
    "SP_E_MISSING_TENSOR": MissingTensorError,
    "SP_E_FILE": FileError,
    "SP_E_NOT_FOUND": NotFoundError,
    "SP_E_EXISTS": OutputExistsError,
    "SP_E_FORMAT": FormatError,
    "SP_E_QUANTIZED": QuantizedError,
    "SP_E_RECIPE": RecipeError,
    "SP_E_METHOD": MethodError,
    "SP_E_PARAMETER": ParameterError,
    "SP_E_NON_FINITE": NonFiniteError,
    "SP_E_MEMORY": StockpotMemoryError,
    "SP_E_CANCELLED": Cancelled,
    "SP_E_INTERNAL": InternalError,
}


def error_for(status: int | str, message: str) -> StockpotError:
    """Make the exception that belongs to a status.

    Args:
        status: a code, or its symbolic name. A code that this version does not know gives a plain StockpotError.
        message: one sentence for people.
    """
    name = status if isinstance(status, str) else _NAMES.get(status, "SP_UNKNOWN")
    code = STATUS[name] if isinstance(status, str) else status
    return _CLASSES.get(name, StockpotError)(code, name, message)
