"""What the command collect-stats does: find the user's factory, run what it made, and say what came out."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StockpotWarning, error_for
from .stats import LayerStatistics, collect

_RETURNS = "return (model, batches), an iterable of mappings of name to array, or a LayerStatistics"


def check_output(path: str, overwrite: bool) -> None:
    """Refuse, before the work begins, a place where the file cannot appear.

    Raises:
        ArgumentError: another ending than .safetensors. OutputExistsError: it exists and is not to be replaced.
    """
    if not path.endswith(".safetensors"):
        raise error_for("SP_E_ARGUMENT", f"{path} does not end in .safetensors: statistics are saved as one such file")
    if Path(path).exists() and not overwrite:
        raise error_for("SP_E_EXISTS", f"{path} exists already: choose another path, or --overwrite")


def load_factory(name: str) -> Callable[..., Any]:
    """Import what "package.module:function" names, from the current directory or from what is installed.

    Raises:
        ArgumentError: not of that form, no such module or function. What the module raises passes through.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise error_for("SP_E_ARGUMENT", f"--factory {name} is not of the form PACKAGE:FUNCTION")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        place = "in the current directory, and not installed"
        raise error_for("SP_E_ARGUMENT", f"--factory {name}: there is no module {error.name} {place}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise error_for("SP_E_ARGUMENT", f"--factory {name}: {module_name} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise error_for("SP_E_ARGUMENT", f"--factory {name}: it is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def run_factory(
    made: Any, name: str, statistic: str, num_batches: int, progress: bool, warn: Callable[[str], None]
) -> LayerStatistics:
    """Collect from what a factory returned.

    Args:
        made: (model, batches), an iterable of mappings, or a LayerStatistics.
        name: of the factory, for errors.
        statistic: of the result.
        num_batches: the most that are drawn.
        progress: show a bar on standard error.
        warn: called with the text of each warning of `collect`.

    Raises:
        ArgumentError: something else, or nothing. What `collect`, `LayerStatistics.update` and the model raise.
    """
    if isinstance(made, LayerStatistics):
        result = LayerStatistics(statistic)
        result.merge(made)
    elif isinstance(made, tuple) and len(made) == 2 and not isinstance(made[0], Mapping):
        model, batches = made
        with warnings.catch_warnings(record=True) as caught, _drawn(batches, name, num_batches, progress) as shown:
            warnings.simplefilter("always", StockpotWarning)
            result = collect(model, shown, statistic=statistic)
        for warning in caught:
            if issubclass(warning.category, StockpotWarning):
                warn(str(warning.message))
            else:
                warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    else:
        result = LayerStatistics(statistic)
        with _drawn(made, name, num_batches, progress) as shown:
            for number, batch in enumerate(shown):
                _update(result, batch, f"batch {number} of {name}")
    if not len(result):
        raise error_for("SP_E_ARGUMENT", f"{name} gave no rows: nothing was collected")
    return result


def summary(statistics: LayerStatistics, output: str) -> dict[str, Any]:
    """What was collected, for JSON."""
    layers = []
    counts = statistics.counts
    for name, values in statistics.items():
        least, greatest = float(values.min()), float(values.max())
        layers.append(
            {"name": name, "channels": len(values), "rows": counts[name], "least": least, "greatest": greatest}
        )
    return {"output": output, "statistic": statistics.statistic, "layers": layers}


def summary_text(found: dict[str, Any]) -> str:
    """What was collected, for people."""
    from ._tables import table

    rows = [
        (layer["name"], layer["channels"], layer["rows"], f"{layer['least']:.4g}", f"{layer['greatest']:.4g}")
        for layer in found["layers"]
    ]
    shown = table(rows, ("layer", "channels", "rows", "least", "greatest"))
    return f"{shown}\n\n{len(rows)} layers, {found['statistic']}\noutput: {found['output']}"


@contextmanager
def _drawn(batches: Any, name: str, most: int, progress: bool) -> Iterator[Iterator[Any]]:
    """At most `most` batches, with a bar if wanted.

    Raises:
        ArgumentError: not an iterable of batches.
    """
    if isinstance(batches, (Mapping, str, bytes)) or not isinstance(batches, Iterable):
        raise error_for("SP_E_ARGUMENT", f"{name} returned a {type(batches).__name__}; {_RETURNS}")
    drawn = itertools.islice(batches, most)
    if not progress:
        yield drawn
        return
    from tqdm import tqdm

    with tqdm(drawn, total=most, unit="batch", dynamic_ncols=True, leave=False, desc="collecting") as bar:
        yield iter(bar)


def _update(statistics: LayerStatistics, batch: Any, what: str) -> None:
    if not isinstance(batch, Mapping):
        raise error_for("SP_E_ARGUMENT", f"{what} is a {type(batch).__name__}; give a mapping of name to array")
    for name, value in batch.items():
        array, axis = value if isinstance(value, tuple) and len(value) == 2 else (value, -1)
        statistics.update(name, array, channel_axis=axis)
