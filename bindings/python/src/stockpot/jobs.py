"""Whole checkpoints: `plan` says what a recipe would do, `merge` does it."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ._job import Job, JobOptions, Progress
from ._stages import folder_of, plan_stages, stages
from .errors import StockpotWarning, error_for
from .plans import MergeResult, Plan
from .recipes import Recipe, load_recipe

RecipeLike: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Recipe
"""A path, YAML text, a mapping, or a recipe that has been read."""


def plan(
    recipe: RecipeLike,
    output: str | os.PathLike[str] | None = None,
    *,
    threads: int = 0,
    max_memory: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    shard_size: int | str | None = None,
    strict: bool = False,
) -> Plan:
    """Read a recipe and the headers of its inputs, and plan every tensor and byte of the output. Nothing is written.

    Args:
        recipe: as `merge` takes it.
        output: as `merge` takes it; None plans without checking the output's place.
        threads: as `merge` takes it; so are all that follow.
        max_memory: bytes of plan, buffers and what methods hold.
        resume: go on from <output>.partial.
        overwrite: an existing output is no error.
        shard_size: bytes of a shard.
        strict: unknown keys and parameters of the recipe are errors.

    Returns:
        The plan: a value that can be printed, or written as JSON.

    Raises:
        What `merge` raises before it starts: see there.
    """
    read = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    options = JobOptions(threads, max_memory, shard_size, overwrite, resume, strict)
    if read.stages:
        return plan_stages(read, output, options, folder_of(output or "OUTPUT", None))
    with Job(read, output, options) as job:
        return job.plan()


def merge(
    recipe: RecipeLike,
    output_dir: str | os.PathLike[str],
    *,
    threads: int = 0,
    max_memory: int | str | None = None,
    progress: bool | Callable[[Progress], object] = True,
    resume: bool = False,
    overwrite: bool = False,
    shard_size: int | str | None = None,
    strict: bool = False,
    intermediate_dir: str | os.PathLike[str] | None = None,
) -> MergeResult:
    """Merge checkpoints as a recipe says.

    Work happens beside the output, in <output>.partial, and the output appears by one rename at the end: on failure,
    and after Ctrl-C, nothing is left at its place, and `resume` continues.

    Args:
        recipe: the path of a file (.yaml, .yml, .json), YAML text, or a mapping; the grammar is mergekit's and more
            (docs/recipes.md). Relative paths in it are relative to the working directory.
        output_dir: a folder to be made, or a file name that ends in ".safetensors".
        threads: 0 for the usable CPUs. The output is the same, bit for bit, for any number.
        max_memory: bytes of plan, buffers and what methods hold, or text such as "2GiB"; None for no limit but the
            default block size. What does not fit is refused before anything is written.
        progress: True shows a bar on standard error, by bytes of output tensors; a function is called with each
            `Progress`, about 20 times a second, in the calling thread.
        resume: go on from <output>.partial where its plan is the same.
        overwrite: replace an existing output, once the merge has succeeded.
        shard_size: bytes of a shard, or text such as "5GB", which is the default.
        strict: unknown keys and parameters of the recipe are errors, not warnings.
        intermediate_dir: where the stages of a recipe of several documents go, and stay; None for <output>.stages,
            which is removed at the end. A stage that is there already, made of the same inputs, is not made again.

    Returns:
        Where the output is, its plan, and the report of what was decided for each tensor.

    Raises:
        RecipeError: not a recipe. MethodError, ParameterError: its method or a parameter.
        NotFoundError, FileError, FormatError, QuantizedError: an input.
        MissingTensorError, ShapeError, DTypeError: inputs that do not belong together.
        OutputExistsError: the output exists, or is one of the inputs.
        NonFiniteError: NaN or infinity in an input. StockpotMemoryError: it does not fit in `max_memory`.
        KeyboardInterrupt: Ctrl-C; also what a `progress` function raises passes through, after the job has stopped.

    Warnings of the plan and of the run are issued as `StockpotWarning`, and stand in `plan.warnings` and the report.

    Sources: `stockpot methods NAME` names the paper of each method.
    """
    read = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    options = JobOptions(threads, max_memory, shard_size, overwrite, resume, strict)
    if read.stages and not overwrite and Path(output_dir).exists():
        raise error_for("SP_E_EXISTS", f"{output_dir} exists already: choose another path, or ask to overwrite it")
    folder = folder_of(output_dir, intermediate_dir)
    for stage in stages(read, output_dir, folder):
        assert stage.output is not None
        with Job(stage.recipe, stage.output, stage.options(options)) as job:
            planned = job.plan()
            for warning in planned.warnings:
                warnings.warn(warning, StockpotWarning, stacklevel=2)
            if stage.is_made(planned):
                continue
            stage.begin()
            report = run_job(job, progress, f"merging {stage.name}" if read.stages and stage.name else "merging")
            stage.finish(planned)
    if read.stages and intermediate_dir is None:
        shutil.rmtree(folder, ignore_errors=True)
    result = MergeResult(Path(output_dir), planned, report)
    for warning in result.late_warnings:
        warnings.warn(warning, StockpotWarning, stacklevel=2)
    return result


def reconstruct(
    merged: str | os.PathLike[str],
    correction: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    threads: int = 0,
    max_memory: int | str | None = None,
    progress: bool | Callable[[Progress], object] = True,
    overwrite: bool = False,
    shard_size: int | str | None = None,
) -> dict[str, Any]:
    """Rebuild a task model from a merged one and its TALL mask or correction (docs/masks.md).

    Args:
        merged: the merged checkpoint: OUT/merged of `tall_mask`, or the model that corrections were extracted against.
        correction: OUT/masks/<model> of `tall_mask`, or OUT/corrections/<model> of `scale_svd` with `then: extract`.
        output_dir: a folder to be made, or a file name that ends in ".safetensors".
        base: for a mask, the base of the merge; None for the one that the mask names.
        threads: 0 for the usable CPUs; the output is the same, bit for bit, for any number.
        max_memory: bytes, or text such as "2GiB".
        progress: as for `merge`.
        overwrite: replace an existing output, once the new one is complete.
        shard_size: bytes of a shard.

    Returns:
        The report: format, paths, seconds, and "summary" with tensors, rebuilt, copied, model_bytes, correction_bytes,
        merged_bytes, base_bytes and compression_ratio (model_bytes over correction_bytes).

    Raises:
        FormatError: not a mask or correction. MissingTensorError, ShapeError: of another model.
        NotFoundError, FileError, OutputExistsError, StockpotMemoryError: as for `merge`.

    Source: Wang et al., arXiv:2405.07813 (TALL masks); AwRank-Merging (Scale-SVD).
    """
    options = JobOptions(threads, max_memory, shard_size, overwrite)
    with Job.reconstruction(merged, correction, base, output_dir, options) as job:
        report: dict[str, Any] = json.loads(run_job(job, progress, "rebuilding"))
    return report


def extract_lora(
    base: str | os.PathLike[str],
    model: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    rank: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    save_modules: Sequence[str] = (),
    fan_in_fan_out: bool | None = None,
    dtype: str = "float32",
    threads: int = 0,
    max_memory: int | str | None = None,
    progress: bool | Callable[[Progress], object] = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make a LoRA adapter, in PEFT's layout, of what a model has changed in its base.

    Each changed matrix gets the truncated SVD of its difference, model - base = U S V^T: B = U sqrt(S) [out, r] and
    A = sqrt(S) V^T [r, in], in float64 and rounded once; the scale is 1. A difference of rank at most `rank` is kept to
    that rounding. Embeddings, convolutions, norms and biases are not factored by themselves.

    Args:
        base: what the model was tuned from: a model reference (docs/recipes.md), as `model` is.
        model: the tuned model.
        output_dir: the folder to be made.
        rank: r of the adapter; a matrix with a smaller side gets that.
        include: modules to factor besides: names, last components of names, or patterns with * and ?.
        exclude: modules not to factor.
        save_modules: modules to save whole (PEFT's modules_to_save), such as "embed_tokens" or "*norm".
        fan_in_fan_out: matrices are stored [in, out], as GPT-2's are; None decides by the config's model_type.
        dtype: of the factors: "float32", "bfloat16" or "float16".
        threads: 0 for the usable CPUs.
        max_memory: bytes, or text such as "2GiB": how many matrices are in work at once.
        progress: as for `merge`.
        overwrite: replace an existing output, once the new one is complete.

    Returns:
        The report: "summary" (tensors, factored, saved, unchanged, lost, worst_error, total_error, adapter_bytes,
        model_bytes) and "tensors", each with its action, rank and relative error in the Frobenius norm.

    Raises:
        ParameterError: rank or another option. MissingTensorError, ShapeError: models that do not belong together.
        ArgumentError: nothing differs. NonFiniteError: NaN or infinity in a tensor.
        NotFoundError, FileError, FormatError, OutputExistsError, StockpotMemoryError: as for `merge`.

    What the adapter cannot hold is issued as `StockpotWarning`, and listed in the report.

    Source: Hu et al., arXiv:2106.09685; Eckart and Young, 1936.
    """
    parameters = {
        "rank": rank,
        "include": list(include),
        "exclude": list(exclude),
        "save_modules": list(save_modules),
        "fan_in_fan_out": fan_in_fan_out,
        "dtype": dtype,
    }
    options = JobOptions(threads, max_memory, None, overwrite)
    with Job.lora_extraction(base, model, output_dir, parameters, options) as job:
        report: dict[str, Any] = json.loads(run_job(job, progress, "extracting"))
    for warning in report["warnings"]:
        warnings.warn(warning, StockpotWarning, stacklevel=2)
    return report


def run_job(job: Job, progress: bool | Callable[[Progress], object], doing: str = "merging") -> str:
    """Run a job with a bar, a function, or neither; return its report as JSON."""
    if callable(progress):
        return job.run(progress)
    if not progress:
        return job.run(None)
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, dynamic_ncols=True, leave=False, desc=doing) as bar:

        def show(state: Progress) -> None:
            bar.total = state.bytes_total or None
            bar.set_postfix_str(f"{state.tensors_done}/{state.tensors_total} tensors", refresh=False)
            bar.update(state.bytes_done - bar.n)

        return job.run(show)
