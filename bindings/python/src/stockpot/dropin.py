"""The entry points of the tools that stockpot follows, so that a script which imports them only changes its import.

    from stockpot.dropin import merge_models_yoyo_scale     # was: from yoyo_scale import ...
    from stockpot.dropin import run_merge                   # was: from yoyo_fusion import ...
    from stockpot.dropin import ModelStock                  # was: from fusion_bench.method.model_stock import ...

`merge_models_yoyo_scale` and `run_merge` write bfloat16 and may replace an existing folder, as the originals do, but
only once the merge has succeeded. The functions of Model Stock work on mappings of name to array, numpy or torch.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

from .checkpoints import as_tensors, save
from .errors import StockpotWarning, error_for
from .jobs import merge
from .kernels import Tensors, combine, cosines, gram
from .plans import MergeResult
from .registry import merge_tensors
from .views import borrow

PathLike: TypeAlias = str | os.PathLike[str]

EPS: Final = 1e-8
"""FusionBench's constant, in the denominator of the cosine and of the ratio."""

CLIP_IGNORE_KEYS: Final = (
    "model.positional_embedding",
    "model.text_projection",
    "model.logit_scale",
    "model.token_embedding.weight",
    "model.ln_final.weight",
    "model.ln_final.bias",
)
"""FusionBench's list of `ignore_keys` for CLIP vision models, whose text side was not fine-tuned."""


def merge_models_yoyo_scale(
    model_paths: Sequence[PathLike], base_path: PathLike, output_path: PathLike, config_source_index: int = 0
) -> MergeResult:
    """Merge fine-tuned models with YOYO Scale (the solver of the seed: solve, clamp, renormalise).

    Args:
        model_paths: folders of the N >= 1 fine-tuned models.
        base_path: folder of the base model.
        output_path: folder to make, with bfloat16 shards, config, tokenizer and yoyo_scale.csv; an existing one is
            replaced once the merge has succeeded.
        config_source_index: where config, tokenizer and other side files come from: 0 is the base, i the i-th model.

    A tensor that some model lacks, or has in another shape, is copied from the base with a `StockpotWarning`, where the
    original caught the exception.

    Returns:
        What was made, with the report.

    Raises:
        ArgumentError: no models, or an index out of range. Otherwise as `stockpot.merge`.

    Source: YOYO Scale, github.com/andehury/YOYO-Scale.
    """
    models = _paths(model_paths, 1)
    if not 0 <= config_source_index <= len(models):
        raise error_for(
            "SP_E_ARGUMENT",
            f"config_source_index is {config_source_index}; give 0 for the base, or 1 to {len(models)}",
        )
    recipe = {
        "merge_method": "yoyo_scale",
        "base_model": os.fspath(base_path),
        "models": [{"model": path} for path in models],
        "parameters": {"solver": "clamp"},
        "config_source": config_source_index,
        "on_missing": "base",
        "on_shape_mismatch": "base",
        "out_dtype": "bfloat16",
    }
    return merge(recipe, output_path, overwrite=True)


def run_merge(
    model_paths: Sequence[PathLike],
    output_dir: PathLike,
    anchor_index: int = 0,
    config_dir: int = 1,
    use_k_minus_one_truncation: bool = True,
    use_geometric_median: bool = False,
) -> MergeResult:
    """Merge fine-tuned models with YOYO-Fusion, version 1 (the seed's).

    Args:
        model_paths: folders of the K >= 2 models.
        output_dir: folder to make, in bfloat16; an existing one is replaced once the merge has succeeded.
        anchor_index: 0 for a robust centre; n >= 1 takes the n-th model as centre.
        config_dir: m >= 1: config, tokenizer and other side files come from the m-th model.
        use_k_minus_one_truncation: keep K - 1 directions and scale the energy; False keeps all.
        use_geometric_median: centre by the geometric median; False by the lower median. Only if `anchor_index` is 0.

    Returns:
        What was made, with the report.

    Raises:
        ArgumentError: fewer than two models, or an index out of range. Otherwise as `stockpot.merge`.

    Source: YOYO-Fusion, github.com/andehury/YOYO-Fusion.
    """
    models = _paths(model_paths, 2)
    if not 0 <= anchor_index <= len(models):
        raise error_for("SP_E_ARGUMENT", f"anchor_index is {anchor_index}; give 0 for no anchor, or 1 to {len(models)}")
    if not 1 <= config_dir <= len(models):
        raise error_for("SP_E_ARGUMENT", f"config_dir is {config_dir}; give 1 to {len(models)}")
    recipe = {
        "merge_method": "yoyo_fusion",
        "models": [{"model": path} for path in models],
        "parameters": {
            "anchor_index": anchor_index,
            "use_k_minus_one_truncation": bool(use_k_minus_one_truncation),
            "use_geometric_median": bool(use_geometric_median),
        },
        "config_source": config_dir,
        "out_dtype": "bfloat16",
    }
    return merge(recipe, output_dir, overwrite=True)


