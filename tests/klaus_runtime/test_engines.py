"""The fast engine equals the oracle, and the oracle equals layers computed by hand, cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaus_runtime import blas, evaluate, forward
from klaus_runtime.engine import Engine
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import (
    F32,
    Activation,
    Convolution,
    FullConnect,
    LocalResponseNorm,
    Model,
    Pool,
    Weights,
    Window,
)
from klaus_runtime.reference import NumpyEngine, apply_layer

from . import nets
from .golden import ENGINES

MakeEngine = Callable[[Model], Engine]


def _by_hand(layer: Convolution, x: F32) -> F32:
    """A convolution in the plainest words there are."""
    top, left, bottom, right = layer.window.pads
    values = layer.weights.effective()
    outputs, kernel_rows, kernel_cols, group_inputs = values.shape
    rows = (x.shape[0] + top + bottom - kernel_rows) // layer.window.stride_rows + 1
    cols = (x.shape[1] + left + right - kernel_cols) // layer.window.stride_cols + 1
    result = np.zeros((rows, cols, outputs))
    for row, col, output in np.ndindex(rows, cols, outputs):
        group = output // (outputs // layer.groups)
        total = float(layer.weights.bias[output])
        for r, c, i in np.ndindex(kernel_rows, kernel_cols, group_inputs):
            y, z = row * layer.window.stride_rows - top + r, col * layer.window.stride_cols - left + c
            if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                total += float(values[output, r, c, i]) * float(x[y, z, group * group_inputs + i])
        result[row, col, output] = total
    if layer.activation is not Activation.LINEAR:
        result = np.clip(result, 0, 6 if layer.activation is Activation.RELU6 else None)
    return result.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
    activation=st.sampled_from(list(Activation)),
    seed=st.integers(0, 1000),
)
def test_convolution_means_what_it_says(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    groups: int,
    channels: int,
    filters: int,
    activation: Activation,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    top, left, bottom, right = pads
    fitting = (top % kernel[0], left % kernel[1], bottom % kernel[0], right % kernel[1])
    weights = nets.weights(rng, groups * filters, *kernel, channels, scale=True)
    layer = Convolution("c", (-1,), Window(*kernel, *stride, fitting), weights, groups, activation)
    x = nets.numbers(rng, 5, 6, groups * channels)
    wanted = _by_hand(layer, x)
    np.testing.assert_allclose(apply_layer(layer, [x]), wanted, atol=1e-5)
    np.testing.assert_allclose(evaluate.prepare(layer)([x[None]])[0], wanted, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    kind=st.sampled_from(["max", "average"]),
    seed=st.integers(0, 1000),
)
def test_pools_ignore_their_padding(
    kernel: int, stride: int, pads: tuple[int, int, int, int], kind: str, seed: int
) -> None:
    top, left, bottom, right = (pad % kernel for pad in pads)
    layer = Pool("p", (-1,), Window(kernel, kernel, stride, stride, (top, left, bottom, right)), "max")
    layer = replace(layer, kind="average") if kind == "average" else layer
    x = nets.numbers(np.random.default_rng(seed), 5, 6, 2) - 3  # all negative: a zero of the padding would show
    got = apply_layer(layer, [x])
    for row, col in itertools.product(range(got.shape[0]), range(got.shape[1])):
        begin, first = row * stride - top, col * stride - left
        cells = x[max(begin, 0) : begin + kernel, max(first, 0) : first + kernel].reshape(-1, 2)
        wanted = cells.max(axis=0) if kind == "max" else cells.mean(axis=0)
        np.testing.assert_allclose(got[row, col], wanted, atol=1e-5)
    np.testing.assert_allclose(evaluate.prepare(layer)([x[None]])[0], got, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    groups=st.integers(1, 3),
    width=st.integers(1, 6),
    beta=st.sampled_from([0.75, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_normalisation_stays_in_its_group(size: int, groups: int, width: int, beta: float, seed: int) -> None:
    layer = LocalResponseNorm("n", (-1,), size, 2.0, 0.1, beta, groups)
    x = nets.numbers(np.random.default_rng(seed), 2, 2, groups * width)
    got = apply_layer(layer, [x])
    for row, col, channel in np.ndindex(*x.shape):
        begin = channel // width * width
        window = range(max(begin, channel - size // 2), min(begin + width, channel + size // 2 + 1))
        total = sum(float(x[row, col, i]) ** 2 for i in window)
        assert got[row, col, channel] == pytest.approx(
            float(x[row, col, channel]) * (2 + 0.1 * total) ** -beta, rel=1e-5
        )
    np.testing.assert_allclose(evaluate.prepare(layer)([x[None]])[0], got, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_engines_agree_on_every_layer(seed: int) -> None:
    model = nets.everything(seed)
    x = nets.numbers(np.random.default_rng(seed), 20, 24, 3)
    pairs = list(zip(NumpyEngine(model).activations(x), FastEngine(model).activations(x), strict=True))
    assert len(pairs) == len(model.layers)
    for oracle, fast in pairs:
        assert oracle.shape == fast.shape
        assert oracle.dtype == fast.dtype == np.float32
        assert np.abs(oracle - fast).max() <= 1e-5 * max(1.0, float(np.abs(oracle).max()))


@pytest.mark.parametrize("make", ENGINES)
def test_logits_do_not_depend_on_the_batch(make: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_BATCH_BYTES", 20_000)  # several images a part, several parts
    model = nets.everything()
    engine = make(model)
    tensors = nets.numbers(np.random.default_rng(5), 7, 20, 24, 3)
    got = engine.logits(tensors)
    assert got.shape == (7, 20)
    for index in range(7):
        *_, last = engine.activations(tensors[index])
        np.testing.assert_allclose(got[index], last.ravel(), atol=1e-6)
    assert engine.logits(tensors[:0]).shape == (0, 20)


@pytest.mark.parametrize("make", ENGINES)
def test_inputs_are_left_alone(make: MakeEngine) -> None:
    model = nets.everything()
    tensors = nets.numbers(np.random.default_rng(5), 2, 20, 24, 3)
    before = tensors.copy()
    make(model).logits(tensors)
    list(make(model).activations(tensors[0]))
    np.testing.assert_array_equal(tensors, before)


@pytest.mark.parametrize("make", ENGINES)
def test_a_network_that_ends_in_softmax_gets_no_second_one(make: MakeEngine) -> None:
    model = nets.everything()
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    got = make(model).probabilities(picture, patches=1)
    assert got.sum() == pytest.approx(1, abs=1e-5)
    short = replace(model, layers=model.layers[:-1])
    np.testing.assert_allclose(make(short).probabilities(picture, patches=1), got, atol=1e-6)


@pytest.mark.parametrize("make", ENGINES)
def test_patches(make: MakeEngine) -> None:
    model = nets.ccv_like()
    engine = make(model)
    rng = np.random.default_rng(0)
    exact = rng.integers(0, 256, (21, 21, 3), np.uint8)
    assert engine.probabilities(exact, patches=10).sum() == pytest.approx(1, abs=1e-5)
    assert engine.probabilities(exact, patches=1).sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="cannot go without a crop"):
        engine.probabilities(exact, patches=10, crop="none")
    with pytest.raises(InputError, match="does not cut patches"):
        make(nets.everything()).probabilities(exact, patches=10)


@pytest.mark.parametrize("make", ENGINES)
def test_tensors_that_do_not_fit(make: MakeEngine) -> None:
    engine = make(nets.everything())
    good = np.zeros((20, 24, 3), np.float32)
    with pytest.raises(InputError, match=r"reads tensors \(20, 24, 3\); got \(24, 20, 3\)"):
        list(engine.activations(good.transpose(1, 0, 2)))
    with pytest.raises(InputError, match=r"reads tensors \(n, 20, 24, 3\)"):
        engine.logits(good)
    with pytest.raises(InputError, match="not a number"):
        engine.logits(np.full((1, 20, 24, 3), np.nan, np.float32))


@pytest.mark.parametrize("make", ENGINES)
def test_overflowing_answers_are_an_error_not_a_class(make: MakeEngine) -> None:
    huge = np.full((3, 12), 3e38, np.float32)
    model = nets.network([FullConnect("full", (-1,), Weights(huge, np.zeros(3, np.float32)))], (2, 2, 3))
    model = replace(model, formation=nets.everything().formation)
    with pytest.raises(InputError, match="infinite"), np.errstate(all="ignore"):
        make(model).probabilities(np.full((2, 2, 3), 255, np.uint8), patches=1)


def test_malformed_networks_make_no_engine() -> None:
    for make in ENGINES:
        with pytest.raises(InputError):
            make(replace(nets.everything(), name=""))


def test_outputs_are_let_go_when_nobody_reads_them() -> None:
    model = nets.everything()
    alive: list[F32] = []
    outputs = forward.walk(model, np.zeros((20, 24, 3), np.float32), lambda _i, layer, x: apply_layer(layer, x))
    for output in outputs:
        frame = outputs.gi_frame  # type: ignore[attr-defined]
        alive.append(frame.f_locals["kept"])
        assert len(frame.f_locals["kept"]) <= 4
        assert output.dtype == np.float32


def test_one_thread_is_given_back() -> None:
    library = blas._openblas()
    if library is None:
        pytest.skip("this numpy has no OpenBLAS of its own")
    before = library.scipy_openblas_get_num_threads64_()
    with blas.one_thread(), blas.one_thread():
        assert library.scipy_openblas_get_num_threads64_() == 1
    assert library.scipy_openblas_get_num_threads64_() == before
