"""One sp_job: made from a recipe, planned, run in a thread of its own while the caller's thread watches it."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _abi, hub
from ._lib import c_path, c_text, call, lib, long_text
from ._values import check_int32, parse_size, to_json
from .plans import Plan
from .recipes import Recipe

if TYPE_CHECKING:
    import tempfile

_POLL_SECONDS: Final = 0.05
_PHASES: Final = ("planned", "merging", "finishing", "done", "failed")


class JobOptions(NamedTuple):
    """How a job runs; see `stockpot.merge` for what each means."""

    threads: int = 0
    max_memory: int | str | None = None
    shard_size: int | str | None = None
    overwrite: bool = False
    resume: bool = False
    strict: bool = False

    def struct(self, recipe_text: str) -> _abi.JobOptions:
        """The options as the library takes them.

        Raises:
            ArgumentError: a number or size that cannot be.
        """
        return _abi.JobOptions(
            struct_size=ctypes.sizeof(_abi.JobOptions),
            threads=check_int32(self.threads, "threads"),
            max_memory=parse_size(self.max_memory, "max_memory"),
            shard_size=parse_size(self.shard_size, "shard_size"),
            overwrite=int(bool(self.overwrite)),
            resume=int(bool(self.resume)),
            strict=int(bool(self.strict)),
            recipe_text=c_text(recipe_text, "the recipe"),
        )


class Progress(NamedTuple):
    """How far a merge is.

    Attributes:
        phase: "planned", "merging", "finishing", "done" or "failed".
        tensors_done: tensors written, of `tensors_total`.
        tensors_total: tensors of the output.
        bytes_done: bytes of output tensors written, of `bytes_total`.
        bytes_total: bytes of all output tensors.
        tensor: name of the tensor begun last.
    """

    phase: str
    tensors_done: int
    tensors_total: int
    bytes_done: int
    bytes_total: int
    tensor: str


class Job:
    """An sp_job, as a context manager that frees it.

    Args:
        recipe: what to merge.
        output: the folder or .safetensors file to make; None only to plan.
        options: how.

    Raises:
        StockpotError: whatever is wrong with recipe, inputs or output; see `stockpot.merge`.
    """

    # The tokenizer files that the library is told to write have to be there until the job has run.
    _files: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, recipe: Recipe, output: str | os.PathLike[str] | None, options: JobOptions) -> None:
        hub.fetch(hub.references(recipe.value))
        value = recipe.value
        if value.get("tokenizer") is not None or value.get("tokenizer_source") is not None:
            from ._vocabulary import resolve  # long to import, and few recipes need it

            value, self._files = resolve(value, options.strict)
        self._create(
            "sp_job_create",
            to_json(value, "", "SP_E_RECIPE"),
            None if output is None else c_path(output),
            options=options.struct(recipe.text),
        )

    @classmethod
    def reconstruction(
        cls,
        merged: str | os.PathLike[str],
        correction: str | os.PathLike[str],
        base: str | os.PathLike[str] | None,
        output: str | os.PathLike[str],
        options: JobOptions,
    ) -> Job:
        """A job that rebuilds a task model; see `stockpot.reconstruct`."""
        hub.fetch(os.fsdecode(path) for path in (merged, correction, base) if path is not None)
        job = cls.__new__(cls)
        job._create(
            "sp_job_create_reconstruction",
            c_path(merged),
            c_path(correction),
            None if base is None else c_path(base),
            c_path(output),
            options=options.struct(""),
        )
        return job

    @classmethod
    def lora_extraction(
        cls,
        base: str | os.PathLike[str],
        model: str | os.PathLike[str],
        output: str | os.PathLike[str],
        parameters: Mapping[str, Any],
        options: JobOptions,
    ) -> Job:
        """A job that makes a LoRA adapter; see `stockpot.extract_lora`."""
        hub.fetch(os.fsdecode(path) for path in (base, model))
        job = cls.__new__(cls)
        job._create(
            "sp_job_create_lora_extraction",
            c_path(base),
            c_path(model),
            c_path(output),
            to_json(parameters, "", "SP_E_PARAMETER"),
            options=options.struct(""),
        )
        return job

    def _create(self, function: str, *arguments: Any, options: _abi.JobOptions) -> None:
        self._pointer = _abi.Job()
        call(function, *arguments, ctypes.byref(options), ctypes.byref(self._pointer))
        self._free = weakref.finalize(self, lib().sp_job_free, self._pointer)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self._free()
        if self._files is not None:
            self._files.cleanup()

    def plan(self) -> Plan:
        """What the job will do."""
        return Plan.of_library(self.plan_json())

    def plan_json(self) -> str:
        """The same as JSON."""
        return long_text(lib().sp_job_plan_json(self._pointer))

    def progress(self) -> Progress:
        """How far it is."""
        raw = _abi.Progress(struct_size=ctypes.sizeof(_abi.Progress))
        lib().sp_job_progress(self._pointer, ctypes.byref(raw))
        phase = _PHASES[raw.phase] if 0 <= raw.phase < len(_PHASES) else str(raw.phase)
        done = (raw.tensors_done, raw.tensors_total, raw.bytes_done, raw.bytes_total)
        return Progress(phase, *done, raw.tensor.decode("utf-8", "replace"))

    def run(self, watch: Callable[[Progress], object] | None) -> str:
        """Run the job and return its report as JSON.

        The library works in another thread; this one stays free for signals and for `watch`. Whatever is raised here
        meanwhile, Ctrl-C first of all, cancels the job, waits for it to stop (a block's time) and passes on.

        Args:
            watch: called about 20 times a second, and once at the end of a run that succeeded.

        Raises:
            StockpotError: why the run failed.
        """
        outcome: list[BaseException] = []
        finished = threading.Event()

        def work() -> None:
            try:
                call("sp_job_run", self._pointer, _abi.ProgressFunction(), None)
            except BaseException as error:  # handed to the thread that waits
                outcome.append(error)
            finally:
                finished.set()

        worker = threading.Thread(target=work, name="stockpot-merge", daemon=True)
        try:
            worker.start()
            while not finished.wait(_POLL_SECONDS):
                if watch is not None:
                    watch(self.progress())
        except BaseException:
            # A start that was interrupted may still become a thread, which then finds its job cancelled.
            self._stop(finished, None if worker.ident is not None else 1.0)
            raise
        worker.join()
        if outcome:
            raise outcome[0]
        if watch is not None:
            watch(self.progress())
        return long_text(lib().sp_job_report_json(self._pointer))

    def _stop(self, finished: threading.Event, timeout: float | None) -> None:
        """Cancel, and wait even through further Ctrl-C: the job must not be freed under the library's feet."""
        while True:
            try:
                lib().sp_job_cancel(self._pointer)
                finished.wait(timeout)
            except KeyboardInterrupt:
                continue
            return
