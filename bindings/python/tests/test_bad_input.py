"""Everything that is wrong with inputs: one clear sentence, the right class and exit status, nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import stockpot as sp
from checkpoint_files import Models, encode, header_of, write_folder, write_models, write_safetensors
from stockpot import cli

pytestmark = pytest.mark.usefixtures("library")


class Case(NamedTuple):
    """A way to spoil three good models: what it does, what is raised, and what the sentence names."""

    spoil: Callable[[Models, dict[str, Any], Path], None]
    error: type[sp.StockpotError]
    words: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(error: type[sp.StockpotError], *words: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        CASES[function.__name__] = Case(function, error, words)
        return function

    return register


def file_of(path: Path) -> Path:
    return path / "model.safetensors"


def lie(path: Path, **changes: Any) -> None:
    """Rewrite a model's file with changes to the header's entry of a.weight."""
    tensors = {"a.weight": np.zeros((16, 24), np.float32)}
    header = header_of(tensors)
    header["a.weight"].update(changes)
    file_of(path).write_bytes(encode(header, tensors["a.weight"].tobytes()))


@case(sp.MissingTensorError, "a.weight", "model-1")
def a_missing_tensor(models: Models, recipe: dict[str, Any], root: Path) -> None:
    tensors = {name: array for name, array in models.tensors[2].items() if name != "a.weight"}
    write_folder(models.models[1], tensors)


@case(sp.ShapeError, "a.weight", "model-1")
def another_shape(models: Models, recipe: dict[str, Any], root: Path) -> None:
    write_folder(models.models[1], {**models.tensors[2], "a.weight": np.zeros((24, 16), np.float32)})


@case(sp.MethodError, "model_stok", "model_stock")
def an_unknown_method(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe["merge_method"] = "model_stok"


@case(sp.MethodError, "slerp", "2 models")
def too_many_models(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe.update(merge_method="slerp", parameters={"t": 0.5})


@case(sp.MethodError, "base")
def no_base(models: Models, recipe: dict[str, Any], root: Path) -> None:
    del recipe["base_model"]


@case(sp.RecipeError, "models")
def no_models(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe["models"] = []


@case(sp.RecipeError, "merge_method")
def no_method(models: Models, recipe: dict[str, Any], root: Path) -> None:
    del recipe["merge_method"]


@case(sp.ParameterError, "aggregate", "median")
def a_value_out_of_range(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe["parameters"] = {"aggregate": "median"}


@case(sp.RecipeError, "float7")
def an_unknown_type(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe["out_dtype"] = "float7"


@case(sp.QuantizedError, "quantization_config")
def a_quantised_config(models: Models, recipe: dict[str, Any], root: Path) -> None:
    write_folder(models.models[0], models.tensors[1], quantization_config={"quant_method": "gptq"})


@case(sp.QuantizedError, "qweight")
def a_quantised_tensor(models: Models, recipe: dict[str, Any], root: Path) -> None:
    write_folder(models.models[0], {**models.tensors[1], "a.qweight": np.zeros((2, 2), np.int32)})


@case(sp.NonFiniteError, "a.weight", "model-2")
def a_nan(models: Models, recipe: dict[str, Any], root: Path) -> None:
    spoilt = models.tensors[3]["a.weight"].copy()
    spoilt[7, 7] = np.nan
    write_folder(models.models[2], {**models.tensors[3], "a.weight": spoilt})


@case(sp.NonFiniteError, "a.bias", "base")
def an_infinity_in_the_base(models: Models, recipe: dict[str, Any], root: Path) -> None:
    spoilt = models.tensors[0]["a.bias"].copy()
    spoilt[0] = -np.inf
    write_folder(models.base, {**models.tensors[0], "a.bias": spoilt})


@case(sp.FormatError, "model-1")
def a_truncated_file(models: Models, recipe: dict[str, Any], root: Path) -> None:
    path = file_of(models.models[1])
    path.write_bytes(path.read_bytes()[:-7])


@case(sp.FormatError, "model-1")
def a_truncated_header(models: Models, recipe: dict[str, Any], root: Path) -> None:
    path = file_of(models.models[1])
    path.write_bytes(path.read_bytes()[:40])


@case(sp.FormatError, "model-1")
def an_empty_file(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).write_bytes(b"")


@case(sp.FormatError, "model-1")
def a_header_larger_than_the_file(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}")


@case(sp.FormatError, "model-1")
def a_header_that_is_no_json(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).write_bytes(encode(b"{not json}", b""))


@case(sp.FormatError, "model-1", "a.weight")
def offsets_beyond_the_end(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], data_offsets=[0, 10**15], shape=[10**15 // 4])


@case(sp.FormatError, "model-1", "a.weight")
def offsets_backwards(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], data_offsets=[1536, 0])


@case(sp.FormatError, "model-1", "a.weight")
def a_shape_that_does_not_match(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], shape=[16, 23])


@case(sp.FormatError, "model-1", "a.weight")
def a_shape_that_overflows(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], shape=[2**62, 4, 4])


@case(sp.FormatError, "model-1", "a.weight")
def a_negative_shape(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], shape=[-16, -24])


@case(sp.FormatError, "model-1", "F33")
def a_type_that_does_not_exist(models: Models, recipe: dict[str, Any], root: Path) -> None:
    lie(models.models[1], dtype="F33")


@case(sp.FormatError, "model-1")
def overlapping_tensors(models: Models, recipe: dict[str, Any], root: Path) -> None:
    array = np.zeros(4, np.float32)
    header = header_of({"x": array})
    header["y"] = header["x"]
    file_of(models.models[1]).write_bytes(encode(header, array.tobytes()))


@case(sp.FormatError, "index")
def an_index_that_leaves_its_folder(models: Models, recipe: dict[str, Any], root: Path) -> None:
    write_safetensors(root / "models" / "secret.safetensors", models.tensors[2])
    file_of(models.models[1]).unlink()
    weight_map = dict.fromkeys(models.tensors[2], "../secret.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (models.models[1] / "model.safetensors.index.json").write_text(json.dumps(index))


@case(sp.StockpotError, "model-1")
def an_index_that_names_a_missing_file(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).unlink()
    index = {"weight_map": dict.fromkeys(models.tensors[2], "model-00001-of-00001.safetensors")}
    (models.models[1] / "model.safetensors.index.json").write_text(json.dumps(index))


@case(sp.NotFoundError, "nothing")
def a_missing_model(models: Models, recipe: dict[str, Any], root: Path) -> None:
    recipe["models"][1]["model"] = str(root / "nothing")


@case(sp.NotFoundError, "model-1")
def a_folder_without_weights(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).unlink()


@case(sp.StockpotError, "model-1")
def a_file_that_cannot_be_read(models: Models, recipe: dict[str, Any], root: Path) -> None:
    file_of(models.models[1]).unlink()
    os.mkfifo(file_of(models.models[1]))


@pytest.mark.parametrize("name", CASES)
def test_in_python(models: Models, tmp_path: Path, name: str) -> None:
    spoil, error, words = CASES[name]
    recipe = models.recipe("model_stock")
    spoil(models, recipe, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error) as caught:
        sp.merge(recipe, tmp_path / "out", progress=False)
    message = str(caught.value)
    print(f"{name}: {message}")
    assert "\n" not in message
    assert len(message) > 20
    for word in words:
        assert word in message
    assert caught.value.status < 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", CASES)
def test_on_the_command_line(models: Models, tmp_path: Path, name: str) -> None:
    spoil, _, words = CASES[name]
    recipe = models.recipe("model_stock")
    spoil(models, recipe, tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    before = sorted(tmp_path.iterdir())
    arguments = ["merge", str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    for word in words:
        assert word in errors[0]
    assert sorted(tmp_path.iterdir()) == before


def test_the_output_is_an_input(models: Models, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(models.models[0])
    before = file_of(models.models[0]).read_bytes()
    for output in (models.models[0], models.base, link, models.base.parent, f"{models.base}/../model-0"):
        for overwrite in (False, True):
            with pytest.raises(sp.OutputExistsError):
                sp.merge(models.recipe(), output, overwrite=overwrite, progress=False)
    assert file_of(models.models[0]).read_bytes() == before


def test_the_output_is_an_input_file(tmp_path: Path) -> None:
    models = write_models(tmp_path)
    files = [{"model": str(file_of(path))} for path in models.models]
    with pytest.raises(sp.OutputExistsError):
        sp.merge({"merge_method": "linear", "models": files}, file_of(models.models[0]), overwrite=True, progress=False)


def test_a_folder_that_is_no_model_is_never_replaced(models: Models, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(sp.OutputExistsError):
            sp.merge(models.recipe(), tmp_path / "thesis", overwrite=overwrite, progress=False)
    assert (tmp_path / "thesis" / "chapter-1.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_written(models: Models, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(sp.StockpotError):
        sp.merge(models.recipe(), tmp_path / "file" / "out", progress=False)
    with pytest.raises(sp.StockpotError):
        sp.merge(models.recipe(), "", progress=False)
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    "options",
    [{"threads": -1}, {"threads": 2**40}, {"threads": "two"}, {"max_memory": -5}, {"shard_size": "big"}],
    ids=str,
)
def test_bad_options(models: Models, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(sp.ArgumentError):
        sp.merge(models.recipe(), tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()
