"""Stockpot merges neural-network checkpoints: exactly, in flat memory, without PyTorch.

    import stockpot as sp

    sp.merge("recipe.yaml", "merged")                        # whole checkpoints, by a recipe
    sp.model_stock([w1, w2, w3], base=w0)                    # one tensor, by any of sp.methods()
    sp.open("merged")["model.norm.weight"]                   # a lazy mapping of name to array

Importing the package loads neither numpy nor the shared library; the first use of each does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._job import Progress as Progress
    from ._lib import build_info as build_info
    from .checkpoints import Checkpoint as Checkpoint
    from .checkpoints import TensorInfo as TensorInfo
    from .checkpoints import open as open
    from .checkpoints import save as save
    from .errors import ArgumentError as ArgumentError
    from .errors import Cancelled as Cancelled
    from .errors import DTypeError as DTypeError
    from .errors import FileError as FileError
    from .errors import FormatError as FormatError
    from .errors import InternalError as InternalError
    from .errors import LibraryError as LibraryError
    from .errors import MethodError as MethodError
    from .errors import MissingTensorError as MissingTensorError
    from .errors import NonFiniteError as NonFiniteError
    from .errors import NotFoundError as NotFoundError
    from .errors import OutputExistsError as OutputExistsError
    from .errors import ParameterError as ParameterError
    from .errors import QuantizedError as QuantizedError
    from .errors import RecipeError as RecipeError
    from .errors import ShapeError as ShapeError
    from .errors import StockpotError as StockpotError
    from .errors import StockpotMemoryError as StockpotMemoryError
    from .errors import StockpotWarning as StockpotWarning
    from .jobs import extract_lora as extract_lora
    from .jobs import merge as merge
    from .jobs import plan as plan
    from .jobs import reconstruct as reconstruct
    from .kernels import GeometricMedian as GeometricMedian
    from .kernels import angles as angles
    from .kernels import cast as cast
    from .kernels import combine as combine
    from .kernels import geometric_median_weights as geometric_median_weights
    from .kernels import gram as gram
    from .matrices import low_rank_plus_sparse as low_rank_plus_sparse
    from .matrices import polar_factor as polar_factor
    from .matrices import truncated_svd as truncated_svd
    from .plans import MergeResult as MergeResult
    from .plans import Plan as Plan
    from .registry import merge_tensors as merge_tensors
    from .registry import method_schema as method_schema
    from .registry import methods as methods
    from .task_vectors import MagnitudeThreshold as MagnitudeThreshold
    from .task_vectors import elect_signs as elect_signs
    from .task_vectors import magnitude_threshold as magnitude_threshold
    from .task_vectors import random_mask as random_mask
    from .task_vectors import tall_masks as tall_masks

__version__ = "0.1.0"

_HOMES = {
    "_job": ("Progress",),
    "_lib": ("build_info",),
    "checkpoints": ("Checkpoint", "TensorInfo", "open", "save"),
    "errors": (
        *(
            "ArgumentError",
            "Cancelled",
            "DTypeError",
            "FileError",
            "FormatError",
            "InternalError",
            "LibraryError",
        ),
        *("MethodError", "MissingTensorError", "NonFiniteError", "NotFoundError", "OutputExistsError"),
        *(
            "ParameterError",
            "QuantizedError",
            "RecipeError",
            "ShapeError",
            "StockpotError",
            "StockpotMemoryError",
        ),
        "StockpotWarning",
    ),
    "jobs": ("extract_lora", "merge", "plan", "reconstruct"),
    "kernels": ("GeometricMedian", "angles", "cast", "combine", "geometric_median_weights", "gram"),
    "matrices": ("low_rank_plus_sparse", "polar_factor", "truncated_svd"),
    "plans": ("MergeResult", "Plan"),
    "registry": ("merge_tensors", "method_schema", "methods"),
    "task_vectors": ("MagnitudeThreshold", "elect_signs", "magnitude_threshold", "random_mask", "tall_masks"),
}
_MODULES = frozenset({"cli", "dropin", "dtypes", "hub", "recipes", "stats", "views", *_HOMES})
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use; any other name may be a merge method's function."""
    from importlib import import_module

    if name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    elif name in _MODULES:
        return import_module(f".{name}", __name__)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        from .registry import method_function, methods

        if name not in methods():
            raise AttributeError(f"module {__name__!r} has no attribute, and stockpot no merge method, {name!r}")
        value = method_function(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from .errors import LibraryError
    from .registry import methods

    try:
        return sorted([*__all__, *methods(), "dropin"])
    except LibraryError:
        return sorted([*__all__, "dropin"])