def compute_angle(
    state_dict_1: Tensors,
    state_dict_2: Tensors,
    ref_state_dict: Tensors,
    ignore_keys: Collection[str] = (),
    return_cos: bool = False,
) -> dict[str, float]:
    """Angle between two models' differences from a reference, tensor by tensor.

    cos = <a, b> / (|a| |b| + 1e-8), clipped to [-1, 1], so a model that equals the reference gives 0 and pi/2.

    Args:
        state_dict_1: arrays by name.
        state_dict_2: arrays by name.
        ref_state_dict: arrays by name, of the pre-trained model; its float tensors are those compared.
        ignore_keys: names to leave out.
        return_cos: give cosines, not angles.

    Returns:
        An angle in radians, or a cosine, for each name. Names in `ignore_keys`, tensors whose shapes differ (with a
        `StockpotWarning`) and tensors that are not of float type are left out.

    Raises:
        MissingTensorError: (also a KeyError) a model lacks a tensor of the reference.

    Source: FusionBench, fusion_bench/method/model_stock; Jang, Yun and Han, arXiv:2403.19522.
    """
    result = {}
    for name in _compared(ref_state_dict, [state_dict_1, state_dict_2], ignore_keys):
        matrix = gram([state_dict_1[name], state_dict_2[name]], ref_state_dict[name])
        cosine = float(cosines(matrix, EPS)[0, 1])
        result[name] = cosine if return_cos else math.acos(cosine)
    return result


def compute_ratio(angle_dict: Mapping[str, float], k: int = 2) -> dict[str, float]:
    """Model Stock's interpolation ratio t = k cos / ((k - 1) cos + 1 + 1e-8) for each angle.

    Args:
        angle_dict: angles in radians by name, as `compute_angle` returns them.
        k: number of fine-tuned models.

    Source: FusionBench, fusion_bench/method/model_stock.
    """
    result = {}
    for name, angle in angle_dict.items():
        cosine = math.cos(angle)
        result[name] = k * cosine / ((k - 1) * cosine + 1 + EPS)
    return result


def merge_weights(w1: Tensors, w2: Tensors, w0: Tensors, ratio: Mapping[str, float]) -> dict[str, Any]:
    """Interpolate between the average of two models and the pre-trained one: r (w1 + w2) / 2 + (1 - r) w0.

    Args:
        w1: arrays by name. Its names are those of the result.
        w2: arrays by name.
        w0: arrays by name, of the pre-trained model.
        ratio: r by name, as `compute_ratio` returns it. A name without ratio keeps the plain average.

    Returns:
        New arrays by name, of the kind and element type of `w1`'s. Integer tensors are those of `w0`, else `w1`.

    Raises:
        MissingTensorError: a name that `w2`, or with a ratio `w0`, lacks. ShapeError: shapes differ.

    Source: FusionBench, fusion_bench/method/model_stock.
    """
    result = {}
    for name in w1:
        _require(name, {"w2": w2, **({"w0": w0} if name in ratio else {})})
        if not borrow(w1[name], name).dtype.is_float:
            result[name] = w0[name] if name in w0 else w1[name]
        elif name in ratio:
            r = float(ratio[name])
            result[name] = combine([w0[name], w1[name], w2[name]], [1 - r, r / 2, r / 2], dtype=_dtype(w1[name]))
        else:
            result[name] = combine([w1[name], w2[name]], [0.5, 0.5])
    return result


