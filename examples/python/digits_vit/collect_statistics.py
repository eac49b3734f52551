"""Layer statistics of a digits vision transformer, from its NumPy forward pass: no PyTorch.

Run as a program it collects for one checkpoint and saves the file that a recipe names under `statistics:`.
`make_batches` is the same as a factory of the command:

    python collect_statistics.py ../../../Tests/Fixtures/digits-vit/task-parity parity parity-stats.safetensors
    stockpot collect-stats --factory collect_statistics:make_batches --output base-stats.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from forward import Array, DigitsViT

import stockpot as sp
from stockpot.stats import LayerStatistics

FIXTURE = Path(__file__).resolve().parents[3] / "Tests" / "Fixtures" / "digits-vit"
TASK = "rotated"


def make_batches(
    batch_size: int, num_batches: int, checkpoint: Path = FIXTURE / "base", task: str = TASK
) -> Iterator[dict[str, Array]]:
    """Per batch of training images, what goes into each layer by parameter name."""
    images = sp.open(FIXTURE / "eval.safetensors")[f"{task}.train_images"]
    inputs: dict[str, Array] = {}
    model = DigitsViT(dict(sp.open(checkpoint).items()), observe=inputs.__setitem__)
    for start in range(0, min(len(images), batch_size * num_batches), batch_size):
        model.features(images[start : start + batch_size], batch=batch_size)
        yield inputs


def collect(checkpoint: Path, task: str, statistic: str = "second_moment") -> LayerStatistics:
    """Statistics of a checkpoint's layers over all 256 training images of a task."""
    images = sp.open(FIXTURE / "eval.safetensors")[f"{task}.train_images"]
    statistics = LayerStatistics(statistic)
    DigitsViT(dict(sp.open(checkpoint).items()), observe=statistics.update).features(images)
    return statistics


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, save, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path, help="folder or .safetensors file of a digits-vit model")
    parser.add_argument("task", help="whose training images are shown: rotated, parity, ...")
    parser.add_argument("output", type=Path, help="file to make, .safetensors")
    parser.add_argument("--statistic", choices=("second_moment", "variance"), default="second_moment")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    statistics = collect(options.checkpoint, options.task, options.statistic)
    statistics.save(options.output, overwrite=options.overwrite)
    print(f"{len(statistics)} layers, {statistics.statistic}, in {options.output}")


if __name__ == "__main__":
    main()
