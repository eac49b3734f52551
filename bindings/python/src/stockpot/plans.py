"""What a merge will do (`Plan`) and what it did (`MergeResult`): values made from the library's JSON."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import Checkpoint


class _Document:
    """A JSON object that is read as a whole only when it must be: one of 20,000 tensors takes a quarter of a second."""

    def __init__(self, content: str | dict[str, Any]) -> None:
        self._text = content if isinstance(content, str) else ""
        self._read = None if isinstance(content, str) else content

    @property
    def whole(self) -> dict[str, Any]:
        """The object."""
        if self._read is None:
            read: dict[str, Any] = json.loads(self._text or "{}")
            self._read, self._text = read, ""
        return self._read

    def get(self, key: str) -> Any:
        """One member; None if there is none.

        The library writes two spaces per level and escapes every line break within a string, so a line that begins with
        two spaces and a quote is a member of the outermost object.
        """
        if self._read is None:
            line = f'\n  "{key}": '
            place = self._text.find(line)
            if place >= 0:
                return _DECODER.raw_decode(self._text, place + len(line))[0]
        return self.whole.get(key)


_DECODER = json.JSONDecoder()


class Plan(Mapping[str, Any]):
    """What a merge will do, made from the headers of its inputs. It is a mapping of the entries of the plan's JSON.

    The entries have their own attributes too; sizes are in bytes.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._document = _Document(data)

    @property
    def _data(self) -> dict[str, Any]:
        return self._document.whole

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan that was written by `to_json`, or by the library."""
        return cls(json.loads(text))

    @classmethod
    def of_library(cls, text: str) -> Plan:
        """A plan as the library wrote it, read when it is looked at."""
        plan = cls({})
        plan._document = _Document(text)
        return plan

    def to_json(self, indent: int | None = None) -> str:
        """The whole plan as JSON, which names every byte range of the output."""
        return json.dumps(self._data, indent=indent, ensure_ascii=False)

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Any:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        sizes = f"{len(self.tensors)} tensors, {self.bytes_to_write} bytes to write"
        return f"<stockpot.Plan {self.method} of {len(self.inputs)} inputs: {sizes}>"

    @property
    def method(self) -> str:
        """Name of the merge method."""
        return str(self._document.get("method") or "")

    @property
    def output(self) -> Path | None:
        """Where the output will be; None if none was named."""
        output = self._data.get("output")
        return None if output is None else Path(output)

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The checkpoints read: path, role ("base" or "model"), tensors, bytes, parameters."""
        return list(self._document.get("inputs") or ())

    @property
    def donor(self) -> str | None:
        """The checkpoint that config, tokenizer and other side files are copied from."""
        donor = self._data.get("donor")
        return None if donor is None else str(donor)

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files with tensors that will be written: name, bytes, tensors."""
        return list(self._data.get("files", ()))

    @property
    def tensors(self) -> list[dict[str, Any]]:
        """Every tensor: name, dtype, shape, file, offset, bytes, action ("merge" or "copy"), inputs, parameters."""
        return list(self._data.get("tensors", ()))

    @property
    def bytes_to_read(self) -> int:
        """Bytes of input tensors that will be read."""
        return int(self._data.get("bytes_to_read") or 0)

    @property
    def bytes_to_write(self) -> int:
        """Bytes of output tensors that will be written."""
        return int(self._data.get("bytes_to_write") or 0)

    @property
    def memory(self) -> int:
        """Bytes of buffers that the merge will hold at most."""
        return int(self._data.get("memory") or 0)

    @property
    def threads(self) -> int:
        """Workers that will run."""
        return int(self._data.get("threads") or 0)

    @property
    def free_disk(self) -> int | None:
        """Bytes free where the output will be; None if unknown."""
        free = self._data.get("free_disk")
        return None if free is None else int(free)

    @property
    def expected_seconds(self) -> float | None:
        """How long the merge should take with warm inputs, all stages together; None if that is not known."""
        times = [self._data.get("expected_seconds"), *(stage.expected_seconds for stage in self.stages)]
        return None if None in times else float(sum(time for time in times if time is not None))

    @property
    def stages(self) -> list[Plan]:
        """The plans of the documents before the last one, in the order in which they are run."""
        return [Plan(stage) for stage in self._data.get("stages", ())]

    @property
    def warnings(self) -> list[str]:
        """What its author may not have meant."""
        return [str(warning) for warning in self._document.get("warnings") or ()]

    @property
    def all_warnings(self) -> list[str]:
        """Warnings of all stages, each once."""
        found = [warning for stage in self.stages for warning in stage.warnings] + self.warnings
        return list(dict.fromkeys(found))


class MergeResult:
    """What a merge did.

    Attributes:
        path: the folder or .safetensors file that was made.
        plan: what was planned.
        report_json: the report as JSON, the same as in the report file.
    """

    def __init__(self, path: Path, plan: Plan, report_json: str) -> None:
        self.path = path
        self.plan = plan
        self.report_json = report_json
        self._document = _Document(report_json)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"<stockpot.MergeResult {str(self.path)!r}: {self.tensors} tensors in {self.seconds:.3g} s>"

    def open(self) -> Checkpoint:
        """Open the merged checkpoint, for reading."""
        from .checkpoints import Checkpoint

        return Checkpoint(self.path / "merged" if (self.path / "merged").is_dir() else self.path)

    @property
    def report(self) -> dict[str, Any]:
        """The report: build, recipe, times, summary, warnings, and what was decided for each tensor."""
        return self._document.whole

    @functools.cached_property
    def report_path(self) -> Path | None:
        """The report file: merge_report.json in the folder, or beside the single file; None if there is none."""
        single = self.path.with_name(self.path.name.removesuffix(".safetensors") + ".merge_report.json")
        candidates = [self.path / "merge_report.json"] if self.path.is_dir() else [single]
        return next((path for path in candidates if path.is_file()), None)

    @property
    def summary(self) -> dict[str, Any]:
        """Counts of the whole merge: tensors, merged, copied, bytes_read, bytes_written, warnings."""
        return dict(self._document.get("summary") or {})

    @property
    def warnings(self) -> list[str]:
        """Warnings of the plan and of the run."""
        return [*self.plan.warnings, *self.late_warnings]

    @property
    def late_warnings(self) -> list[str]:
        """Warnings of the run that the plan could not know."""
        planned = set(self.plan.warnings)
        return [str(warning) for warning in self._document.get("warnings") or () if warning not in planned]

    @property
    def seconds(self) -> float:
        """Time that the run took."""
        return float(self._document.get("seconds") or 0.0)

    @property
    def tensors(self) -> int:
        """Tensors written."""
        return int(self.summary.get("tensors") or len(self.plan.tensors))

    @property
    def bytes_read(self) -> int:
        """Bytes of input tensors read."""
        return int(self.summary.get("bytes_read") or 0)

    @property
    def bytes_written(self) -> int:
        """Bytes of output tensors written."""
        return int(self.summary.get("bytes_written") or self.plan.bytes_to_write)

    @property
    def gigabytes_per_second(self) -> float:
        """Bytes read and written per second, in units of 10**9; 0 if the time is unknown."""
        return (self.bytes_read + self.bytes_written) / self.seconds / 1e9 if self.seconds > 0 else 0.0
