"""Recipes of several documents: which stage feeds which, where their outputs lie, and which need not be made again.

An intermediate stage is written to OUTPUT.stages/NAME, or to the folder that the caller names. Beside it,
NAME.stage.json says what it was made of: the recipe as it was run, and size and time of every input file. A stage
whose record is the same is not run again. OUTPUT.stages is removed once the last stage has succeeded; a folder that
was named is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ._job import Job, JobOptions
from .plans import Plan
from .recipes import Recipe, substituted


class Stage:
    """One merge of a recipe.

    Attributes:
        name: of its document; None if it has none.
        recipe: with the paths of earlier stages in the place of their names.
        output: where it goes; None if nobody has said.
        is_final: is it the one that was asked for?
    """

    def __init__(self, name: str | None, recipe: Recipe, output: Path | None, is_final: bool) -> None:
        self.name, self.recipe, self.output, self.is_final = name, recipe, output, is_final

    @property
    def _record(self) -> Path:
        assert self.output is not None
        return self.output.with_name(self.output.name + ".stage.json")

    def options(self, options: JobOptions) -> JobOptions:
        """How it is run: an intermediate that is not the same any more is replaced."""
        return options if self.is_final else options._replace(overwrite=True)

    def is_made(self, plan: Plan) -> bool:
        """Is what the plan says there already?"""
        if self.is_final or self.output is None or not self.output.is_dir():
            return False
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == self._describe(plan))

    def begin(self) -> None:
        """Forget the record of what is about to be replaced."""
        if not self.is_final and self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._record.unlink(missing_ok=True)

    def finish(self, plan: Plan) -> None:
        """Note what it was made of."""
        if not self.is_final:
            self._record.write_text(json.dumps(self._describe(plan), indent=2), encoding="utf-8")

    def _describe(self, plan: Plan) -> dict[str, Any]:
        files = [file for each in plan.inputs for file in _files(Path(each["path"]))]
        stamps = {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
        return {"recipe": self.recipe.value, "inputs": stamps}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix == ".safetensors" or file.name == "config.json")
    return [path] if path.is_file() else []


def folder_of(output: str | os.PathLike[str], given: str | os.PathLike[str] | None) -> Path:
    """Where intermediate stages go."""
    if given is not None:
        return Path(given)
    return Path(os.fsdecode(output).rstrip("/") + ".stages")


def stages(recipe: Recipe, output: str | os.PathLike[str] | None, folder: Path | None) -> Iterator[Stage]:
    """The stages of a recipe, in an order in which each finds what it needs; of a single document, that alone.

    Args:
        recipe: what has been read.
        output: of the last stage.
        folder: of the others; needed where there are any.
    """
    paths: dict[str, str] = {}
    for earlier in recipe.stages:
        name = str(earlier.value["name"])
        assert folder is not None
        place = folder / name
        yield Stage(name, substituted(earlier, paths), place, False)
        paths[name] = str(place)
    final = substituted(recipe, paths)._replace(stages=())
    yield Stage(final.value.get("name"), final, None if output is None else Path(output), True)


def plan_stages(recipe: Recipe, output: str | os.PathLike[str] | None, options: JobOptions, folder: Path) -> Plan:
    """Plan every stage, though what later ones read is not there yet: their headers are known.

    Returns:
        The last stage's plan, with those before it under `stages`.
    """
    planned: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="stockpot-plan-") as temporary:
        for stage in stages(recipe, output, Path(temporary)):
            place = stage.output if stage.is_final else None
            with Job(stage.recipe, place, stage.options(options)) as job:
                plan = job.plan()
            if not stage.is_final:
                assert stage.output is not None
                _write_headers(plan, stage.output)
            text = plan.to_json().replace(_quoted(temporary), _quoted(str(folder)))
            data: dict[str, Any] = json.loads(text)
            if not stage.is_final:
                data = {"name": stage.name, **data, "output": str(folder / str(stage.name))}
            planned.append(data)
    return Plan({**planned[-1], "stages": planned[:-1]} if len(planned) > 1 else planned[-1])


def _quoted(path: str) -> str:
    """A path as it stands inside a plan's JSON."""
    return json.dumps(path, ensure_ascii=False)[1:-1]


def _write_headers(plan: Plan, folder: Path) -> None:
    """Write a checkpoint of headers and holes, with its config: all that a plan looks at."""
    folder.mkdir(parents=True)
    headers: dict[str, dict[str, Any]] = {}
    ends: dict[str, int] = {}
    for tensor in plan.tensors:
        file, begin = tensor["file"], ends.get(tensor["file"], 0)
        ends[file] = begin + tensor["bytes"]
        header = headers.setdefault(file, {"__metadata__": {"format": "pt"}})
        shape, offsets = tensor["shape"], [begin, ends[file]]
        header[tensor["name"]] = {"dtype": tensor["dtype"], "shape": shape, "data_offsets": offsets}
    for file, header in headers.items():
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = folder / file
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(path, path.stat().st_size + ends[file])
    if len(headers) > 1:
        index = {tensor["name"]: tensor["file"] for tensor in plan.tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    donor = Path(plan.donor or "")
    for name in (plan.get("side_files") or {}).get("carried", ()):
        if (donor / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(donor / name, folder / name)
    config = folder / "config.json"
    if config.is_file():
        config.write_text(json.dumps(_changed(json.loads(config.read_text(encoding="utf-8")), plan)), encoding="utf-8")


def _changed(config: Mapping[str, Any], plan: Plan) -> Mapping[str, Any]:
    """A config with the plan's changes."""
    for change in plan.get("config_changes", ()):
        node: Any = config
        for key in change["path"][:-1]:
            node = node[key]
        node[change["path"][-1]] = change["value"]
    return config
