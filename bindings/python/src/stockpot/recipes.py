"""Recipes: YAML in, JSON for the library out.

The grammar is mergekit's and more (docs/recipes.md); it is understood by the library. Here only the text is read, more
strictly than PyYAML does: a key that stands twice is an error, 1e-5 is a number, and a date is text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ._values import plain
from .errors import RecipeError, error_for

_SUFFIXES = (".yaml", ".yml", ".json")


class Recipe(NamedTuple):
    """A recipe that has been read.

    Attributes:
        value: the mapping.
        text: as its author wrote it, for the model card.
        stages: the documents before the last one, in an order in which each only names those before it.
    """

    value: dict[str, Any]
    text: str
    stages: tuple[Recipe, ...] = ()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema's floats, without dates, and with unique keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Build a dict; refuse a key that stands twice."""
        if isinstance(node, yaml.MappingNode):
            seen: dict[Any, Any] = {}
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                    continue
                key = (key_node.tag, key_node.value)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                    )
                seen[key] = key_node
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
                  |\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
                  |[0-9][0-9_]*[eE][-+]?[0-9]+)$
            |[-+]?\.(?:inf|Inf|INF)$
            |\.(?:nan|NaN|NAN)$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, what: str = "the recipe") -> Any:
    """Read one YAML document.

    Args:
        text: the document.
        what: what to call it in the error.

    Raises:
        RecipeError: it is not YAML, holds more than one document, a tag that is not plain data, or a key twice.
    """
    documents = _documents(text, what)
    if len(documents) > 1:
        raise error_for("SP_E_RECIPE", f"{what} is not one YAML document but {len(documents)}")
    return documents[0] if documents else None


