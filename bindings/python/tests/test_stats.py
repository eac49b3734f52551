"""Layer statistics: the accumulator against numpy in longdouble, merging across threads and processes, files."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import stockpot as sp
from checkpoint_files import read_safetensors
from stockpot.stats import LayerStatistics

pytestmark = pytest.mark.usefixtures("library")

UNIT = 2.0**-53
ROUNDING = 2.0**-24  # of float32, to nearest
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "python" / "digits_vit"
DTYPES = (
    np.float32,
    np.float64,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
)


def merges(rows: int, updates: int = 1) -> int:
    """How often statistics are merged: once per 64 rows and once per update, at most."""
    return rows // 64 + 2 * updates


def moment_bound(rows: int, updates: int = 1) -> float:
    """Relative error of a second moment: docs/statistics.md, and one rounding to float32."""
    return 3 * (66 + merges(rows, updates)) * UNIT + ROUNDING


def variance_bound(x: np.ndarray, updates: int = 1) -> float:
    """Relative error of a variance over axis 0: it grows with mean over standard deviation."""
    condition = float((np.abs(x.mean(axis=0)) / x.std(axis=0)).max())
    return (66 + merges(len(x), updates)) * UNIT * (1 + condition) + ROUNDING


def exact_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second moment and unbiased variance of the columns in longdouble: 64 digits on x86, whatever the machine else."""
    wide = x.astype(np.longdouble)
    return (wide**2).mean(axis=0), wide.var(axis=0, ddof=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_float_type(dtype: Any) -> None:
    x = (np.random.default_rng(1).standard_normal((333, 41)) + np.linspace(-2, 2, 41)).astype(dtype)
    wide = x.astype(np.float64)
    moment, variance = exact_moments(wide)
    statistics, spread = LayerStatistics(), LayerStatistics("variance")
    statistics.update("w", x)
    spread.update("w", x)
    assert statistics["w"].dtype == np.float32
    np.testing.assert_allclose(statistics["w"], moment, rtol=moment_bound(333))
    np.testing.assert_allclose(spread["w"], variance, rtol=variance_bound(wide))
    assert statistics.counts == {"w": 333}


def test_batches() -> None:
    """Leading axes are rows; batches may be cut anywhere."""
    x = np.random.default_rng(2).standard_normal((12, 17, 64)).astype(np.float32)
    moment, _ = exact_moments(x.reshape(-1, 64))
    for cuts in ([], [1], [4, 8], list(range(1, 12))):
        statistics = LayerStatistics()
        for part in np.split(x, cuts):
            statistics.update("w", part)
        assert statistics.counts == {"w": 204}
        np.testing.assert_allclose(statistics["w"], moment, rtol=moment_bound(204, len(cuts) + 1))


def test_the_same_calls_give_the_same_bits() -> None:
    x = np.random.default_rng(3).standard_normal((300, 7)).astype(np.float32)

    def state() -> bytes:
        statistics = LayerStatistics()
        for part in np.split(x, [10, 150]):
            statistics.update("w", part)
        return b"".join(array.tobytes() for array in statistics.state("w")[1:])

    assert state() == state()


def test_a_large_mean_and_a_small_variance() -> None:
    """Mean 1e6 and variance 1e-6: float64 inputs hold it. An uncentred sum of squares has no digit of it left."""
    x = 1e6 + 1e-3 * np.random.default_rng(4).standard_normal((6400, 3))
    statistics = LayerStatistics("variance")
    for part in np.split(x, 100):
        statistics.update("w", part)
    bound = variance_bound(x, 100)
    assert bound < 1e-4
    np.testing.assert_allclose(statistics["w"], exact_moments(x)[1], rtol=bound)
    naive = (x**2).mean(axis=0) - x.mean(axis=0) ** 2
    assert np.abs(naive / 1e-6 - 1).min() > 10


@pytest.mark.parametrize(("dtype", "spacing"), [(np.float32, 2.0**-4), (ml_dtypes.bfloat16, 2.0**12)])
def test_what_narrow_inputs_can_hold_of_it(dtype: Any, spacing: float) -> None:
    """In float32 and bfloat16 such inputs are all one number: variance exactly 0. One step apart, it is exact again."""
    x = (1e6 + 1e-3 * np.random.default_rng(5).standard_normal((640, 1))).astype(dtype)
    statistics = LayerStatistics("variance")
    statistics.update("w", x)
    assert statistics["w"] == 0
    two = np.array([[float(x[0, 0])], [float(x[0, 0]) + spacing]] * 320).astype(dtype)
    assert len(np.unique(two)) == 2
    statistics = LayerStatistics("variance")
    statistics.update("w", two)
    np.testing.assert_allclose(statistics["w"], spacing**2 / 4 * 640 / 639, rtol=variance_bound(two.astype(np.float64)))


def test_one_row_and_constants() -> None:
    statistics = LayerStatistics("variance")
    statistics.update("one", np.array([3.0, -1.0]))
    statistics.update("constant", np.full((1000, 2), 0.1, np.float32))
    statistics.update("constant", np.full((7, 2), 0.1, np.float32))
    np.testing.assert_array_equal(statistics["one"], [0, 0])
    np.testing.assert_array_equal(statistics["constant"], [0, 0])
    assert statistics.counts == {"constant": 1007, "one": 1}


@pytest.mark.parametrize("axis", [1, -3])
def test_channels_of_a_convolution(axis: int) -> None:
    x = np.random.default_rng(6).standard_normal((4, 3, 10, 11)).astype(np.float32)
    first, last = LayerStatistics(), LayerStatistics()
    first.update("conv.weight", x, channel_axis=axis)
    last.update("conv.weight", x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(first["conv.weight"], last["conv.weight"])
    assert first.state("conv.weight").deviations.tobytes() == last.state("conv.weight").deviations.tobytes()
    moment, _ = exact_moments(x.transpose(0, 2, 3, 1).reshape(-1, 3))
    np.testing.assert_allclose(first["conv.weight"], moment, rtol=moment_bound(440))
    assert first.counts == {"conv.weight": 440}


def parts_of(x: np.ndarray, count: int, statistic: str = "second_moment") -> list[LayerStatistics]:
    parts = []
    for piece in np.array_split(x, count):
        part = LayerStatistics(statistic)
        part.update("w", piece)
        parts.append(part)
    return parts


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 4, 1, 2, 0]])
def test_merging_in_any_order(order: list[int]) -> None:
    x = np.random.default_rng(7).standard_normal((777, 5)) + 3
    moment, variance = exact_moments(x)
    parts = parts_of(x, 5, "variance")
    whole, spread = LayerStatistics(), LayerStatistics("variance")
    for index in order:
        whole.merge(parts[index])
        spread.merge(parts[index])
    assert whole.counts == {"w": 777}
    np.testing.assert_allclose(whole["w"], moment, rtol=moment_bound(777, 5))
    np.testing.assert_allclose(spread["w"], variance, rtol=variance_bound(x, 5))
    assert parts[0].counts == {"w": 156}


