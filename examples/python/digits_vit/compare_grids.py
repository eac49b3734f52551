"""What `compare.py` merges: every method that takes six models, and its small grid of lambda.

The grids span what the papers and their code tune over. A method that adds the task vectors up wants a small lambda
(1/6 is the average of six), one that takes their mean wants one near 1, and a spectral one lies between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

TASKS = ("identity", "rotated", "inverted", "shuffled-halves", "parity", "modulo3-noisy")
GRAM, ELEMENTWISE, SPECTRAL = "gram", "elementwise", "spectral"
COMPRESSED, REFERENCE = "compressed", "reference"
FAMILIES = (GRAM, ELEMENTWISE, SPECTRAL)

LEFT_OUT = {"slerp": "takes two models at most, and these are six"}
"""Methods that are not compared, and why."""

SUMS = (0.1, 0.2, 0.3, 0.45)
MEANS = (0.15, 0.3, 0.6, 1.0)
SPECTRA = (0.15, 0.3, 0.5, 1.0)
EXTRACTED_AGAINST = 0.2
"""The lambda of the task arithmetic that corrections are extracted against."""

ALTERNATIONS = 4
"""Of Scale-SVD. The default of 10 takes more than twice as long, and changes no mean here by 0.2 points."""

POSITIONS = ["*positional_embedding*"]
"""A table of vectors that happens to have two dimensions, not a linear map: averaged instead of decomposed."""


@dataclass(frozen=True)
class Variant:
    """One method with its parameters, and the values of the one parameter that is tried out."""

    label: str
    method: str
    family: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tuned: str = "lambda"
    values: tuple[float, ...] = ()
    takes_base: bool = True
    statistics: bool = False


def catalogue() -> list[Variant]:
    """All variants, in the order of the table."""
    return [*_gram(), *_elementwise(), *_spectral(), *_compressed()]


def choose(methods: Collection[str] | None, quick: bool) -> list[Variant]:
    """The variants of some methods (None: of all), with the two middle values of each grid if `quick`."""
    chosen = [variant for variant in catalogue() if methods is None or variant.method in methods]
    if not quick:
        return chosen
    return [replace(variant, values=_middle(variant.values)) for variant in chosen]


def _middle(values: Sequence[float]) -> tuple[float, ...]:
    """Two neighbours about the middle, or all where there are fewer."""
    start = max(0, len(values) // 2 - 1)
    return tuple(values[start : start + 2])


def _gram() -> list[Variant]:
    return [
        Variant("linear (average)", "linear", GRAM, takes_base=False),
        Variant("task arithmetic", "task_arithmetic", GRAM, values=SUMS),
        Variant("Model Stock", "model_stock", GRAM),
        Variant("YOYO Scale, clamp", "yoyo_scale", GRAM, {"solver": "clamp"}),
        Variant("YOYO Scale, qp", "yoyo_scale", GRAM, {"solver": "qp"}),
        Variant("geometric median", "geometric_median", GRAM, takes_base=False),
        Variant("YOYO-Fusion v1", "yoyo_fusion", GRAM, {"version": "v1"}, takes_base=False),
        Variant("YOYO-Fusion v3", "yoyo_fusion", GRAM, {"version": "v3"}, takes_base=False),
    ]


def _elementwise() -> list[Variant]:
    def make(label: str, method: str, values: tuple[float, ...], **parameters: Any) -> Variant:
        return Variant(label, method, ELEMENTWISE, parameters, values=values)

    return [
        make("TIES, mergekit", "ties", MEANS, density=0.5),
        make("TIES, paper", "ties", MEANS, density=0.2, compat="ties_merging"),
        make("TIES-SOUP", "ties_soup", MEANS),
        make("DARE linear", "dare_linear", SUMS, density=0.5),
        make("DARE-TIES", "dare_ties", SUMS, density=0.5),
        make("TSD", "tsd", MEANS),
        make("TSD v2", "tsd_v2", MEANS),
        make("TGMD", "tgmd", MEANS),
        make("magnitude pruning", "magnitude_prune", SUMS, density=0.2),
        make("MagMax", "magmax", SUMS),
        make("consensus TA", "consensus_ta", SUMS),
        make("consensus TIES", "consensus_ties", SUMS),
    ]


def _spectral() -> list[Variant]:
    def make(label: str, method: str, values: tuple[float, ...], **parameters: Any) -> Variant:
        return Variant(label, method, SPECTRAL, parameters, values=values)

    return [
        make("TSVM", "tsvm", SPECTRA),
        make("Iso-C", "iso_c", SPECTRA),
        make("TSVM, no positions", "tsvm", SPECTRA, exclude_keys=POSITIONS),
        make("Iso-C, no positions", "iso_c", SPECTRA, exclude_keys=POSITIONS),
        make("Iso-CTS", "iso_cts", SPECTRA),
        make("Scale-SVD, sum", "scale_svd", SUMS, then="sum", num_iters=ALTERNATIONS),
        make("Scale-SVD, Iso-C", "scale_svd", SPECTRA, then="iso_c", num_iters=ALTERNATIONS),
        make("Scale-SVD, TSVM", "scale_svd", SPECTRA, then="tsvm", num_iters=ALTERNATIONS),
    ]


def _compressed() -> list[Variant]:
    extract = {"then": "extract", "num_iters": ALTERNATIONS}
    sparsities = (0.8, 0.9)
    return [
        Variant("TALL masks", "tall_mask", COMPRESSED, {}, "tall_mask_lambda", (0.2, 0.4, 0.6)),
        Variant("corrections", "scale_svd", COMPRESSED, extract, "sparsity", sparsities),
        Variant("corrections, statistics", "scale_svd", COMPRESSED, extract, "sparsity", sparsities, statistics=True),
    ]
