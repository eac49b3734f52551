"""Stockpot against other tools, on the same checkpoints: mergekit, and two documents' tools as we re-created them.

    make benchmark-data
    python benchmarks/peers.py                                 makes an environment of 1.6 GB, and removes it at the end
    python benchmarks/peers.py --environment ~/.cache/peers    keeps it there for the next time
    python benchmarks/peers.py --only linear,model_stock --rounds 9
    python benchmarks/peers.py --quick                         without peers: only shows that the program runs

mergekit and PyTorch for the CPU are installed by pip as it is configured on this machine. Both sides run as whole
processes, in turns, the inputs brought into the page cache before and the output deleted after each: a ratio is the
peer's seconds over stockpot's of the same round. Both include the start of Python; mergekit's includes the import of
PyTorch and transformers, some seconds. Threads are what each tool takes by itself. ties takes mergekit minutes per run.

"difference" is the largest over some tensors of |theirs - ours|, over the largest |ours|: bfloat16 resolves 4e-3.
Tools differ by rounding and by their constants. What is dropped at random differs altogether, so none is printed there.

YOYO Scale and YOYO-Fusion are published as scripts, in no package. Their peers are peer_scripts.py, our re-creation of
what the documents describe (load a shard, compute tensor by tensor with PyTorch, save): not the authors' code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checkpoints import INPUTS, data_of, note_if_cold, warm
from measure import DATA, Process, Report, add_options, inputs_of, make_recipe, merge, names_in, run, spread

import stockpot as sp

TORCH = "2.13.0+cpu"
SCRIPTS = Path(__file__).resolve().with_name("peer_scripts.py")
LARGEST_COMPARED = 1 << 24
"""Elements of the largest tensor that is compared."""


class Peer(NamedTuple):
    """Who does the same as a method, and how many times faster stockpot is to be."""

    tool: str
    goal: float
    random: bool = False


PEERS = {
    "linear": Peer("mergekit", 12),
    "model_stock": Peer("mergekit", 10),
    "dare_ties": Peer("mergekit", 25, random=True),
    "ties": Peer("mergekit", 75),
    "yoyo_scale": Peer("re-created script", 28),
    "yoyo_fusion": Peer("re-created script", 400),
}

COLUMNS = {
    "method": "method",
    "peer": "peer",
    "theirs": "theirs s|.2f",
    "theirs_minimum": "min|.2f",
    "theirs_maximum": "max|.2f",
    "ours": "ours s|.3f",
    "ours_minimum": "min|.3f",
    "ours_maximum": "max|.3f",
    "ratio": "ratio|.1f",
    "smallest": "min|.1f",
    "largest": "max|.1f",
    "goal": "goal|.0f",
    "met": "met",
    "difference": "difference|.1e",
}


def install(folder: Path, torch: str) -> Path:
    """The environment's Python; mergekit and PyTorch are installed if they are not there yet.

    Raises:
        RuntimeError: pip failed; the text says how.
    """
    python = folder / "bin" / "python"
    if not (folder / "bin" / "mergekit-yaml").is_file():
        print(f"installing mergekit and torch {torch} into {folder} ...", flush=True)
        venv.create(folder, with_pip=True)
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "mergekit", f"torch=={torch}"])
    return python


def versions(python: Path) -> str:
    """What is installed there."""
    names = ("mergekit", "torch", "transformers", "safetensors", "numpy")
    text = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    return subprocess.run([python, "-c", text, *names], capture_output=True, text=True, check=True).stdout.strip()


def peer_command(python: Path, method: str, recipe: Mapping[str, Any], scratch: Path) -> list[str | Path]:
    """The command that does the same as a recipe, into scratch/theirs."""
    output = scratch / "theirs"
    if PEERS[method].tool != "mergekit":
        models = [entry["model"] for entry in recipe["models"]]
        base = ["--base", recipe["base_model"]] if "base_model" in recipe else []
        return [python, SCRIPTS, method, *base, "--output", output, *models]
    # mergekit wants a weight, and takes per-model parameters beside each model; JSON is YAML.
    each = {} if method == "model_stock" else {"weight": 1.0, **recipe["parameters"]}
    models = [{"model": entry["model"], "parameters": each} for entry in recipe["models"]]
    config = {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if "base_model" in recipe:
        config["base_model"] = recipe["base_model"]
    file = scratch / "mergekit.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    return [python.with_name("mergekit-yaml"), file, output, "--no-copy-tokenizer", "--quiet"]


def difference(theirs: Path, ours: Path) -> float:
    """How far two checkpoints are apart, over a few tensors of the first layer and the norms."""
    worst = 0.0
    with sp.open(theirs) as one, sp.open(ours) as other:
        if set(one) != set(other):
            raise RuntimeError(f"the outputs hold different tensors: {len(one)} of theirs, {len(other)} of ours")
        for name in [name for name in other if ".layers.0." in name or "norm" in name][:16]:
            if other[name].size > LARGEST_COMPARED:
                continue
            left, right = (np.asarray(side[name], np.float64) for side in (one, other))
            worst = max(worst, float(np.abs(left - right).max() / max(np.abs(right).max(), 1e-30)))
    return worst


def measure(method: str, data: Path, scratch: Path, python: Path | None, rounds: int) -> dict[str, Any]:
    """A row: both sides in turns."""
    recipe = make_recipe(data, method, models=INPUTS)
    peer = PEERS[method]
    ours: list[Process] = []
    theirs: list[Process] = []
    apart: float | None = None
    for turn in range(rounds):
        if python is not None:
            command = peer_command(python, method, recipe, scratch)
            warm(inputs_of(recipe))
            # Nothing is to be fetched: the models are folders.
            theirs.append(run(command, environment={"HF_HUB_OFFLINE": "1"}))
        warm(inputs_of(recipe))  # what the peer took for itself may have come out of the page cache
        last = python is not None and turn == rounds - 1 and not peer.random
        ours.append(merge(recipe, scratch, keep=last)[0])
        if last:
            apart = difference(scratch / "theirs", scratch / "merged")
            shutil.rmtree(scratch / "merged")
        shutil.rmtree(scratch / "theirs", ignore_errors=True)
    own = spread([one.seconds for one in ours])
    row: dict[str, Any] = {"method": method, "peer": peer.tool, "goal": peer.goal, "difference": apart}
    row |= {"ours": own.median, "ours_minimum": own.minimum, "ours_maximum": own.maximum}
    if theirs:
        other = spread([one.seconds for one in theirs])
        ratio = spread([two.seconds / one.seconds for one, two in zip(ours, theirs, strict=True)])
        row |= {"theirs": other.median, "theirs_minimum": other.minimum, "theirs_maximum": other.maximum}
        row |= {"ratio": ratio.median, "smallest": ratio.minimum, "largest": ratio.maximum}
        row |= {"met": "yes" if ratio.median >= peer.goal else "no"}
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="that generate.py wrote (default benchmarks/data)")
    parser.add_argument("--environment", type=Path, help="virtual environment of the peers, made if it is not there")
    parser.add_argument("--torch", default=TORCH, metavar="VERSION", help=f"to install (default {TORCH})")
    parser.add_argument("--only", type=names_in, default=list(PEERS), metavar="METHODS", help=f"of {', '.join(PEERS)}")
    add_options(parser, rounds=5)
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(PEERS)
    if unknown:
        parser.error(f"there is no peer for {', '.join(sorted(unknown))}; there is one for {', '.join(PEERS)}")
    with data_of(options, parser) as (data, scratch):
        python = None
        if options.environment is not None or not options.quick:
            python = install((options.environment or scratch / "environment").resolve(), options.torch)
        report = Report("peers", data, options)
        report.note("no peers: --quick without --environment" if python is None else versions(python))
        recipes = [make_recipe(data, method, models=INPUTS) for method in options.only]
        folders = list(dict.fromkeys(path for recipe in recipes for path in inputs_of(recipe)))
        for method in options.only:
            report.table(f"{method}", [measure(method, data, scratch, python, options.rounds)], COLUMNS)
            note_if_cold(folders, report)
            report.save()  # hours may have gone into it
    return 0


if __name__ == "__main__":
    sys.exit(main())