def collect_part(seed: int) -> LayerStatistics:
    """What a process of its own collects."""
    statistics = LayerStatistics()
    statistics.update("w", np.random.default_rng(seed).standard_normal((100, 6)))
    return statistics


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_merging_across_processes(method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        parts = pool.map(collect_part, range(4))
    whole, here = LayerStatistics(), LayerStatistics()
    for seed, part in enumerate(parts):
        whole.merge(part)
        here.merge(collect_part(seed))
    for found, expected in zip(whole.state("w"), here.state("w"), strict=True):
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    x = np.concatenate([np.random.default_rng(seed).standard_normal((100, 6)) for seed in range(4)])
    np.testing.assert_allclose(whole["w"], exact_moments(x)[0], rtol=moment_bound(400, 4))


def test_copies_carry_the_full_state() -> None:
    x = np.random.default_rng(8).standard_normal((130, 4))
    statistics = LayerStatistics("variance")
    statistics.update("w", x[:70])
    for twin in (copy.deepcopy(statistics), pickle.loads(pickle.dumps(statistics))):
        twin.update("w", x[70:])
        assert twin.counts == {"w": 130}
        assert twin.statistic == "variance"
        np.testing.assert_allclose(twin["w"], exact_moments(x)[1], rtol=variance_bound(x, 2))
    assert statistics.counts == {"w": 70}


def test_threads_share_a_collection() -> None:
    """Two threads merge two collections into each other, and others update: no deadlock, no row lost."""
    first, second = LayerStatistics(), LayerStatistics()
    row = np.ones((1, 8), np.float32)
    for statistics in (first, second):
        statistics.update("w", row)

    def update() -> None:
        for _ in range(200):
            first.update("v", row)

    threads = [threading.Thread(target=update) for _ in range(4)]
    threads += [threading.Thread(target=first.merge, args=(second,)) for _ in range(3)]
    threads += [threading.Thread(target=LayerStatistics().merge, args=(first,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert first.counts == {"v": 800, "w": 4}


def test_it_is_a_mapping() -> None:
    statistics = LayerStatistics()
    for name in ("b", "a.10", "é", "a.2"):
        statistics.update(name, np.array([1.0, 2.0]))
    assert list(statistics) == statistics.names == ["a.10", "a.2", "b", "é"]
    assert len(statistics) == 4
    assert "b" in statistics
    assert "c" not in statistics
    assert {name: values.tolist() for name, values in statistics.items()}["é"] == [1, 4]
    assert "4 layers, second_moment" in repr(statistics)
    with pytest.raises(sp.NotFoundError, match=r"'a\.1'.*did you mean"):
        statistics["a.1"]
    statistics["b"][:] = 7  # a copy
    assert statistics["b"].tolist() == [1, 4]


def test_rows_that_are_not_there() -> None:
    statistics = LayerStatistics()
    statistics.update("w", np.empty((0, 3), np.float32))
    assert statistics.names == []
    with pytest.raises(sp.ArgumentError, match="no layer"):
        statistics.save("nowhere.safetensors")


@pytest.mark.parametrize(
    ("array", "options", "error", "words"),
    [
        (np.float32(3), {}, sp.ShapeError, "scalar"),
        (np.ones((2, 5)), {}, sp.ShapeError, "5 channels, but had 4"),
        (np.ones((3, 0)), {}, sp.ShapeError, "no channels"),
        (np.ones((2, 4), np.int32), {}, sp.DTypeError, "I32"),
        (np.ones((2, 4)), {"channel_axis": 2}, sp.ArgumentError, "channel_axis is 2"),
        (np.ones((2, 4)), {"channel_axis": 1.5}, sp.ArgumentError, "channel_axis"),
        ([1.0, 2.0], {}, sp.ArgumentError, "numpy array"),
        (np.array([[1, 2, 3, 4], [5, np.nan, 7, np.inf]]), {}, sp.NonFiniteError, r"2 NaN.*element 5"),
        (np.full((1, 4), 1e200), {}, sp.NonFiniteError, "range of binary64"),
    ],
)
def test_errors_name_the_layer_and_add_nothing(array: Any, options: Any, error: type[Exception], words: str) -> None:
    statistics = LayerStatistics()
    statistics.update("the.weight", np.ones((2, 4)))
    with pytest.raises(error, match=words) as caught:
        statistics.update("the.weight", array, **options)
    assert "the.weight" in str(caught.value) or "channel_axis" in str(caught.value)
    assert statistics.counts == {"the.weight": 2}
    assert statistics["the.weight"].tolist() == [1, 1, 1, 1]


def test_other_errors() -> None:
    with pytest.raises(sp.ParameterError, match="second_moment or variance"):
        LayerStatistics("mean")
    statistics = LayerStatistics()
    for name in ("", "__metadata__", "a\0b", 5):
        with pytest.raises(sp.ArgumentError):
            statistics.update(name, np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(sp.ArgumentError, match="themselves"):
        statistics.merge(statistics)
    with pytest.raises(sp.ArgumentError, match="give a LayerStatistics"):
        statistics.merge({"w": np.ones(3)})  # type: ignore[arg-type]
    first, second = LayerStatistics(), LayerStatistics()
    first.update("w", np.ones(3))
    second.update("v", np.ones(3))
    second.update("w", np.ones(4))
    with pytest.raises(sp.ShapeError, match="'w' has 4 channels, but had 3"):
        first.merge(second)
    assert first.names == ["w"]


# Files


@pytest.mark.parametrize("statistic", ["second_moment", "variance"])
def test_save_and_load(tmp_path: Path, statistic: str) -> None:
    x = np.random.default_rng(9).standard_normal((50, 6)).astype(np.float32)
    statistics = LayerStatistics(statistic)
    statistics.update("b.weight", x)
    statistics.update("a.weight", x[:, :2])
    path = tmp_path / "stats.safetensors"
    statistics.save(path)
    plain = read_safetensors(path)
    assert list(plain) == ["a.weight", "b.weight"]
    for name, values in plain.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, statistics[name])
    counts = {"a.weight": 50, "b.weight": 50}
    metadata = {"format": "stockpot.layer_statistics", "version": "1", "statistic": statistic}
    with sp.open(path) as file:
        assert {**file.metadata, "counts": json.loads(file.metadata["counts"])} == {**metadata, "counts": counts}

    loaded = LayerStatistics.load(path)
    assert (loaded.names, loaded.counts, loaded.statistic) == (statistics.names, counts, statistic)
    for twin in (loaded, pickle.loads(pickle.dumps(loaded))):
        np.testing.assert_array_equal(twin["b.weight"], statistics["b.weight"])
    for forbidden in (
        lambda: loaded.update("b.weight", x),
        lambda: loaded.merge(statistics),
        lambda: statistics.merge(loaded),
        lambda: loaded.save(path, overwrite=True),
        lambda: loaded.state("b.weight"),
    ):
        with pytest.raises(sp.ArgumentError, match="loaded"):
            forbidden()
    with pytest.raises(sp.NotFoundError):
        loaded["c.weight"]


def test_the_order_of_updates_does_not_show_in_the_file(tmp_path: Path) -> None:
    arrays = {name: np.full((2, 3), index, np.float32) for index, name in enumerate("dacb")}
    for number, names in enumerate(("abcd", "dcba")):
        statistics = LayerStatistics()
        for name in names:
            statistics.update(name, arrays[name])
        statistics.save(tmp_path / f"{number}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_places_that_cannot_be(tmp_path: Path) -> None:
    statistics = LayerStatistics()
    statistics.update("w", np.ones(2))
    path = tmp_path / "stats.safetensors"
    statistics.save(path)
    with pytest.raises(sp.OutputExistsError):
        statistics.save(path)
    statistics.update("w", np.full(2, 3.0))
    statistics.save(path, overwrite=True)
    assert LayerStatistics.load(path)["w"].tolist() == [5, 5]
    with pytest.raises(sp.ArgumentError, match=r"\.safetensors"):
        statistics.save(tmp_path / "stats")
    statistics.update("w", np.full(2, 1e30))
    with pytest.raises(sp.NonFiniteError, match=r"'w'.*F32"):
        statistics.save(path, overwrite=True)
    assert LayerStatistics.load(path)["w"].tolist() == [5, 5]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "stockpot.layer_statistics", "version": "2"},
        {"format": "stockpot.layer_statistics", "version": "1", "statistic": "mean", "counts": '{"w":1}'},
        {"format": "stockpot.layer_statistics", "version": "1", "statistic": "variance", "counts": "[]"},
        {"format": "stockpot.layer_statistics", "version": "1", "statistic": "variance", "counts": "{}"},
    ],
)
def test_files_that_are_no_statistics(tmp_path: Path, metadata: dict[str, str]) -> None:
    sp.save({"w": np.ones(2, np.float32)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(sp.FormatError, match=r"x\.safetensors"):
        LayerStatistics.load(tmp_path / "x.safetensors")


def test_recipes_take_statistics_per_model(tmp_path: Path) -> None:
    """A model's own statistics weight its own matrices; a tensor without any, and a wrong length, count as ones."""
    rng = np.random.default_rng(2)
    shapes = {"a.weight": (30, 20), "b.weight": (20, 30), "c.bias": (20,)}
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    models = [{n: v + 0.1 * rng.standard_normal(v.shape).astype(np.float32) for n, v in base.items()} for _ in range(2)]
    for name, tensors in (("base", base), ("m0", models[0]), ("m1", models[1])):
        sp.save(tensors, tmp_path / name)
    collected = LayerStatistics()
    collected.update("a.weight", rng.standard_normal((100, 20)) * np.arange(1, 21))
    collected.update("b.weight", rng.standard_normal((100, 7)))  # not what the matrix has
    collected.save(tmp_path / "m0.stats.safetensors")
    recipe = {
        "merge_method": "scale_svd",
        "base_model": str(tmp_path / "base"),
        "models": [
            {"model": str(tmp_path / "m0"), "statistics": str(tmp_path / "m0.stats.safetensors")},
            {"model": str(tmp_path / "m1")},
        ],
        "parameters": {"sparsity": 0.6, "num_iters": 4},
    }
    with pytest.warns(sp.StockpotWarning, match="7 channels"):
        sp.merge(recipe, tmp_path / "merged", progress=False)
    given = {"sparsity": 0.6, "num_iters": 4}
    with sp.open(tmp_path / "merged") as merged:
        for name in shapes:
            statistics = [[float(value) for value in collected[name]], None] if name == "a.weight" else None
            expected = sp.scale_svd([model[name] for model in models], base[name], statistics=statistics, **given)
            assert np.array_equal(merged[name], expected), name
        plain = sp.scale_svd([model["a.weight"] for model in models], base["a.weight"], **given)
        assert not np.array_equal(merged["a.weight"], plain)
