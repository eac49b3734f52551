"""Statistics of PyTorch models, against forward passes written out in float64. Skipped where there is no torch."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stockpot as sp
from stockpot.stats import LayerStatistics, collect
from test_collect import EXAMPLE, run

pytestmark = pytest.mark.usefixtures("library")

SINGLE = 1e-5
"""What float32 activations may differ by, relative to the largest: sums of at most some hundred products."""


def test_models_that_are_not_torchs() -> None:
    with pytest.raises(sp.ArgumentError, match=r"torch\.nn\.Module"):
        collect(object(), [])


def test_nothing_imports_torch() -> None:
    code = "import sys, stockpot.stats, stockpot._hooks, stockpot._collect\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.fixture
def torch() -> Any:
    """PyTorch, with the same random numbers for every test."""
    module = pytest.importorskip("torch")
    module.manual_seed(0)
    return module


def moment(x: Any) -> np.ndarray:
    """Second moment of the last axis of a tensor."""
    wide = x.detach().double().numpy() if hasattr(x, "detach") else np.asarray(x, np.float64)
    return (wide.reshape(-1, wide.shape[-1]) ** 2).mean(axis=0)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = SINGLE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def attended(module: Any, query: np.ndarray, key: np.ndarray, value: np.ndarray, blocked: np.ndarray) -> np.ndarray:
    """What goes into a MultiheadAttention's output projection, [batch, tokens, width], in float64."""
    state = {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}
    width, heads = module.embed_dim, module.num_heads
    weights = (
        np.split(state["in_proj_weight"], 3)
        if "in_proj_weight" in state
        else [state[f"{part}_proj_weight"] for part in "qkv"]
    )
    biases = np.split(state["in_proj_bias"], 3)

    def heads_of(x: np.ndarray, index: int) -> np.ndarray:
        projected = x @ weights[index].T + biases[index]
        return projected.reshape(*x.shape[:2], heads, width // heads).transpose(0, 2, 1, 3)

    q, k, v = (heads_of(x, index) for index, x in enumerate((query, key, value)))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(width // heads)
    scores = np.exp(np.where(blocked, -np.inf, scores))
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: np.ndarray = (scores @ v).transpose(0, 2, 1, 3)
    return mixed.reshape(*query.shape[:2], width)


# Layers


def test_layers_and_their_names(torch: Any) -> None:
    nn = torch.nn

    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((6,), 2.0))

        def forward(self, x: Any) -> Any:
            return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6) * self.weight

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1d = nn.Conv1d(2, 4, 3)
            self.conv2d = nn.Conv2d(3, 4, 2, groups=1)
            self.conv3d = nn.Conv3d(2, 4, 1)
            self.bn = nn.BatchNorm2d(4)
            self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), RMSNorm()) for _ in range(2)])
            self.plain = nn.LayerNorm(6, elementwise_affine=False)
            self.embedding = nn.Embedding(5, 6)
            self.seen: dict[str, Any] = {}

        def forward(self, images: Any, tokens: Any, *, ids: Any) -> Any:
            self.bn(self.conv2d(images))
            self.conv1d(images[:, :2, 0])
            self.conv3d(images[0, :2, None])  # without a batch axis
            x = tokens + self.embedding(ids)
            for index, block in enumerate(self.blocks):
                for place, module in enumerate(block):
                    self.seen[f"blocks.{index}.{place}.weight"] = x
                    x = module(input=x) if place == 1 else module(x)
            return self.plain(x)

    model = Model()
    images, tokens = torch.randn(5, 3, 4, 4), torch.randn(5, 7, 6)
    ids = torch.randint(0, 5, (5, 7))
    found = collect(model, [(images, tokens, ids)], forward=lambda m, b: m(b[0], b[1], ids=b[2]))
    assert set(found) == {"conv1d.weight", "conv2d.weight", "conv3d.weight", *model.seen}
    assert set(found) <= {name for name, _ in model.named_parameters()}
    for name, x in model.seen.items():
        close(found[name], moment(x))
    close(found["conv2d.weight"], moment(images.permute(0, 2, 3, 1)))
    close(found["conv1d.weight"], moment(images[:, :2, 0].transpose(1, 2)))
    close(found["conv3d.weight"], moment(images[0, :2].permute(1, 2, 0)))
    assert found.counts["blocks.0.1.weight"] == 35


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_attention(torch: Any, batch_first: bool, need_weights: bool, masked: bool, bias: bool) -> None:
    """The statistic of out_proj is that of its input, though torch never calls it as a module."""
    attention = torch.nn.MultiheadAttention(16, 4, batch_first=batch_first, dropout=0.5, bias=bias)
    for name, parameter in attention.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)
    x = torch.randn(3, 9, 16)
    mask = torch.triu(torch.ones(9, 9, dtype=torch.bool), 1) if masked else None
    given = x if batch_first else x.transpose(0, 1)
    batch = {"query": given, "key": given, "value": given, "need_weights": need_weights, "attn_mask": mask}
    output = attention.out_proj.weight.detach().clone()
    found = collect(attention, [batch])
    assert set(found) == {"in_proj_weight", "out_proj.weight"}
    close(found["in_proj_weight"], moment(x))
    if bias:
        wide = x.double().numpy()
        expected = attended(attention, wide, wide, wide, np.asarray(masked and mask.numpy()))
        close(found["out_proj.weight"], moment(expected))
    else:
        # y = W x + 0 with an orthogonal W gives the input back.
        attention.out_proj.weight.data = torch.eye(16)
        with torch.no_grad():
            direct, _ = attention.eval()(**batch)
        close(found["out_proj.weight"], moment(direct))
        attention.out_proj.weight.data = output
    assert found.counts == {"in_proj_weight": 27, "out_proj.weight": 27}


