"""Plain-text output of the command line: sizes in words, aligned tables, plans, methods and checkpoints."""

from __future__ import annotations

import collections
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._signatures import describe_range, model_range

if TYPE_CHECKING:
    from ._signatures import Schema
    from .checkpoints import Checkpoint, TensorInfo
    from .plans import MergeResult, Plan

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_WIDTH = 100
_LARGEST = 5
_BASE_WORDS = {"required": "required", "optional": "optional", "donor": "names and config only"}


def size(count: float) -> str:
    """A number of bytes in words: 828720 is "829 kB". Units are powers of 1000."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), indent: str = "") -> str:
    """Align columns, numbers to the right; a column without content is left out."""
    body = [[str(cell) for cell in row] for row in rows]
    if not body:
        return ""
    used = [any(row[column] for row in body) for column in range(len(body[0]))]
    cells = [
        [cell for cell, keep in zip(row, used, strict=True) if keep]
        for row in ([list(header)] if header else []) + body
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = [
        all(row[column][:1].isdigit() for row in cells[bool(header) :]) and len(cells) > bool(header)
        for column in range(len(cells[0]))
    ]
    lines = []
    for row in cells:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append(indent + "  ".join(padded).rstrip())
    return "\n".join(lines)


def plan_text(plan: Plan, tensors: bool = False) -> str:
    """A plan for people: method, inputs, output files and costs, stage by stage; every tensor only if asked for."""
    stages = [f"stage {stage['name']}\n{plan_text(stage, tensors)}" for stage in plan.stages]
    if stages:
        total = f"\n\nall stages take {duration(plan.expected_seconds)}"
        return "\n\n".join([*stages, f"last stage\n{_plan_text(plan, tensors)}"]) + total
    return _plan_text(plan, tensors)


def duration(seconds: float | None) -> str:
    """A time in words; "an unknown time" if there is none."""
    if seconds is None:
        return "an unknown time"
    if seconds < 1:
        return "less than 1 s"
    if seconds < 100:
        return f"about {seconds:.2g} s"
    minutes = seconds / 60
    return f"about {minutes:.3g} min" if minutes < 100 else f"about {minutes / 60:.3g} h"


def _plan_text(plan: Plan, tensors: bool) -> str:
    """One stage."""
    copied = sum(tensor.get("action") == "copy" for tensor in plan.tensors)
    read, written = size(plan.bytes_to_read), size(plan.bytes_to_write)
    free = "" if plan.free_disk is None else f" ({size(plan.free_disk)} free)"
    side = plan.get("side_files") or {}
    facts = [
        ("method", plan.method),
        ("tensors", f"{len(plan.tensors)}: {len(plan.tensors) - copied} merged, {copied} copied"),
        ("to read", read),
        ("to write", written + free),
        ("memory", size(plan.memory)),
        ("threads", str(plan.threads)),
    ]
    if plan.get("rate"):
        facts.append(("time", f"{duration(plan.get('expected_seconds'))} if the inputs are in memory ({_rate(plan)})"))
    else:
        facts.append(("time", "not estimated: it depends on the matrices' sizes"))
    if plan.output is not None:
        facts.insert(0, ("output", str(plan.output)))
    if plan.donor:
        facts.append(("config from", plan.donor))
    vocabulary = plan.get("vocabulary")
    if vocabulary:
        padding = f" ({vocabulary['padding']} of padding)" if vocabulary["padding"] else ""
        facts.append(("vocabulary", f"{vocabulary['size']} rows{padding} of {_listed(vocabulary['tensors'])}"))
    for label, key in (("also copied", "carried"), ("also written", "written"), ("left behind", "left")):
        names = [str(name) for name in side.get(key) or ()]
        if names:
            facts.append((label, _listed(names)))
    for stack in plan.get("stacks") or ():
        facts.append(("layers", _stack(stack)))
    for change in plan.get("config_changes") or ():
        facts.append(("config change", f"{'.'.join(change['path'])} = {json.dumps(change['value'])}"[:_WIDTH]))
    rows = [
        (i.get("role", ""), i.get("tensors", ""), size(i.get("bytes") or 0), i.get("path", ""), _settings(i))
        for i in plan.inputs
    ]
    parts = [table(facts), "", "inputs", table(rows, ("role", "tensors", "size", "path", "parameters"), "  ")]
    files = [(f.get("name", ""), _count(f.get("tensors")), size(f.get("bytes") or 0)) for f in plan.files]
    parts += ["", "output files", table(files, ("name", "tensors", "size"), "  ")]
    beside = [(a["folder"], a["tensors"], size(a["bytes"]), a["model"]) for a in plan.get("artifacts") or ()]
    if beside:
        parts += ["", "beside them", table(beside, ("folder", "tensors", "size", "of"), "  ")]
    if tensors:
        rows_of_tensors = [
            (
                t.get("name"),
                t.get("dtype"),
                _shape(t.get("shape") or ()),
                t.get("action"),
                t.get("file"),
                t.get("note") or "",
            )
            for t in plan.tensors
        ]
        parts += [
            "",
            "tensors",
            table(rows_of_tensors, ("name", "dtype", "shape", "action", "file", "note"), "  "),
        ]
    return "\n".join(parts)


def _rate(plan: Plan) -> str:
    return f"{size(plan['rate'])}/s and worker"


def _stack(stack: dict[str, Any]) -> str:
    """A stack of layers, and where restacked ones come from."""
    module = f"{stack['module']}: " if stack["module"] else ""
    if not stack["name"]:
        return f"{module}none"
    text = f"{module}{stack['name']}.0 to {stack['layers'] - 1}"
    if not stack["restacked"]:
        return text
    runs = [f"{run['layers'][0]} to {run['layers'][1] - 1} of input {run['input']}" for run in stack["from"]]
    return f"{text}, from {_listed(runs)}"


def result_text(result: MergeResult) -> str:
    """A merge that succeeded, for people: counts, speed, and where output and report are."""
    rate = f", {result.gigabytes_per_second:.3g} GB/s" if result.seconds > 0 else ""
    merged, copied = result.summary.get("merged"), result.summary.get("copied")
    kinds = "" if merged is None or copied is None else f" ({merged} merged, {copied} copied)"
    lines = [
        f"{result.tensors} tensors{kinds}, {size(result.bytes_written)} in {result.seconds:.3g} s{rate}",
        f"output: {result.path}",
    ]
    if result.report_path is not None:
        lines.append(f"report: {result.report_path}")
    return "\n".join(lines)


def reconstruction_text(output: str, report: dict[str, Any]) -> str:
    """What was rebuilt, and what the parts take beside the model itself."""
    summary = report["summary"]
    parts = [("base", summary["base_bytes"]), ("merged", summary["merged_bytes"])]
    rows = [(name, size(count)) for name, count in parts if count]
    rows += [
        ("correction", size(summary["correction_bytes"])),
        ("model", size(summary["model_bytes"])),
    ]
    made = f"{output}: {summary['tensors']} tensors, {summary['rebuilt']} rebuilt, {summary['copied']} copied"
    ratio = f"the correction is {summary['compression_ratio']:.3g} times smaller than the model"
    return "\n".join([f"{made}, in {report['seconds']:.3g} s", "", table(rows, indent="  "), "", ratio])


def extraction_text(output: str, report: dict[str, Any], all_tensors: bool = False) -> str:
    """What an adapter holds, the tensors with the largest errors, and what is lost."""
    summary = report["summary"]
    counts = f"{summary['factored']} matrices factored, {summary['saved']} tensors saved whole"
    made = f"{output}: rank {report['rank']}, {counts}"
    sizes = f"{size(summary['adapter_bytes'])} of {size(summary['model_bytes'])}, in {report['seconds']:.3g} s"
    changed = sorted(report["tensors"], key=lambda entry: (-float(entry["error"] or 0), entry["name"]))
    kept = [entry for entry in changed if entry["action"] != "lost"]
    shown = kept if all_tensors else kept[:10]
    rows = [(each["name"], str(each["rank"] or "whole"), f"{each['error']:.3g}") for each in shown]
    parts = [made, sizes, "", table([("tensor", "rank", "error"), *rows], indent="  ")]
    if len(kept) > len(shown):
        parts.append(f"  and {len(kept) - len(shown)} with smaller errors; --tensors lists all")
    lost = [(each["name"], each["note"]) for each in changed if each["action"] == "lost"]
    if lost:
        parts += ["", "lost:", table(lost if all_tensors else lost[:10], indent="  ")]
    parts += ["", f"relative error over all that changed: {summary['total_error']:.3g}"]
    return "\n".join(parts)


def methods_text(schemas: Iterable[Schema]) -> str:
    """The methods there are, one line each."""
    rows = [
        (
            schema["name"],
            schema["family"],
            _BASE_WORDS.get(schema["inputs"]["base"], ""),
            model_range(schema),
            schema["title"],
        )
        for schema in schemas
    ]
    return table(rows, ("name", "family", "base model", "models", "title"))


def method_text(schema: Schema) -> str:
    """Everything that is known of one method."""
    base = _BASE_WORDS.get(schema["inputs"]["base"], schema["inputs"]["base"])
    parts = [
        f"{schema['name']}: {schema['title']}",
        "",
        textwrap.fill(schema["summary"], _WIDTH),
        "",
        f"models: {model_range(schema)}   base model: {base}   family: {schema['family']}",
        "",
        "parameters",
    ]
    for parameter in schema["parameters"]:
        default = parameter.get("default")
        facts = [parameter["type"], describe_range(parameter)]
        facts.append("one per model" if parameter.get("per_model") else "")
        if default is not None:
            facts.append(f"default {default}" if isinstance(default, str) else f"default {_json(default)}")
        else:
            facts.append("required" if parameter.get("required") else "optional")
        parts.append(f"  {parameter['name']}  ({'; '.join(fact for fact in facts if fact)})")
        for paragraph in (parameter["summary"], parameter.get("source", "")):
            if paragraph:
                parts.append(textwrap.fill(paragraph, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    if schema["reports"]:
        reports = "reports, for each tensor: " + ", ".join(schema["reports"])
        parts += ["", textwrap.fill(reports, _WIDTH)]
    if schema["citation"]:
        parts += ["", textwrap.fill(f"source: {schema['citation']}", _WIDTH)]
    return "\n".join(parts)


def checkpoint_json(checkpoint: Checkpoint, tensors: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, as plain values."""
    infos = checkpoint.infos()
    by_dtype: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"tensors": 0, "parameters": 0, "bytes": 0})
    by_file: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"tensors": 0, "bytes": 0})
    for info in infos:
        for counts in (by_dtype[info.dtype], by_file[str(info.file)]):
            counts["tensors"] += 1
            counts["bytes"] += info.nbytes
        by_dtype[info.dtype]["parameters"] += math.prod(info.shape)
    result: dict[str, Any] = {
        "path": str(checkpoint.path),
        "tensors": len(infos),
        "parameters": sum(counts["parameters"] for counts in by_dtype.values()),
        "bytes": checkpoint.nbytes,
        "dtypes": dict(sorted(by_dtype.items(), key=lambda item: -item[1]["bytes"])),
        "files": dict(sorted(by_file.items())),
        "largest": [_info_json(info) for info in sorted(infos, key=lambda info: (-info.nbytes, info.name))[:_LARGEST]],
        "metadata": checkpoint.metadata,
    }
    if tensors:
        result["tensor_list"] = [_info_json(info) for info in infos]
    return result


