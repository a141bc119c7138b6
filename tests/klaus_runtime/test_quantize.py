"""k-means and the schemes: what is chosen, that nothing depends on chance, and what is left alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klaus_runtime import seeded
from klaus_runtime.errors import InputError
from klaus_runtime.model import Convolution, FullConnect, Model
from klaus_runtime.quantize import quantize, schemes
from klaus_runtime.quantize.kmeans import cluster, nearest
from klaus_runtime.readers import ccv

from .golden import TINY
from .zoo import assert_same, everything


@pytest.fixture(scope="module")
def tiny() -> Model:
    return ccv.read(TINY / "model-fp32.sqlite3")


def test_few_values_are_kept_exactly() -> None:
    values = np.array([[0.5, -1.0, 0.5], [2.0, -1.0, 0.5]], np.float32)
    found = cluster(values, 4)
    assert found.entries.tolist() == [-1.0, 0.5, 2.0]
    assert found.indices.tolist() == [[1, 0, 1], [2, 0, 1]]


def test_constant_values_take_one_entry() -> None:
    found = cluster(np.full(10, 0.25, np.float32), 256)
    assert found.entries.tolist() == [0.25]
    assert not found.indices.any()


def test_result_is_a_fixed_point_and_near_the_best() -> None:
    values = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    found = cluster(values, 4)
    entries = found.entries.astype(np.float64)
    for number in range(4):
        assert abs(values[found.indices == number].mean(dtype=np.float64) - entries[number]) < 2e-3
    error = np.mean((values - entries[found.indices]) ** 2)
    assert error == pytest.approx(0.1175, rel=0.02)  # Max 1960: the least for a normal distribution and 4 entries


def test_two_clusters_are_the_best_possible() -> None:
    values = np.sort(np.random.default_rng(2).standard_normal(60)).astype(np.float32)
    best = min(sum(np.var(part) * len(part) for part in (values[:cut], values[cut:])) for cut in range(1, len(values)))
    found = cluster(values, 2)
    assert np.sum((values - found.entries.astype(np.float32)[found.indices]) ** 2) <= best * 1.001


def test_weights_count() -> None:
    values = np.array([0.0, 1.0, 10.0], np.float32)
    found = cluster(values, 2, np.array([3.0, 1.0, 1.0], np.float32))
    assert found.entries.tolist() == [0.25, 10.0]
    assert_same(cluster(values, 2), cluster(values, 2, np.full(3, 7.0, np.float32)))


def test_nearest_takes_the_lower_entry_halfway() -> None:
    entries = np.array([0, 1, 2], np.float16)
    values = np.array([-5, 0.5, 0.51, 1.5, 9], np.float32)
    assert nearest(values, entries).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("values", "k", "weights"),
    [
        ([], 2, None),
        ([np.nan], 2, None),
        ([1.0], 0, None),
        ([1.0], 257, None),
        ([1.0], 2, [-1.0]),
        ([1.0], 2, [1.0, 2.0]),
    ],
)
def test_nonsense_is_refused(values: list[float], k: int, weights: list[float] | None) -> None:
    given = None if weights is None else np.array(weights, np.float32)
    with pytest.raises(ValueError, match=r"needs|1 to 256"):
        cluster(np.array(values, np.float32), k, given)


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
def test_schemes(tiny: Model, scheme: str) -> None:
    result = quantize(tiny, scheme)
    assert_same(result, quantize(tiny, scheme, seed=0))
    assert result.provenance.scheme == scheme
    bits = []
    for before, after in itertools.zip_longest(tiny.layers, result.layers):
        if isinstance(after, FullConnect | Convolution) and after.weights.codebook is not None:
            assert isinstance(before, FullConnect | Convolution)
            bits.append(after.weights.codebook.index_bits)
            assert after.weights.codebook.values.dtype == np.float16
            assert_same(before.weights.bias, after.weights.bias)
            spread = float(np.ptp(before.weights.values))
            worst = float(np.abs(after.weights.effective() - before.weights.effective()).max())
            assert worst <= spread / (len(after.weights.codebook.values) - 1)
        else:
            assert_same(before, after)
    full = sum(isinstance(layer, FullConnect) for layer in tiny.layers)
    wanted = {
        "klaus-8": [8] * full,
        "klaus-4": [4] * full,
        "klaus-2": [2] * full,
        "klaus-mixed": [4] + [8] * (full - 1),
    }
    assert bits[-full:] == wanted.get(scheme, [8] * full)
    convolutions = sum(isinstance(layer, Convolution) for layer in tiny.layers)
    assert len(bits) == (full + convolutions if scheme == "q8" else full)


def test_unknown_scheme_and_a_quantized_model_are_refused(tiny: Model) -> None:
    with pytest.raises(InputError, match=r"'q9' is unknown: there are klaus-8"):
        quantize(tiny, "q9")
    with pytest.raises(InputError, match="has a codebook already"):
        quantize(everything(), "q8")


def test_seeded_net_is_the_same_everywhere_and_says_so() -> None:
    model = seeded.klaus_mobile()
    assert model.provenance.seeded
    first = model.layers[0]
    assert isinstance(first, Convolution)
    # Sums of the raw draws, as PCG64 is defined: another numpy or computer must get them too.
    assert first.weights.values[0, 0, 0].tolist() == SEEDED_FIRST
    assert [len(layer.weights.bias) for layer in model.layers if isinstance(layer, FullConnect)] == [2048, 2048, 1000]


SEEDED_FIRST = [0.0022144317626953125, 0.0008645057678222656, 7.033348083496094e-05]


def test_half_precision_values_give_what_the_same_float_values_give() -> None:
    half = np.random.default_rng(3).standard_normal((100, 200)).astype(np.float16)
    weights = np.random.default_rng(4).random((100, 200)).astype(np.float32)
    for given in (None, weights):
        one, other = cluster(half, 16, given), cluster(half.astype(np.float32), 16, given)
        # Sums are taken in another order, which rounding to half precision mostly hides.
        assert np.abs(one.entries.astype(np.float32) - other.entries.astype(np.float32)).max() < 2e-3
        assert (one.indices == other.indices).mean() > 0.999
