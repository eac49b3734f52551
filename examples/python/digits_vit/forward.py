"""Forward pass of the digits vision transformer, in NumPy.

The model is described in Tests/Fixtures/digits-vit/README.md: 8x8 grey images in 2x2 patches, width 64, four pre-norm
blocks of four heads, open_clip's parameter names. Arithmetic is float64 by default, so the accuracies are those that
PyTorch measured in float32, give or take an image whose two best classes are equal to the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Tensors = Mapping[str, npt.NDArray[Any]]
Observe = Callable[[str, Array], object]

PATCH = 2
LAYERS = 4
HEADS = 4
EPSILON = 1e-5
BATCH = 25

_NODES = 256  # per unit
_REACH = 6 * _NODES
_ERF = np.array([math.erf(node / _NODES) for node in range(-_REACH, _REACH + 1)])
_SLOPE = np.array([2.0 / math.sqrt(math.pi) * math.exp(-((node / _NODES) ** 2)) for node in range(-_REACH, _REACH + 1)])


def erf(x: Array) -> Array:
    """The error function: math.erf at the nearest node, and its Taylor series of third order (to 1e-11)."""
    if x.dtype == np.float32:
        return _erf_single(x)
    x = np.clip(x, -6.0, 6.0)
    node = np.rint(x * _NODES)
    index = node.astype(np.intp) + _REACH
    node /= _NODES
    x -= node
    series = (2.0 / 3.0 * node * node - 1.0 / 3.0) * x
    series -= node
    series *= x
    series += 1.0
    series *= x
    series *= _SLOPE[index]
    series += _ERF[index]
    return series


def _erf_single(x: Array) -> Array:
    """The error function in float32, to 6e-7: Abramowitz and Stegun, 7.1.26. No table, so it is faster."""
    size = np.abs(x)
    t = size * 0.3275911
    t += 1.0
    np.reciprocal(t, out=t)
    series = t * 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += coefficient
        series *= t
    size *= size
    np.negative(size, out=size)
    series *= np.exp(size, out=size)
    np.subtract(1.0, series, out=series)
    return np.copysign(series, x, out=series)


def gelu(x: Array) -> Array:
    """The exact GELU, x times the normal distribution function."""
    result = erf(x / math.sqrt(2.0))
    result += 1.0
    result *= x
    result *= 0.5
    return result


class DigitsViT:
    """The model with one checkpoint's weights."""

    def __init__(self, tensors: Tensors, observe: Observe | None = None, dtype: npt.DTypeLike = np.float64) -> None:
        """Take the weights from a mapping of tensor names (with or without the prefix "visual.") to arrays.

        With `observe`, each parameter's name in the checkpoint and what goes into its layer, [images, tokens, channels]
        or [images, 8, 8, 1], are handed to it as they are computed. All tokens of the last block are computed then.
        `dtype` is that of the arithmetic: float32 takes half the time.
        """
        self._observe = observe
        self._dtype = np.dtype(dtype)
        self._prefix = "visual." if any(name.startswith("visual.") for name in tensors) else ""
        self._weights: dict[str, Array] = {
            name.removeprefix("visual."): np.asarray(tensor).astype(self._dtype) for name, tensor in tensors.items()
        }

    def features(self, images: npt.NDArray[Any], batch: int = BATCH) -> Array:
        """Image features [n, 64] of images [n, 1, 8, 8], a batch at a time: 25 images fit the cache."""
        starts = range(0, len(images), batch)
        return np.concatenate([self._features(images[start : start + batch]) for start in starts])

    def _features(self, images: npt.NDArray[Any]) -> Array:
        x = self._embed(np.asarray(images, self._dtype))
        x = self._norm(x, "ln_pre")
        for layer in range(LAYERS):
            # Only the class token is read in the end, so the last block need not compute the others.
            only_first = layer == LAYERS - 1 and self._observe is None
            x = self._block(x, f"transformer.resblocks.{layer}.", only_first=only_first)
        result: Array = self._norm(x[:, 0], "ln_post") @ self._weights["proj"]
        return result

    def _embed(self, images: Array) -> Array:
        """Patches through conv1 (its stride is its size), the class token in front, positions added."""
        weights = self._weights
        kernel = weights["conv1.weight"]
        self._show("conv1.weight", images.transpose(0, 2, 3, 1))
        count, channels, height, width = images.shape
        rows, columns = height // PATCH, width // PATCH
        patches = images.reshape(count, channels, rows, PATCH, columns, PATCH)
        patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)
        tokens = patches @ kernel.reshape(len(kernel), -1).T
        first = np.broadcast_to(weights["class_embedding"], (count, 1, len(kernel)))
        return np.concatenate([first, tokens], axis=1) + weights["positional_embedding"]

    def _block(self, x: Array, prefix: str, *, only_first: bool) -> Array:
        """One residual block: attention, then the two-layer perceptron."""
        normed = self._norm(x, prefix + "ln_1")
        kept = 1 if only_first else x.shape[1]
        x = x[:, :kept] + self._attention(normed, kept, prefix + "attn.")
        hidden = gelu(self._linear(self._norm(x, prefix + "ln_2"), prefix + "mlp.c_fc"))
        return x + self._linear(hidden, prefix + "mlp.c_proj")

    def _attention(self, x: Array, queries: int, prefix: str) -> Array:
        """Multi-head self-attention; only the first `queries` tokens ask."""
        weights = self._weights
        self._show(prefix + "in_proj_weight", x)
        count, tokens, width = x.shape
        size = width // HEADS
        stacked = _affine(x, weights[prefix + "in_proj_weight"], weights[prefix + "in_proj_bias"])
        q, k, v = (
            part.reshape(count, tokens, HEADS, size).transpose(0, 2, 1, 3) for part in np.split(stacked, 3, axis=-1)
        )
        scores = q[:, :, :queries] @ k.transpose(0, 1, 3, 2) / math.sqrt(size)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: Array = (scores @ v).transpose(0, 2, 1, 3).reshape(count, queries, width)
        return self._linear(mixed, prefix + "out_proj")

    def _linear(self, x: Array, name: str) -> Array:
        self._show(name + ".weight", x)
        return _affine(x, self._weights[name + ".weight"], self._weights[name + ".bias"])

    def _norm(self, x: Array, name: str) -> Array:
        self._show(name + ".weight", x)
        centred: Array = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("...c,...c->...", centred, centred)[..., None] / x.shape[-1]
        centred /= np.sqrt(variance + EPSILON)
        centred *= self._weights[name + ".weight"]
        centred += self._weights[name + ".bias"]
        return centred

    def _show(self, name: str, x: Array) -> None:
        if self._observe is not None:
            self._observe(self._prefix + name, x)


def _affine(x: Array, weight: Array, bias: Array) -> Array:
    """Rows of x times weight^T, plus bias, as one product of two matrices: NumPy would multiply image by image."""
    result: Array = x.reshape(-1, x.shape[-1]) @ weight.T
    result += bias
    return result.reshape(*x.shape[:-1], len(bias))


def accuracy(tensors: Tensors, heads: Tensors, evaluation: Tensors, task: str) -> float:
    """Share of the held-out test images of a task that the checkpoint classifies rightly."""
    features = DigitsViT(tensors).features(evaluation[f"{task}.images"])
    logits = features @ heads[f"{task}.weight"].astype(np.float64).T + heads[f"{task}.bias"]
    return float(np.mean(logits.argmax(axis=1) == evaluation[f"{task}.labels"]))