def checkpoint_text(found: dict[str, Any]) -> str:
    """What `checkpoint_json` found, for people."""
    total = f"{found['tensors']} tensors, {found['parameters']:,} parameters, {size(found['bytes'])}"
    dtypes = [(name, c["tensors"], f"{c['parameters']:,}", size(c["bytes"])) for name, c in found["dtypes"].items()]
    files = [(name, c["tensors"], size(c["bytes"])) for name, c in found["files"].items()]
    parts = [found["path"], total, "", table(dtypes, ("dtype", "tensors", "parameters", "size"), "  ")]
    parts += ["", table(files, ("file", "tensors", "size"), "  ")]
    for label, key in (("largest tensor", "largest"), ("tensor", "tensor_list")):
        if found.get(key):
            rows = [(t["name"], t["dtype"], _shape(t["shape"]), size(t["bytes"])) for t in found[key]]
            parts += ["", table(rows, (label, "dtype", "shape", "size"), "  ")]
    if found["metadata"]:
        rows_of_metadata = [
            (key, textwrap.shorten(value, _WIDTH - 20)) for key, value in sorted(found["metadata"].items())
        ]
        parts += ["", table(rows_of_metadata, ("metadata", ""), "  ")]
    return "\n".join(parts)


def _info_json(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "bytes": info.nbytes,
        "file": str(info.file),
    }


def _settings(entry: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_json(value)}" for key, value in (entry.get("parameters") or {}).items())


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _shape(shape: Iterable[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _count(value: Any) -> str:
    return str(len(value)) if isinstance(value, (list, dict)) else str(value or 0)


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