class ModelStock:
    """FusionBench's Model Stock: mean of the angles over all pairs of models, one ratio per tensor.

    Args:
        ignore_keys: names that keep the plain average of the models; see `CLIP_IGNORE_KEYS`.
        model_save_path: a folder in which `run` writes model.safetensors; None for none.
        model_save_kwargs: further arguments of `stockpot.save`, such as metadata.

    Source: FusionBench, fusion_bench/method/model_stock; Jang, Yun and Han, arXiv:2403.19522.
    """

    def __init__(
        self,
        ignore_keys: Collection[str] | None = None,
        model_save_path: PathLike | None = None,
        model_save_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.ignore_keys = list(ignore_keys or ())
        self.model_save_path = model_save_path
        self.model_save_kwargs = dict(model_save_kwargs or {})

    def run(self, modelpool: Mapping[str, Tensors | PathLike]) -> dict[str, Any]:
        """Merge the models of a pool.

        Args:
            modelpool: models by name, "_pretrained_" and at least two others. Each is a mapping of name to array
                (also what `stockpot.open` returns), or the path of a checkpoint.

        Returns:
            The merged model: an array for each tensor of the pre-trained one, of its kind and element type; integer
            tensors are the pre-trained one's. Names in `ignore_keys`, and tensors whose shape differs from the
            pre-trained one's (with a `StockpotWarning`), are the plain average of the models; where the models' shapes
            differ too, the pre-trained tensor.

        Raises:
            ArgumentError: no "_pretrained_", or fewer than two other models.
            MissingTensorError: (also a KeyError) a model lacks a tensor. NonFiniteError: NaN or infinity in one.
        """
        if "_pretrained_" not in modelpool:
            raise error_for("SP_E_ARGUMENT", "the model pool has no '_pretrained_', which Model Stock measures from")
        names = [name for name in modelpool if name != "_pretrained_"]
        if len(names) < 2:
            raise error_for(
                "SP_E_ARGUMENT",
                f"Model Stock needs two models or more; the pool has {len(names)}",
            )
        with ExitStack() as stack:
            base = stack.enter_context(as_tensors(modelpool["_pretrained_"], "_pretrained_"))
            models = {name: stack.enter_context(as_tensors(modelpool[name], name)) for name in names}
            merged = {name: self._tensor(name, base[name], models) for name in base}
        if self.model_save_path is not None:
            target = Path(self.model_save_path) / "model.safetensors"
            save(merged, target, **{"overwrite": True, **self.model_save_kwargs})
        return merged

    def _tensor(self, name: str, base: Any, models: Mapping[str, Tensors]) -> Any:
        _require(name, models)
        arrays = [model[name] for model in models.values()]
        shapes = [borrow(array, f"{name} of {model}").shape for model, array in zip(models, arrays, strict=True)]
        origin = borrow(base, f"{name} of _pretrained_")
        if not origin.dtype.is_float:
            return base
        if len(set(shapes)) > 1:
            _warn_shapes(name, [origin.shape, *shapes], "it stays as in the pre-trained model")
            return base
        if shapes[0] != origin.shape:
            _warn_shapes(name, [origin.shape, shapes[0]], "it becomes the plain average of the models")
        elif name not in self.ignore_keys:
            return merge_tensors("model_stock", arrays, base, name=name, compat="fusion_bench")
        return combine(arrays, [1 / len(arrays)] * len(arrays), dtype=origin.dtype)


def _paths(paths: Sequence[PathLike], least: int) -> list[str]:
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise error_for("SP_E_ARGUMENT", "model_paths is a single path; give a list of them")
    found = [os.fspath(path) for path in paths]
    if len(found) < least:
        raise error_for("SP_E_ARGUMENT", f"model_paths has {len(found)} paths; give at least {least}")
    return found


def _dtype(array: Any) -> Any:
    return borrow(array).dtype


def _compared(reference: Tensors, models: Sequence[Tensors], ignore_keys: Collection[str]) -> list[str]:
    names = []
    for name in reference:
        if name in ignore_keys:
            continue
        _require(name, {f"state_dict_{index}": model for index, model in enumerate(models, 1)})
        arrays = [borrow(tensors[name], name) for tensors in (reference, *models)]
        if not all(array.dtype.is_float for array in arrays):
            continue
        shapes = [array.shape for array in arrays]
        if all(one == other for one, other in itertools.pairwise(shapes)):
            names.append(name)
        else:
            _warn_shapes(name, shapes, "it is skipped")
    return names


def _require(name: str, models: Mapping[str, Tensors]) -> None:
    for label, model in models.items():
        if name not in model:
            raise error_for("SP_E_MISSING_TENSOR", f"{label} has no tensor {name!r}, which the others have")


def _warn_shapes(name: str, shapes: Sequence[tuple[int, ...]], outcome: str) -> None:
    listed = " and ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
    warnings.warn(f"{name} has shapes {listed}: {outcome}", StockpotWarning, stacklevel=4)