def test_attention_to_something_else(torch: Any) -> None:
    """With separate projections each has the statistic of its own input."""
    attention = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)
    query, key, value = torch.randn(2, 3, 8), torch.randn(2, 7, 6), torch.randn(2, 7, 5)
    found = collect(attention, [(query, key, value)])
    for name, x in (("q_proj_weight", query), ("k_proj_weight", key), ("v_proj_weight", value)):
        close(found[name], moment(x))
    wide = [x.double().numpy() for x in (query, key, value)]
    close(found["out_proj.weight"], moment(attended(attention, *wide, np.asarray(False))))


def test_the_fused_encoder_layer_passes_no_hook_by(torch: Any) -> None:
    """In evaluation torch runs this layer as one function, which would call no submodule."""
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True).eval()
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 16)
    assert torch.backends.mha.get_fastpath_enabled()
    found = collect(encoder, [x])
    assert torch.backends.mha.get_fastpath_enabled()
    parts = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    names = {f"layers.{i}.{part}" for i in range(2) for part in (*parts, "norm1.weight", "norm2.weight")}
    assert set(found) == names
    first = encoder.layers[0]
    with torch.no_grad():
        normed = first.norm1(x)
        close(found["layers.0.self_attn.in_proj_weight"], moment(normed))
        wide = normed.double().numpy()
        mixed = attended(first.self_attn, wide, wide, wide, np.asarray(False))
        close(found["layers.0.self_attn.out_proj.weight"], moment(mixed))
        hidden = x + first.self_attn(normed, normed, normed)[0]
        close(found["layers.0.linear2.weight"], moment(torch.relu(first.linear1(first.norm2(hidden)))))


