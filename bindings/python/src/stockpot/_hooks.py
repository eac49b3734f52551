"""Hooks that show the input of every layer of a PyTorch model. torch is taken from whoever made the model.

What is watched, and the name under which it is shown (`<module>` is the module's path in the model):

    Linear, Conv1d, Conv2d, Conv3d, LayerNorm   <module>.weight, by the input
    modules like RMSNorm                        <module>.weight, by the input: one weight of one axis, no submodules
    MultiheadAttention                          <module>.in_proj_weight, by the query (or q_, k_ and v_proj_weight,
                                                each by its own); <module>.out_proj.weight, by what is projected
    other modules with an in_proj_weight        <module>.in_proj_weight, by the first input (open_clip's attention)

BatchNorm, GroupNorm, transposed convolutions and embeddings have no input channels that a column scale would belong to.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from .errors import StockpotWarning, error_for

Run: TypeAlias = Callable[[Any, "Callable[[Any, Any], object] | None"], None]


class Update(Protocol):
    """`LayerStatistics.update`."""

    def __call__(self, name: str, array: Any, *, channel_axis: int = -1) -> None: ...


@contextmanager
def watch(model: Any, update: Update, prefix: str = "") -> Iterator[Run]:
    """Show the inputs of a model's layers while the block runs; afterwards the model is as it was.

    Args:
        model: a torch.nn.Module.
        update: called with the parameter's name, a CPU tensor and the axis of its channels.
        prefix: stands in front of every name.

    Yields:
        A function that runs the model on a batch: `run(batch, forward)`, see `stockpot.stats.collect`.

    Raises:
        ArgumentError: not a torch module, or one without layers to watch.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise error_for(
            "SP_E_ARGUMENT",
            f"the model is a {type(model).__name__}; give a torch.nn.Module, or use LayerStatistics.update in your own "
            "forward pass",
        )
    layers = _Layers(torch, update)
    training = [module for module in model.modules() if module.training]
    try:
        layers.attach(model, prefix)
        if not layers.expected:
            raise error_for("SP_E_ARGUMENT", f"the model ({type(model).__name__}) has no layer that can be watched")
        model.eval()
        with torch.no_grad(), _without_fast_path(torch):
            yield lambda batch, forward: _run(model, batch, forward)
    finally:
        layers.remove()
        for module in training:
            module.training = True
    missed = sorted(layers.expected - layers.seen)
    if layers.seen and missed:
        shown = ", ".join(missed[:3]) + (", ..." if len(missed) > 3 else "")
        message = f"no batch reached {len(missed)} layers, which are not in the statistics: {shown}"
        warnings.warn(message, StockpotWarning, stacklevel=4)


def _run(model: Any, batch: Any, forward: Callable[[Any, Any], object] | None) -> None:
    if forward is not None:
        forward(model, batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, (tuple, list)):
        model(*batch)
    else:
        model(batch)


class _Layers:
    """The hooks of one model."""

    def __init__(self, torch: Any, update: Update) -> None:
        self.expected: set[str] = set()
        self.seen: set[str] = set()
        self._torch = torch
        self._update = update
        self._hooks: list[Any] = []
        self._calls: dict[str, int] = {}

    def attach(self, model: Any, prefix: str) -> None:
        """Hook every layer that is to be watched."""
        nn = self._torch.nn
        no_rows = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.PReLU)
        for path, module in model.named_modules():
            own = prefix + (f"{path}." if path else "")
            weight = module._parameters.get("weight")
            in_proj = module._parameters.get("in_proj_weight")
            if isinstance(module, nn.MultiheadAttention):
                self._watch_attention(module, own)
            elif in_proj is not None and in_proj.dim() == 2:
                self._watch_input(module, own + "in_proj_weight", size=in_proj.shape[1])
            elif weight is None:
                continue
            elif isinstance(module, nn.Linear):
                self._watch_input(module, own + "weight")
            elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                self._watch_input(module, own + "weight", channel_axis=-1 - len(module.kernel_size))
            elif weight.dim() == 1 and not isinstance(module, no_rows) and not any(True for _ in module.children()):
                self._watch_input(module, own + "weight", size=len(weight), certain=isinstance(module, nn.LayerNorm))

    def remove(self) -> None:
        """Take all hooks off again."""
        for hook in self._hooks:
            hook.remove()

    def _show(self, name: str, tensor: Any, channel_axis: int = -1) -> None:
        self._calls[name] = self._calls.get(name, 0) + 1
        self._update(name, tensor.detach().cpu(), channel_axis=channel_axis)
        if tensor.numel() > 0:
            self.seen.add(name)

    def _watch_input(
        self, module: Any, name: str, *, channel_axis: int = -1, size: int | None = None, certain: bool = True
    ) -> None:
        """Show a module's first input; with `size`, only inputs whose last axis has it."""
        if certain:
            self.expected.add(name)

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value: Any = next(iter([*args, *kwargs.values()]), None)
            fits = isinstance(value, self._torch.Tensor) and value.is_floating_point() and value.dim() > 0
            if fits and (size is None or value.shape[-1] == size):
                self._show(name, value, channel_axis)

        self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))

    def _watch_attention(self, module: Any, own: str) -> None:
        """Show the inputs of a MultiheadAttention, and of its output projection."""
        signature = inspect.signature(module.forward)
        inputs = {"in_proj_weight": "query"}
        if module._parameters.get("in_proj_weight") is None:
            inputs = {"q_proj_weight": "query", "k_proj_weight": "key", "v_proj_weight": "value"}
        output = own + "out_proj.weight"
        self.expected.update([output, *(own + weight for weight in inputs)])
        calls = 0

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal calls
            calls = self._calls.get(output, 0)
            given = signature.bind(*args, **kwargs).arguments
            for weight, argument in inputs.items():
                self._show(own + weight, given[argument])

        def after(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
            # A subclass may call its projection as the module it is, whose own hook has then seen the input.
            if self._calls.get(output, 0) == calls:
                with _identity_projection(self._torch, module.out_proj, output):
                    self._show(output, module.forward(*args, **kwargs)[0])

        self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._hooks.append(module.register_forward_hook(after, with_kwargs=True))


@contextmanager
def _identity_projection(torch: Any, projection: Any, name: str) -> Iterator[None]:
    """Put the identity in the place of a projection: what is projected comes out as it went in."""
    weight, bias = projection._parameters.get("weight"), projection._parameters.get("bias")
    if weight is None:
        raise error_for("SP_E_ARGUMENT", f"{name} is not a plain parameter: merge its parametrization first")
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    try:
        projection.weight, projection.bias = torch.nn.Parameter(identity, requires_grad=False), None
        yield
    finally:
        projection.weight, projection.bias = weight, bias


@contextmanager
def _without_fast_path(torch: Any) -> Iterator[None]:
    """Turn off torch's fused attention and encoder layers, which call no submodules."""
    backend = torch.backends.mha
    enabled = backend.get_fastpath_enabled()
    backend.set_fastpath_enabled(False)
    try:
        yield
    finally:
        backend.set_fastpath_enabled(enabled)
