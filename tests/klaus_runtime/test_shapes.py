"""What a well-formed network is: every check has a message, and what passes can be computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from klaus_runtime import headers, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    Add,
    CcvFormation,
    Codebook,
    Concat,
    Convolution,
    CropFormation,
    FullConnect,
    Label,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Range,
    Slice,
    Window,
)
from klaus_runtime.readers import ccv

from . import nets
from .golden import TINY


def test_limits_are_those_of_the_packed_model() -> None:
    limits = headers.constants("format.h")
    assert limits["KLAUS_MAX_LAYERS"] == shapes.MAX_LAYERS
    assert limits["KLAUS_MAX_INPUTS"] == shapes.MAX_INPUTS
    assert limits["KLAUS_MAX_DIMENSION"] == shapes.MAX_DIMENSION
    assert limits["KLAUS_NAME_BYTES"] == shapes.NAME_BYTES + 1


def test_shapes_and_costs() -> None:
    model = nets.everything()
    assert shapes.infer(model) == [
        (10, 12, 8), (10, 12, 8), (10, 12, 8), (10, 12, 8), (10, 12, 8), (10, 12, 8), (5, 6, 8), (5, 6, 8), (5, 6, 5),
        (5, 6, 13), (5, 6, 13), (5, 6, 13), (5, 6, 13), (1, 1, 20), (1, 1, 20), (1, 1, 20), (1, 1, 20),
    ]  # fmt: skip
    shapes.validate(model)
    assert shapes.outputs(model) == 20
    costs = shapes.multiplies(model)
    assert costs[0] == 10 * 12 * 8 * 27
    assert costs[1] == 0
    assert costs[13] == 5 * 6 * 13 * 20
    assert shapes.weight_count(model) == 216 + 480 + 200 + 64 + 1521 + 7800 + 400


def test_other_sizes_reach_up_to_a_layer() -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    assert shapes.infer(model, 55, 87, until=6)[-1] == (5, 9, 16)
    assert shapes.infer(model, until=-1) == []
    with pytest.raises(InputError, match="takes 64 inputs, but gets"):
        shapes.infer(model, 55, 87)
    with pytest.raises(InputError, match="padded input"):
        shapes.infer(model, 1, 1)
    with pytest.raises(InputError, match="dimension must be 1"):
        shapes.infer(model, 0, 5)
    with pytest.raises(InputError, match="more than"):
        shapes.infer(model, 65536, 65536)
    with pytest.raises(InputError, match="12 layers"):
        shapes.infer(model, until=12)


def _layer(index: int, **changes: Any) -> Callable[[Model], Model]:
    def change(model: Model) -> Model:
        layers = list(model.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(model, layers=tuple(layers))

    return change


def _weights(index: int, **changes: Any) -> Callable[[Model], Model]:
    def change(model: Model) -> Model:
        layer = model.layers[index]
        assert isinstance(layer, Convolution | FullConnect)
        return _layer(index, weights=replace(layer.weights, **changes))(model)

    return change


def _model(**changes: Any) -> Callable[[Model], Model]:
    return lambda model: replace(model, **changes)


F32 = np.float32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_model(name=""), "name is empty"),
        (_model(name="x" * 64), "64 bytes; at most 63"),
        (_model(name="a\x1b[31m"), "cannot be printed"),
        (_model(name="\ud800"), "not valid text"),
        (_model(layers=()), "0 layers"),
        (_model(input_shape=(0, 24, 3)), "input of model"),
        (_model(input_shape=(70000, 24, 3)), "65536"),
        (_model(input_shape=(20, 24, 4)), "weights (8, 3, 3, 3); its input needs (outputs, 3, 3, 4)"),
        (_model(labels=(Label("a", "b"),)), "20 outputs, but 1 labels"),
        (_model(labels=tuple(Label("a", "b") for _ in range(20))), "share an id"),
        (_model(labels=tuple(Label(str(n), "tab\t") for n in range(20))), "cannot be printed"),
        (_model(patches=10), "need ccv's formation"),
        (_model(patches=3), "3 patches"),
        (_model(ranges=(None,)), "1 ranges; it needs none or 18"),
        (_model(ranges=(Range(1, 0),) * 18), "activation range 1 .. 0"),
        (_model(ranges=(Range(0, float("nan")),) * 18), "activation range"),
        (_model(formation=CropFormation(-1, (0, 0, 0), (1, 1, 1))), "crop padding of -1"),
        (_model(formation=CropFormation(0, (0, 0, float("inf")), (1, 1, 1))), "not finite"),
        (_model(formation=CcvFormation(10, 30, np.zeros((10, 30, 3), F32), None)), "does not hold"),
        (_model(formation=CcvFormation(30, 30, np.zeros((30, 31, 3), F32), None)), "has a mean float32(30, 31, 3)"),
        (_model(formation=CcvFormation(30, 30, np.full((30, 30, 3), np.nan, F32), None)), "mean that is infinite"),
        (_model(formation=CcvFormation(30, 30, np.zeros((30, 30, 3), F32), 99)), "scan layer 99"),
        (_model(formation=CcvFormation(30, 30, np.zeros((30, 30, 3), F32), 3)), "must read the layer before it"),
        (_layer(0, name="\n"), "cannot be printed"),
        (_layer(0, inputs=(0,)), "reads layer 0"),
        (_layer(0, inputs=(-2,)), "reads layer -2"),
        (_layer(0, inputs=()), "reads 0 layers"),
        (_layer(9, inputs=(8,) * 9), "reads 9 layers"),
        (_layer(0, inputs=(-1, -1)), "reads 2 layers; it takes one"),
        (_layer(0, window=Window(3, 3, 0, 1)), "stride of 0"),
        (_layer(6, window=Window(0, 3)), "window of 0 rows"),
        (_layer(0, window=Window(3, 3, 1, 1, (4, 0, 0, 0))), "pads rows by 4 and 0"),
        (_layer(0, window=Window(3, 3, 1, 1, (0, 0, 0, -1))), "pads columns by 0 and -1"),
        (_layer(2, groups=3), "3 groups"),
        (_layer(2, groups=0), "0 groups"),
        (_layer(2, groups=4), "its input needs (outputs, 3, 5, 2)"),
        (_layer(5, inputs=(4, 6)), "reads layer 6"),
        (_layer(7, kind="sum"), "kind 'sum'"),
        (_layer(8, begin=4), "takes channels 4 .. 8 of 8"),
        (_layer(8, begin=-1), "takes channels -1"),
        (_layer(9, inputs=(8, 5)), "rows and columns must be equal"),
        (_layer(1, size=0), "window of 0 channels"),
        (_layer(1, kappa=0.0), "could become 0"),
        (_layer(1, beta=float("inf")), "not finite"),
        (_weights(0, values=np.zeros((8, 3, 3, 3))), "type float64"),
        (_weights(0, values=np.full((8, 3, 3, 3), np.inf, F32)), "infinite or not a number"),
        (_weights(0, bias=np.zeros(7, F32)), "bias float32(7,)"),
        (_weights(0, bias=np.full(8, np.nan, F32)), "bias that is infinite"),
        (_weights(0, scale=np.zeros((8, 1), F32)), "scale float32(8, 1)"),
        (_weights(2, codebook=Codebook(np.zeros(3, np.float16))), "codebook index 15, but 3 entries"),
        (_weights(2, codebook=Codebook(np.zeros(0, np.float16))), "1 to 256"),
        (_weights(2, codebook=Codebook(np.zeros(257, F32))), "1 to 256"),
        (_weights(2, codebook=Codebook(np.full(16, np.nan, np.float16))), "codebook entries"),
        (_weights(2, values=np.zeros((8, 3, 5, 4), np.int8)), "indices of type int8"),
        (_weights(13, values=np.zeros((20, 4, 5), np.uint8)), "3 dimensions; a full connect layer has 2"),
        (_weights(13, values=np.zeros((20, 20), np.uint8)), "takes 20 inputs, but gets 5 x 6 x 13 = 390"),
    ],
)
def test_malformed_networks(change: Callable[[Model], Model], says: str) -> None:
    with pytest.raises(InputError) as caught:
        shapes.validate(change(nets.everything()))
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_add_takes_two_of_one_shape() -> None:
    model = nets.everything()
    for inputs in ((4,), (4, -1), (4, 4, 4)):
        with pytest.raises(InputError, match="takes two of one shape"):
            shapes.validate(_layer(5, inputs=inputs)(model))
    assert isinstance(model.layers[5], Add)


def test_a_classifier_ends_in_one_position() -> None:
    model = nets.everything()
    with pytest.raises(InputError, match="5 x 6 positions"):
        shapes.validate(replace(model, layers=model.layers[:13]))


def test_layers_that_nobody_knows() -> None:
    with pytest.raises(InputError, match="does not know"):
        shapes.infer(nets.network([Layer("new", (-1,))], (1, 1, 1)))


def test_products_cannot_overflow() -> None:
    wide = [Concat(f"join-{index}", (index - 1,) * 8) for index in range(6)]
    with pytest.raises(InputError, match="join-4"):
        shapes.infer(nets.network(list(wide), (1, 1, 3)))
    with pytest.raises(InputError, match="more than"):
        shapes.infer(nets.network([Slice("s", (-1,), 0, 1)], (65536, 65536, 65536)))


def test_what_a_scan_layer_asks_for() -> None:
    model = nets.ccv_like()
    shapes.validate(replace(model, patches=10))
    assert shapes.scan_strides(model) == (2, 2)
    formation = model.formation
    assert isinstance(formation, CcvFormation)
    for changed, says in (
        (replace(formation, scan_layer=2), "before the last"),
        (replace(formation, scan_layer=-1), "before the last"),
        (replace(formation, rows=22, mean=np.zeros((22, 21, 3), F32)), "no multiple of its strides"),
    ):
        with pytest.raises(InputError, match=says):
            shapes.validate(replace(model, formation=changed))
    behind = Pool("pool", (2,), Window(1, 1), "max")
    with pytest.raises(InputError, match="behind a full connect"):
        shapes.validate(replace(model, layers=(*model.layers, behind)))
    norm = LocalResponseNorm("norm", (2,), 1, 1, 0, 1)
    with pytest.raises(InputError, match="behind a full connect"):
        shapes.validate(replace(model, layers=(*model.layers, norm)))