def test_a_projection_that_is_called_is_seen_once(torch: Any) -> None:
    class Called(torch.nn.MultiheadAttention):
        def forward(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
            return self.out_proj(query), None

    x = torch.randn(2, 3, 4)
    found = collect(Called(4, 2), [(x, x, x)])
    assert found.counts == {"in_proj_weight": 6, "out_proj.weight": 6}
    close(found["out_proj.weight"], moment(x))


def test_attention_of_another_kind(torch: Any) -> None:
    """open_clip's own attention has an in_proj_weight too, and calls its projection."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_proj_weight = torch.nn.Parameter(torch.randn(12, 4))
            self.out_proj = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            q, k, v = torch.nn.functional.linear(x, self.in_proj_weight).chunk(3, dim=-1)
            return self.out_proj(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)

    x = torch.randn(2, 3, 4)
    found = collect(torch.nn.Sequential(Attention()), [x], prefix="visual.")
    assert found.counts == {"visual.0.in_proj_weight": 6, "visual.0.out_proj.weight": 6}
    close(found["visual.0.in_proj_weight"], moment(x))


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64"])
def test_models_of_other_types(torch: Any, name: str) -> None:
    dtype = getattr(torch, name)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.MultiheadAttention(8, 2, batch_first=True)).to(dtype)
    x = torch.randn(4, 5, 8).to(dtype)

    def forward(model: Any, x: Any) -> None:
        hidden = model[0](x)
        model[1](hidden, hidden, hidden)

    found = collect(model, [x], forward=forward)
    close(found["0.weight"], moment(x), 1e-6)
    with torch.no_grad():
        close(found["1.in_proj_weight"], moment(model[0](x)), 1e-6)
    assert len(found["1.out_proj.weight"]) == 8


# The run


def test_the_model_is_as_it_was(torch: Any) -> None:
    model = torch.nn.ModuleDict(
        {"a": torch.nn.MultiheadAttention(4, 2), "d": torch.nn.Dropout(0.9), "l": torch.nn.Linear(4, 4)}
    )
    model.train()
    model["l"].eval()
    parameters = dict(model.named_parameters())
    state = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    seen = []

    def forward(model: Any, x: Any) -> None:
        seen.append((model["d"].training, torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()))
        model["a"](x, x, x)
        model["l"](x)
        if len(seen) == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(model, [torch.randn(3, 2, 4)] * 5, forward=forward)
    assert seen == [(False, False, False)] * 2
    assert (model.training, model["a"].training, model["d"].training, model["l"].training) == (True, True, True, False)
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    after = dict(model.named_parameters())
    assert all(after[name] is parameters[name] and torch.equal(after[name], state[name]) for name in state)
    assert all(parameter.requires_grad for parameter in after.values())


def test_an_error_inside_the_second_call_puts_the_projection_back(torch: Any) -> None:
    attention = torch.nn.MultiheadAttention(4, 2)
    weight, bias = attention.out_proj.weight, attention.out_proj.bias
    with torch.no_grad():
        attention.in_proj_weight[:] = float("inf")
    x = torch.randn(3, 2, 4)
    with pytest.raises(sp.NonFiniteError, match=r"out_proj\.weight"):
        collect(attention, [(x, x, x)])
    assert attention.out_proj.weight is weight
    assert attention.out_proj.bias is bias


def test_batches_of_every_kind(torch: Any) -> None:
    model = torch.nn.Linear(3, 2)
    x = torch.randn(4, 3)
    for batch in (x, (x,), [x], {"input": x}):
        found = collect(model, [batch])
        assert found.counts == {"weight": 4}
        close(found["weight"], moment(x))


def test_no_more_batches_are_drawn_than_asked_for(torch: Any) -> None:
    batches = iter(torch.randn(10, 4, 3))
    found = collect(torch.nn.Linear(3, 2), batches, max_batches=4, statistic="variance")
    assert found.counts == {"weight": 16}
    assert found.statistic == "variance"
    assert len(list(batches)) == 6


def test_what_cannot_be_collected(torch: Any) -> None:
    model = torch.nn.Linear(3, 2)
    with pytest.raises(sp.ArgumentError, match="no layer that can be watched"):
        collect(torch.nn.ReLU(), [torch.ones(2)])
    with pytest.raises(sp.ArgumentError, match="batches is empty"):
        collect(model, [])
    with pytest.raises(sp.ArgumentError, match="max_batches"):
        collect(model, [torch.ones(2, 3)], max_batches=0)
    with pytest.raises(sp.ParameterError):
        collect(model, [torch.ones(2, 3)], statistic="mean")
    bad = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    bad[0].weight.data[0, 0] = float("nan")
    with pytest.raises(sp.NonFiniteError, match=r"1\.weight"):
        collect(bad, [torch.ones(2, 3)])


def test_layers_that_no_batch_reached(torch: Any) -> None:
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 2), "unused": torch.nn.Linear(3, 2)})
    with pytest.warns(sp.StockpotWarning, match=r"1 layers.*unused\.weight") as caught:
        found = collect(model, [torch.ones(2, 3)], forward=lambda model, x: model["used"](x))
    assert found.names == ["used.weight"]
    assert Path(caught[0].filename).name == Path(__file__).name


# The digits vision transformer, in PyTorch and in NumPy


@pytest.fixture
def vision_transformer(torch: Any) -> Any:
    """The model of Tests/Fixtures/digits-vit with open_clip's modules and names."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(64), nn.LayerNorm(64)
            self.attn = nn.MultiheadAttention(64, 4, batch_first=True)
            self.mlp = nn.Sequential()
            self.mlp.add_module("c_fc", nn.Linear(64, 256))
            self.mlp.add_module("gelu", nn.GELU())
            self.mlp.add_module("c_proj", nn.Linear(256, 64))

        def forward(self, x: Any) -> Any:
            normed = self.ln_1(x)
            x = x + self.attn(normed, normed, normed, need_weights=False)[0]
            return x + self.mlp(self.ln_2(x))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resblocks = nn.ModuleList([Block() for _ in range(4)])

    class Visual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 64, 2, 2, bias=False)
            self.class_embedding = nn.Parameter(torch.zeros(64))
            self.positional_embedding = nn.Parameter(torch.zeros(17, 64))
            self.ln_pre, self.ln_post = nn.LayerNorm(64), nn.LayerNorm(64)
            self.transformer = Transformer()
            self.proj = nn.Parameter(torch.zeros(64, 64))

        def forward(self, images: Any) -> Any:
            tokens = self.conv1(images).flatten(2).transpose(1, 2)
            first = self.class_embedding.expand(len(images), 1, -1)
            x = self.ln_pre(torch.cat([first, tokens], 1) + self.positional_embedding)
            for block in self.transformer.resblocks:
                x = block(x)
            return self.ln_post(x[:, 0]) @ self.proj

    return Visual()