def _documents(text: str, what: str) -> list[Any]:
    """All documents of a YAML text; empty ones between others are left out."""
    try:
        found = list(yaml.load_all(text, Loader=_Loader))  # a SafeLoader: no tag makes an object
        return found if len(found) < 2 else [each for each in found if each is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = error.problem or error.context or "it cannot be parsed"
        if error.context and problem.startswith("but "):
            problem = f"{error.context} {problem}"
        raise error_for("SP_E_RECIPE", f"{what} is not valid YAML{place}: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error_for("SP_E_RECIPE", f"{what} is not valid YAML: {error}") from None


def load_recipe(recipe: str | os.PathLike[str] | Mapping[str, Any]) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a path (a `Path`, or text that names an existing file or ends in .yaml, .yml or .json without a line
            break), YAML text, or a mapping, which may hold paths and numpy numbers.

    Raises:
        NotFoundError: a path to no file.
        FileError: the file cannot be read, or is not UTF-8.
        RecipeError: the text is not YAML, or what it holds is not a mapping of plain values.
    """
    if isinstance(recipe, Mapping):
        value = plain(recipe, "", "SP_E_RECIPE")
        return Recipe(value, _dumped(value))
    if isinstance(recipe, os.PathLike):
        return _parse(_read(Path(recipe)), f"the recipe {os.fsdecode(recipe)}")
    if not isinstance(recipe, str):
        raise error_for("SP_E_RECIPE", f"the recipe is a {type(recipe).__name__}; give a path, YAML text or a dict")
    if _is_path(recipe):
        return _parse(_read(Path(recipe)), f"the recipe {recipe}")
    try:
        return _parse(recipe, "the recipe")
    except RecipeError as error:
        if recipe.strip() and "\n" not in recipe and ":" not in recipe:
            raise error_for("SP_E_RECIPE", f"{recipe!r} is neither a recipe file that exists nor a recipe") from error
        raise


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Set values in a recipe, as `--set parameters.t=0.4` does.

    Args:
        recipe: the recipe; it is not changed.
        assignments: "path=value" each. The path's steps are keys, or numbers in lists from 0; keys that are missing
            are made. The value is YAML.

    Raises:
        RecipeError: no "=", or a path through something that is neither a mapping nor a list.
    """
    value = plain(recipe.value, "", "SP_E_RECIPE")
    changed = False
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise error_for("SP_E_RECIPE", f"{assignment!r} is not an assignment; write parameters.t=0.4")
        _set(value, path.split("."), plain(parse_yaml(text, path), path, "SP_E_RECIPE"), assignment)
        changed = True
    if not changed:
        return recipe
    return recipe._replace(value=value, text=_dumped(value))


def _set(node: Any, steps: list[str], value: Any, assignment: str) -> None:
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if isinstance(node, dict):
            if last:
                node[step] = value
            else:
                if node.get(step) is None:
                    node[step] = {}
                node = node[step]
        elif isinstance(node, list):
            if not step.isdigit() or int(step) >= len(node):
                raise error_for("SP_E_RECIPE", f"{assignment}: {step!r} is not one of 0 to {len(node) - 1}")
            if last:
                node[int(step)] = value
            else:
                node = node[int(step)]
        else:
            before = ".".join(steps[:position])
            raise error_for("SP_E_RECIPE", f"{assignment}: {before} is a single value, which has no {step!r}")


def _is_path(text: str) -> bool:
    if "\n" in text or "\0" in text or not text.strip():
        return False
    if text.lower().endswith(_SUFFIXES) and ": " not in text:
        return True
    try:
        return Path(text).is_file()
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error_for("SP_E_NOT_FOUND", f"there is no recipe {path}") from None
    except UnicodeDecodeError:
        raise error_for("SP_E_RECIPE", f"the recipe {path} is not UTF-8 text") from None
    except OSError as error:
        raise error_for("SP_E_FILE", f"the recipe {path} cannot be read: {error.strerror}") from None


def _parse(text: str, what: str) -> Recipe:
    documents = _documents(text, what)
    if len(documents) > 1:
        return _staged([_mapping(each, what) for each in documents], text)
    return Recipe(_mapping(documents[0] if documents else None, what), text)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = "empty" if value is None else f"a {type(value).__name__}"
        raise error_for("SP_E_RECIPE", f"{what} is {kind}; it must be a mapping with merge_method and models")
    mapping: dict[str, Any] = plain(value, "", "SP_E_RECIPE")
    return mapping


# ---- Several documents

_REFERENCES = ("model", "base_model", "path", "source", "tokenizer_source", "config_source")
"""Keys whose text may be a model."""


def _staged(documents: list[dict[str, Any]], text: str) -> Recipe:
    """Put documents in an order in which each only names those before it; the last is the one that is asked for."""
    names: dict[str, dict[str, Any]] = {}
    unnamed = []
    for document in documents:
        name = document.get("name")
        if name is None:
            unnamed.append(document)
        elif not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise error_for("SP_E_RECIPE", f"a document is called {name!r}; give it a name that a folder may have")
        elif name in names:
            raise error_for("SP_E_RECIPE", f"two documents are called {name!r}; rename one")
        else:
            names[name] = document
    if len(unnamed) > 1:
        raise error_for("SP_E_RECIPE", f"{len(unnamed)} documents have no 'name'; only the last merge may have none")
    needs = {name: _uses(document, names) for name, document in names.items()}
    if unnamed:
        final = unnamed[0]
    else:
        free = [name for name in names if not any(name in used for used in needs.values())]
        if len(free) != 1:
            listed = ", ".join(free) or "none"
            raise error_for(
                "SP_E_RECIPE", f"which document is the last one is open ({listed}); leave the 'name' of one out"
            )
        final = names[free[0]]
    order: list[str] = []
    _visit(final, names, needs, order, [])
    for name in names:
        if name not in order and names[name] is not final:
            _visit(names[name], names, needs, order, [name])
            order.append(name)
    stages = tuple(Recipe(names[name], _dumped(names[name])) for name in order)
    return Recipe(final, text, stages)


def _visit(
    document: dict[str, Any],
    names: Mapping[str, dict[str, Any]],
    needs: Mapping[str, list[str]],
    order: list[str],
    path: list[str],
) -> None:
    for name in _uses(document, names):
        if name in path or names[name] is document:
            circle = " -> ".join([*path[path.index(name) if name in path else 0 :], name])
            raise error_for("SP_E_RECIPE", f"documents need each other in a circle ({circle}); break it")
        if name not in order:
            _visit(names[name], names, needs, order, [*path, name])
            order.append(name)


def _uses(value: Any, names: Mapping[str, Any]) -> list[str]:
    """The names that a document refers to, in its order."""
    found: list[str] = []

    def note(text: str) -> str:
        stem = text.split("+", 1)[0]
        if stem in names and stem not in found:
            found.append(stem)
        return text

    _map_references(value, note)
    return found


def substituted(recipe: Recipe, paths: Mapping[str, str]) -> Recipe:
    """A recipe with paths in the place of stages' names."""

    def place(text: str) -> str:
        stem, plus, adapter = text.partition("+")
        return paths.get(stem, stem) + plus + adapter

    return recipe._replace(value=_map_references(recipe.value, place)) if paths else recipe


def _map_references(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """A copy in which everything that names a model has gone through `change`."""
    if isinstance(value, dict):
        # The name of a parameter may be one of the keys.
        return {
            each: part if each == "parameters" else _map_references(part, change, each) for each, part in value.items()
        }
    if isinstance(value, list):
        return [_map_references(part, change, "model" if key == "models" else key) for part in value]
    return change(value) if isinstance(value, str) and key in _REFERENCES else value


def _dumped(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
