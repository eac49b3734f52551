"""Layer statistics: what goes into each layer of a model, per input channel, for methods such as scale_svd.

`collect` watches a PyTorch model, `LayerStatistics.update` takes the arrays of any other forward pass. Neither imports
torch. Arithmetic is binary64 in the library; docs/statistics.md has the file format, the names and the error bounds.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _abi
from ._lib import c_path, c_text, call, lib, text
from ._values import check_int32
from .dtypes import resolve
from .errors import error_for
from .views import allocate, borrow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LayerState", "LayerStatistics", "collect"]

FORMAT: Final = "stockpot.layer_statistics"
"""The `format` in the metadata of a file of statistics."""


class LayerState(NamedTuple):
    """All that is known of one layer, from which both statistics follow.

    Attributes:
        rows: how many were seen.
        means: [n] float64, the mean of each channel.
        deviations: [n] float64, the sum of squared deviations from it.
    """

    rows: int
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]


class LayerStatistics(Mapping[str, "NDArray[np.float32]"]):
    """Statistics of layer inputs by parameter name: a mapping of name to [n] float32, in order of the names.

    It grows by `update`, batch by batch, and by `merge`. Copies and pickles carry the full state, so that processes can
    each collect a part. A collection that was read by `load` holds values only and does not grow. Any number of threads
    may use one collection.

    Args:
        statistic: "second_moment", the mean of the squares, or "variance", unbiased (0 for a single row): what is read
            and saved.

    Raises:
        ParameterError: no such statistic.
    """

    def __init__(self, statistic: str = "second_moment") -> None:
        self._handle: _abi.Statistics | None = _abi.Statistics()
        self._lock = threading.Lock()
        self._loaded: dict[str, NDArray[np.float32]] = {}
        self._loaded_counts: dict[str, int] = {}
        self.statistic = statistic
        call("sp_statistics_create", c_text(statistic, "statistic"), ctypes.byref(self._handle))
        weakref.finalize(self, lib().sp_statistics_free, self._handle)

    def update(self, name: str, array: Any, *, channel_axis: int = -1) -> None:
        """Add the rows of an array to a layer. On failure nothing is added.

        Args:
            name: of the parameter that multiplies this input ("blocks.0.mlp.c_fc.weight").
            array: numpy (with ml_dtypes), torch on the CPU, DLPack or buffer; any float type, at least one dimension.
                Every axis but one counts rows: tokens [..., n], or [batch, n, height, width] with `channel_axis` 1.
                An array without rows is checked, and adds nothing.
            channel_axis: the axis of the n input channels.

        Raises:
            ShapeError: a scalar, no channels, or another number of them than before. DTypeError: not a float type.
            NonFiniteError: NaN or infinity, or squares beyond float64. ArgumentError: the name or the axis, not an
            array in CPU memory, or statistics that were loaded.
        """
        if not isinstance(name, str):
            raise error_for("SP_E_ARGUMENT", f"the name {name!r} of a layer is not text")
        encoded = c_text(name, "the name")
        source = borrow(array, f"the input of {name!r}")
        axis = check_int32(channel_axis, "channel_axis")
        with self._lock:
            call("sp_statistics_update", self._open_handle(), encoded, ctypes.byref(source.view()), axis)

    def merge(self, other: LayerStatistics) -> None:
        """Add all rows that another collection has seen, whatever its statistic. On failure nothing is added.

        Raises:
            ShapeError: a layer has another number of channels there. ArgumentError: `other` is no collection, is this
            one, or either was loaded.
        """
        if not isinstance(other, LayerStatistics):
            raise error_for("SP_E_ARGUMENT", f"other is a {type(other).__name__}; give a LayerStatistics")
        if other is self:
            raise error_for("SP_E_ARGUMENT", "statistics cannot be merged with themselves")
        # Always in one order: two threads may merge two collections into each other.
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            call("sp_statistics_merge", self._open_handle(), other._open_handle())

    @property
    def names(self) -> list[str]:
        """Names of the layers that have rows, sorted by their bytes."""
        return list(self)

    @property
    def counts(self) -> dict[str, int]:
        """Rows seen of each layer."""
        if self._handle is None:
            return dict(self._loaded_counts)
        with self._lock:
            return {name: self._size(index)[1] for index, name in enumerate(self._names())}

    def state(self, name: str) -> LayerState:
        """All that is known of a layer.

        Raises:
            NotFoundError: no such layer. ArgumentError: the statistics were loaded, and hold values only.
        """
        with self._lock:
            self._open_handle()
            return self._state(self._index(name))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the statistic as a safetensors file, name to [n] float32, which a recipe names under `statistics:`.

        Args:
            path: ends in ".safetensors".
            overwrite: replace an existing file, once the new one is complete.

        Raises:
            OutputExistsError: the path exists and `overwrite` is false. FileError: it cannot be written.
            NonFiniteError: a value above the range of float32. ArgumentError: the path, no layer, or loaded statistics.
        """
        with self._lock:
            call("sp_statistics_save", self._open_handle(), c_path(path), int(bool(overwrite)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LayerStatistics:
        """Read a file that `save` wrote: its values, rows and statistic, not the state from which it could grow.

        Raises:
            NotFoundError, FileError: it cannot be read. FormatError: not a file of statistics.
        """
        from .checkpoints import Checkpoint

        with Checkpoint(path) as file:
            metadata = file.metadata
            if metadata.get("format") != FORMAT or metadata.get("version") != "1":
                raise error_for(
                    "SP_E_FORMAT",
                    f"{path} is not a file of layer statistics of version 1; stockpot.open reads any safetensors file",
                )
            result = cls(_read_statistic(metadata, path))
            result._handle = None
            result._loaded_counts = _read_counts(metadata, path)
            for info in file.infos():
                if info.dtype != "F32" or len(info.shape) != 1 or info.name not in result._loaded_counts:
                    raise error_for("SP_E_FORMAT", f"{info.name!r} of {path} is no statistic; collect them again")
                result._loaded[info.name] = file[info.name]
        return result

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        with self._lock:
            if self._handle is None:
                if name not in self._loaded:
                    raise self._missing(name)
                return self._loaded[name].copy()
            index = self._index(name)
            values, out = allocate(self._size(index)[:1], resolve("float32"))
            call("sp_statistics_read", self._handle, index, ctypes.byref(out.view()))
        result: NDArray[np.float32] = values
        return result

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(self._names())

    def __len__(self) -> int:
        return len(self._loaded) if self._handle is None else int(lib().sp_statistics_count(self._handle))

    __eq__ = object.__eq__  # a mapping's would compare arrays
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<stockpot.LayerStatistics of {len(self)} layers, {self.statistic}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._handle is None:
            return _rebuild, (self.statistic, None, dict(self._loaded), dict(self._loaded_counts))
        with self._lock:
            states = {name: tuple(self._state(index)) for index, name in enumerate(self._names())}
        return _rebuild, (self.statistic, states, {}, {})

    def _names(self) -> list[str]:
        if self._handle is None:
            return list(self._loaded)
        library = lib()
        return [text(library.sp_statistics_name(self._handle, index)) for index in range(len(self))]

    def _index(self, name: str) -> int:
        try:
            return self._names().index(name)
        except ValueError:
            raise self._missing(name) from None

    def _missing(self, name: object) -> Exception:
        import difflib

        near = difflib.get_close_matches(str(name), self._names(), n=1)
        return error_for(
            "SP_E_NOT_FOUND", f"no layer {name!r} was seen" + (f"; did you mean {near[0]!r}?" if near else "")
        )

    def _size(self, index: int) -> tuple[int, int]:
        channels, rows = ctypes.c_size_t(), ctypes.c_uint64()
        call("sp_statistics_layer", self._handle, index, ctypes.byref(channels), ctypes.byref(rows))
        return channels.value, rows.value

    def _state(self, index: int) -> LayerState:
        import numpy as np

        channels, rows = self._size(index)
        means, deviations = np.empty(channels), np.empty(channels)
        call("sp_statistics_state", self._handle, index, _doubles(means), _doubles(deviations), channels)
        return LayerState(rows, means, deviations)

    def _open_handle(self) -> _abi.Statistics:
        if self._handle is None:
            raise error_for(
                "SP_E_ARGUMENT",
                "statistics that were loaded hold values only: collect anew, or pickle what is to grow",
            )
        return self._handle


def collect(
    model: Any,
    batches: Iterable[Any],
    *,
    statistic: str = "second_moment",
    forward: Callable[[Any, Any], object] | None = None,
    max_batches: int | None = None,
    prefix: str = "",
) -> LayerStatistics:
    """Run a PyTorch model on batches and collect the statistics of its layers.

    Watched are every Linear, Conv1d, Conv2d and Conv3d, LayerNorm and modules like it (RMSNorm: a weight with one axis,
    of the size of the input's last), and attention: `in_proj_weight` by the query, `out_proj.weight` by what goes INTO
    the projection. torch's MultiheadAttention never calls its projection as a module, so its forward runs a second time
    with the identity in the projection's place. The model runs in evaluation mode, without gradients and without
    torch's fused inference path, which would pass the hooks by; all of it is put back afterwards.

    Args:
        model: a torch.nn.Module, on any device.
        batches: what the model takes: a tensor, a tuple or list of arguments, or a mapping of keyword arguments. Every
            row counts, padding included.
        statistic: "second_moment" or "variance".
        forward: called as `forward(model, batch)` instead, where batches are something else (images with labels).
        max_batches: stop after so many.
        prefix: stands in front of every name ("visual." for one tower of a checkpoint).

    Returns:
        The statistics by the model's parameter names.

    Raises:
        NonFiniteError: NaN or infinity in the input of a layer, which it names. ArgumentError: not a torch module, no
        layer to watch, or no batch. ParameterError: no such statistic. What the model raises passes through.

    A `StockpotWarning` names layers that no batch reached.

    Source of the statistic: Zhang and Papyan, "OATS: outlier-aware pruning through sparse and low rank decomposition",
    arXiv:2409.13652.
    """
    from ._hooks import watch

    if max_batches is not None and max_batches < 1:
        raise error_for("SP_E_ARGUMENT", f"max_batches is {max_batches}; give at least 1")
    result = LayerStatistics(statistic)
    with watch(model, result.update, prefix) as run:
        for batch in itertools.islice(batches, max_batches):
            run(batch, forward)
    if not len(result):
        raise error_for("SP_E_ARGUMENT", "no layer has seen a row: batches is empty, or the model was not run")
    return result


def _rebuild(
    statistic: str,
    states: dict[str, tuple[int, Any, Any]] | None,
    values: dict[str, Any],
    counts: dict[str, int],
) -> LayerStatistics:
    """A collection from its pickled state."""
    result = LayerStatistics(statistic)
    if states is None:
        result._handle, result._loaded, result._loaded_counts = None, values, counts
        return result
    for name, (rows, means, deviations) in states.items():
        arguments = (c_text(name, "the name"), rows, _doubles(means), _doubles(deviations), len(means))
        call("sp_statistics_add_state", result._handle, *arguments)
    return result


def _doubles(array: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def _read_statistic(metadata: Mapping[str, str], path: object) -> str:
    statistic = metadata.get("statistic", "")
    if statistic not in ("second_moment", "variance"):
        raise error_for("SP_E_FORMAT", f"{path} holds the unknown statistic {statistic!r}")
    return statistic


def _read_counts(metadata: Mapping[str, str], path: object) -> dict[str, int]:
    try:
        counts = json.loads(metadata.get("counts", ""))
        return {str(name): int(rows) for name, rows in counts.items()}
    except (ValueError, TypeError, AttributeError):
        raise error_for("SP_E_FORMAT", f"the counts in the metadata of {path} are no JSON object of numbers") from None