@pytest.fixture
def example() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLE))
    import collect_statistics

    yield collect_statistics
    sys.path.remove(str(EXAMPLE))
    for name in ("forward", "collect_statistics"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("statistic", ["second_moment", "variance"])
def test_pytorch_and_numpy_agree(
    torch: Any, vision_transformer: Any, example: Any, digits: Path, statistic: str
) -> None:
    """Every layer of a trained checkpoint, names included, from two forward passes that share no code."""
    tensors = dict(sp.open(digits / "soup-0").items())
    prefix = "visual." if any(name.startswith("visual.") for name in tensors) else ""
    state = {name.removeprefix(prefix): torch.from_numpy(array).float() for name, array in tensors.items()}
    vision_transformer.load_state_dict(state)
    images = torch.from_numpy(sp.open(digits / "eval.safetensors")["rotated.train_images"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = collect(vision_transformer, images.split(32), statistic=statistic, prefix=prefix)
    expected = example.collect(digits / "soup-0", "rotated", statistic)
    assert found.counts == expected.counts
    assert found.names == expected.names
    for name in found:
        # Float32 against float64 through up to four blocks; a wrong layer would differ in the first digits.
        close(found[name], expected[name], 10 * SINGLE)


def test_command_with_a_model(torch: Any, in_tmp: Path) -> None:
    (in_tmp / "torch_factory.py").write_text(
        "import torch\n"
        "def make(batch_size, num_batches):\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.ModuleDict({'used': torch.nn.Linear(3, 2), 'unused': torch.nn.Linear(3, 2)})\n"
        "    model.forward = lambda x: model['used'](x)\n"
        "    return model, (torch.ones(batch_size, 3) for _ in range(num_batches + 5))\n"
    )
    result = run("--factory", "torch_factory:make", "--batch-size", 4, "--num-batches", 3, "-o", "s.safetensors")
    assert result.exit_code == 0, result.output
    assert result.stderr == "warning: no batch reached 1 layers, which are not in the statistics: unused.weight\n"
    found = LayerStatistics.load("s.safetensors")
    assert found.counts == {"used.weight": 12}
    assert found["used.weight"].tolist() == [1, 1, 1]
