"""Options of the command line in groups, and those of mergekit's commands that people already type."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NOTED = "stockpot.without_meaning"

WITHOUT_MEANING: dict[str, tuple[tuple[str, ...], bool, str]] = {
    "cuda": (("--cuda/--no-cuda",), True, "there is no GPU code: merging is bound by memory and disk"),
    "device": (("--device",), False, "there is no GPU code"),
    "low_cpu_memory": (("--low-cpu-memory/--no-low-cpu-memory",), True, "memory is flat; --max-memory limits it"),
    "read_to_gpu": (("--read-to-gpu/--no-read-to-gpu",), True, "there is no GPU code"),
    "multi_gpu": (("--multi-gpu/--no-multi-gpu",), True, "there is no GPU code"),
    "gpu_rich": (("--gpu-rich",), True, "there is no GPU code"),
    "lazy_unpickle": (("--lazy-unpickle/--no-lazy-unpickle",), True, "inputs are always read piece by piece"),
    "clone_tensors": (("--clone-tensors/--no-clone-tensors",), True, "tensors never share memory"),
    "trust_remote_code": (("--trust-remote-code/--no-trust-remote-code",), True, "no code of a model is run"),
    "allow_crimes": (
        ("--allow-crimes/--no-allow-crimes",),
        True,
        "tensors are told by their names, not by architectures",
    ),
    "safe_serialization": (("--safe-serialization/--no-safe-serialization",), True, "outputs are always safetensors"),
    "lora_merge_cache": (("--lora-merge-cache",), False, "adapters are added while tensors are read"),
    "lora_merge_dtype": (("--lora-merge-dtype",), False, "adapters are added in binary64"),
    "async_write": (("--async-write/--no-async-write",), True, "workers always write as they go"),
    "write_threads": (
        ("--write-threads",),
        False,
        "workers write what they compute; --threads says how many there are",
    ),
    "lazy": (("--lazy/--no-lazy",), True, "a stage that is there and the same is never made again"),
}
"""mergekit's options that change nothing here: spellings, whether it is a flag, and why."""


class GroupedOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *arguments: Any, group: str = "Options", **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group, in the order in which the groups begin."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        # What click adds itself (--help) comes last.
        for group in sorted(groups, key=lambda each: each == "Options"):
            with formatter.section(group):
                formatter.write_dl(groups[group])
        if any(getattr(parameter, "name", None) in WITHOUT_MEANING for parameter in self.params):
            with formatter.section("Accepted for mergekit's sake, without meaning here"):
                formatter.write_text(", ".join(each[0][0].split("/")[0] for each in WITHOUT_MEANING.values()))


def group(name: str, options: Sequence[tuple[tuple[str, ...], dict[str, Any]]]) -> Callable[[_Command], _Command]:
    """Options under a heading."""

    def decorate(command: _Command) -> _Command:
        for spellings, keywords in reversed(options):
            command = click.option(*spellings, cls=GroupedOption, group=name, **keywords)(command)
        return command

    return decorate


def mergekit_options(command: _Command) -> _Command:
    """The options without meaning: accepted, remembered for one note."""
    for name, (spellings, is_flag, _) in WITHOUT_MEANING.items():
        keywords: dict[str, Any] = {"is_flag": True, "default": None} if is_flag and "/" not in spellings[0] else {}
        if is_flag:
            keywords["default"] = None
        command = click.option(
            *spellings, name, cls=GroupedOption, hidden=True, expose_value=False, callback=_remember, **keywords
        )(command)
    return command


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value is not None:
        context.meta.setdefault(_NOTED, []).append(option.name)


def note_without_meaning(say: Callable[[str], None]) -> None:
    """Say once which of the given options have no meaning here, and why."""
    names = click.get_current_context().meta.get(_NOTED, ())
    reasons: dict[str, list[str]] = {}
    for name in names:
        spellings, _, reason = WITHOUT_MEANING[name]
        reasons.setdefault(reason, []).append(spellings[0].split("/")[0])
    if reasons:
        said = "; ".join(f"{', '.join(options)} ({reason})" for reason, options in reasons.items())
        say(f"without meaning here: {said}")


def shard_size(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A size, in mergekit's spelling too: 5B is five thousand millions of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)[bB]\s*", value or "")
    return f"{match[1]}GB" if match else value


def cache(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Look for models of the Hugging Face hub in this folder."""
    if value is not None:
        os.environ["HF_HUB_CACHE"] = value


def _forbid_fetching(context: click.Context, option: click.Parameter, offline: bool) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


OFFLINE: Final[dict[str, Any]] = {
    "is_flag": True,
    "expose_value": False,
    "callback": _forbid_fetching,
    "help": "Fetch nothing: models are local paths, or in the Hugging Face cache.",
}
offline_option = click.option("--offline", **OFFLINE)


job_options = group(
    "How it is run",
    (
        (
            ("--threads", "-j", "--num-threads"),
            {"type": click.IntRange(min=0), "default": 0, "help": "Workers; 0 for the usable CPUs."},
        ),
        (("--max-memory",), {"metavar": "SIZE", "help": "Most bytes of plan and buffers, such as 2GiB."}),
        (
            ("--shard-size", "--out-shard-size"),
            {"metavar": "SIZE", "callback": shard_size, "help": "Bytes of a shard, such as 500MB; default 5GB."},
        ),
        (
            ("--transformers-cache",),
            {
                "metavar": "PATH",
                "expose_value": False,
                "callback": cache,
                "help": "The Hugging Face cache to look in; default: its own place.",
            },
        ),
        (("--offline",), OFFLINE),
    ),
)
"""The options that `merge` and `plan` share."""


method_options = group(
    "Instead of a recipe",
    (
        (("--method",), {"metavar": "NAME", "help": "Merge method: see `stockpot methods`."}),
        (("--base",), {"metavar": "PATH", "help": "The base model."}),
        (
            ("-p", "--parameter", "parameters"),
            {
                "metavar": "NAME=VALUE",
                "multiple": True,
                "help": "A parameter of the method, such as solver=qp or weight=[.3,.7]. Repeatable.",
            },
        ),
    ),
)


override_options = group(
    "What is merged",
    (
        (
            ("--set", "assignments"),
            {
                "metavar": "PATH=VALUE",
                "multiple": True,
                "help": "Set a value, such as parameters.t=0.4 or models.0.parameters.weight=0.3. Repeatable.",
            },
        ),
        (
            ("--dtype",),
            {"metavar": "NAME", "help": "Element type of the output; default: the recipe's, else the base's."},
        ),
        (
            ("--random-seed",),
            {"type": click.IntRange(min=0), "help": "Seed of methods that draw; default: the recipe's, else 0."},
        ),
        (
            ("--tensor-union", "tensor_set"),
            {
                "flag_value": "union",
                "help": "The output has the tensors of all models, merged from those that have them.",
            },
        ),
        (
            ("--tensor-intersection", "tensor_set"),
            {"flag_value": "intersection", "help": "The output has only tensors that all models have."},
        ),
        (("--strict",), {"is_flag": True, "help": "Unknown keys and parameters are errors, not warnings."}),
    ),
)
"""Options that change the recipe, or how it is read."""
