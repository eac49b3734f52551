"""YOYO Scale and YOYO-Fusion by PyTorch, for peers.py: our re-creation of the tools that the documents describe.

    python benchmarks/peer_scripts.py yoyo_scale --base BASE --output OUT MODEL MODEL MODEL
    python benchmarks/peer_scripts.py yoyo_fusion --output OUT MODEL MODEL MODEL

Not the authors' code, and it does not import stockpot. It works as the documents say: shard by shard of the first
folder, tensor by tensor, every tensor of every model as a whole, then a shard is saved in bfloat16. YOYO Scale takes
task vectors and their Gram matrix in float64 and writes yoyo_scale.csv. YOYO-Fusion works in float32, with a float64
singular value decomposition of the D x K residuals; the geometric median starts at the lower median and takes at most
100 iterations.

Sources: YOYO Scale, github.com/andehury/YOYO-Scale; YOYO-Fusion, github.com/andehury/YOYO-Fusion (first versions).
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]
from safetensors import safe_open  # type: ignore[import-not-found]
from safetensors.torch import save_file  # type: ignore[import-not-found]

EPS = 1e-8
TUKEY = 4.685


def yoyo_scale(base: Any, models: Sequence[Any]) -> tuple[Any, list[float]]:
    """The base plus the task vectors, each scaled by what the others agree with."""
    origin = base.to(torch.float64).flatten()
    deltas = torch.stack([model.to(torch.float64).flatten() - origin for model in models])
    gram = deltas @ deltas.T
    count = len(models)
    target = (gram.sum(dim=0) - gram.diagonal()) / (count - 1)
    scales = torch.linalg.solve(gram + 1e-12 * torch.eye(count, dtype=torch.float64), target).clamp(min=0)
    if scales.sum() > 1:
        scales = scales / scales.sum()
    return (origin + scales @ deltas).reshape(base.shape), scales.tolist()


def geometric_median(points: Any) -> Any:
    """Weiszfeld's iteration over the rows, from their lower median."""
    center = points.median(dim=0).values
    for _ in range(100):
        weights = 1 / (torch.linalg.norm(points - center, dim=1) + EPS)
        moved = (weights / weights.sum()) @ points
        if torch.linalg.norm(moved - center) < 1e-6:
            break
        center = moved
    return center


def tukey(values: Any, scale: Any) -> Any:
    """Biweight of magnitudes."""
    return (1 - (values / (TUKEY * scale + EPS)) ** 2).clamp(min=0) ** 2


def yoyo_fusion(models: Sequence[Any]) -> Any:
    """The robust average in the subspace of the residuals (no anchor, geometric median, rank K - 1)."""
    tensors = torch.stack([model.to(torch.float32).flatten() for model in models])
    count, size = tensors.shape
    sizes = torch.sqrt((tensors**2).sum(dim=1) / size + EPS)
    units = tensors / (sizes + EPS)[:, None]
    center = geometric_median(units)
    residuals = units - center
    merged = center
    if torch.linalg.norm(residuals, dim=1).max() >= 1e-7:
        left, sigma, _ = torch.linalg.svd(residuals.T.to(torch.float64), full_matrices=False)
        rank = min(count - 1, len(sigma))
        energy = (sigma[:rank] ** 2).sum() / ((sigma**2).sum() + 1e-16)
        basis = left[:, :rank].to(torch.float32)
        places = residuals @ basis
        spread = (1.4826 * places.abs().median(dim=0).values).clamp(min=1e-12)
        norms = torch.linalg.norm(places, dim=1)
        weights = tukey(places.abs(), spread) * tukey(norms, 1.4826 * norms.median())[:, None]
        middle = (weights * places).sum(dim=0) / (weights.sum(dim=0) + EPS)
        merged = center + min(float(1 / (energy + 1e-16)), 10.0) * (basis @ middle)
    merged = merged * sizes.mean()
    length = torch.linalg.norm(tensors, dim=1).mean()
    return (merged * (length / (torch.linalg.norm(merged) + EPS))).reshape(models[0].shape)


class Folder:
    """The tensors of a checkpoint, read one at a time."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        """Open every file."""
        self.files = {file.name: stack.enter_context(safe_open(file, "pt")) for file in path.glob("*.safetensors")}
        self._home = {name: file for file in self.files.values() for name in file.keys()}  # noqa: SIM118

    def read(self, name: str) -> Any:
        """One tensor."""
        return self._home[name].get_tensor(name)


def main() -> int:
    """Merge as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("yoyo_scale", "yoyo_fusion"))
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if (options.base is None) == (options.method == "yoyo_scale"):
        parser.error("--base is for yoyo_scale, which needs it")
    options.output.mkdir(parents=True)
    source = options.base or options.models[0]
    weight_map: dict[str, str] = {}
    total = 0
    lambdas: list[list[object]] = []
    with ExitStack() as stack:
        base = Folder(source, stack)
        models = [Folder(path, stack) for path in options.models]
        for shard in sorted(base.files):
            made = {}
            for name in base.files[shard].keys():  # noqa: SIM118
                tensors = [model.read(name) for model in models]
                if options.method == "yoyo_scale":
                    merged, scales = yoyo_scale(base.read(name), tensors)
                    lambdas.append([name, *(f"{value:.6f}" for value in scales)])
                else:
                    merged = yoyo_fusion(tensors)
                made[name] = merged.to(torch.bfloat16).contiguous()
                weight_map[name] = shard
                total += made[name].numel() * 2
            save_file(made, options.output / shard, metadata={"format": "pt"})
    if len(base.files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (options.output / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    if lambdas:
        with (options.output / "yoyo_scale.csv").open("w", newline="", encoding="utf-8") as file:
            header = ["tensor_name", *(f"model_{index}_lambda" for index in range(len(models)))]
            csv.writer(file).writerows([header, *lambdas])
    for path in source.glob("*.json"):
        if not (options.output / path.name).exists():
            shutil.copy(path, options.output / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
