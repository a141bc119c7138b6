"""Small networks for the tests of the C engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    CcvFormation,
    Codebook,
    Concat,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Label,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Range,
    Slice,
    Softmax,
    Weights,
    Window,
)

CLASSES = 7
INPUT = (25, 22, 3)


class Maker:
    """Weights of every kind that a packed model knows, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.gain = 1.4

    def weights(self, shape: tuple[int, ...], entries: int | None = None, *, half: bool, scaled: bool) -> Weights:
        dtype = np.float16 if half else np.float32
        gain = self.gain / np.sqrt(np.prod(shape[1:]))
        bias = self._random.normal(0, 0.1, shape[0]).astype(np.float32)
        scale = self._random.uniform(0.5, 1.5, shape[0]).astype(np.float32) if scaled else None
        if entries is None:
            values = (self._random.normal(0, 1, shape) * gain).astype(dtype)
            return Weights(values, bias, scale)
        book = Codebook((np.linspace(-2, 2, entries) * gain).astype(dtype))
        return Weights(self._random.integers(0, entries, shape, dtype=np.uint8), bias, scale, book)

    def tensor(self, shape: tuple[int, ...]) -> F32:
        return self._random.normal(0, 1, shape).astype(np.float32)


def every_op() -> Model:
    """A net with all operations, all kinds of weights, branches, a residual block and labels that need escaping."""
    make = Maker(1)
    relu, relu6, linear = Activation.RELU, Activation.RELU6, Activation.LINEAR
    stem = make.weights((8, 3, 3, 3), half=False, scaled=True)
    depthwise = make.weights((8, 5, 3, 1), half=True, scaled=True)
    project = make.weights((8, 1, 1, 8), 16, half=True, scaled=True)
    grouped = make.weights((10, 3, 3, 7), 4, half=False, scaled=False)
    layers: tuple[Layer, ...] = (
        Convolution("stem", (-1,), Window(3, 3, 2, 2, (0, 1, 1, 0)), stem, 1, relu6),
        Convolution("depthwise", (0,), Window(5, 3, 1, 1, (2, 1, 2, 1)), depthwise, 8, relu),
        Convolution("project", (1,), Window(1, 1), project, 1, linear),
        Add("residual", (0, 2), relu),
        LocalResponseNorm("norm", (3,), 5, 2.0, 1e-2, 0.75, 2),
        Pool("max", (4,), Window(3, 2, 2, 1, (1, 0, 1, 1)), "max"),
        Pool("average", (4,), Window(3, 2, 2, 1, (1, 0, 1, 1)), "average"),
        Concat("both", (5, 6, 5)),
        Slice("middle", (7,), 3, 14),
        Convolution("grouped", (8,), Window(3, 3, 1, 1, (1, 3, 0, 2)), grouped, 2, linear),
        Activate("bend", (9,), relu6),
        GlobalPool("global", (10,)),
        FullConnect("hidden", (11,), make.weights((13, 10), 200, half=True, scaled=False), linear),
        Activate("bend again", (12,), relu),
        FullConnect("logits", (13,), make.weights((CLASSES, 13), 3, half=False, scaled=True), linear),
    )
    names = ('quote " and \\', "umlaut ö", "plain", "日本語", "emoji 🦊", "tab-less", "last")
    return Model(
        name="every op",
        input_shape=INPUT,
        layers=layers,
        formation=CropFormation(4, (120.0, 115.0, 100.0), (0.02, 0.021, 0.019), "bgr"),
        labels=tuple(Label(f"n{index:08d}", name) for index, name in enumerate(names)),
        provenance=Provenance('made "here"', "BSD-3-Clause", "nobody \\ everybody", seeded=True),
    )


def exact_in_int8() -> Model:
    """A net of the operations whose int8 results are defined to the bit, in every form that has a kernel of its own."""
    make = Maker(4)
    relu, relu6, linear = Activation.RELU, Activation.RELU6, Activation.LINEAR
    plain = {"half": False, "scaled": True}
    layers: tuple[Layer, ...] = (
        Convolution("first", (-1,), Window(7, 7, 2, 2, (1, 1, 1, 1)), make.weights((24, 7, 7, 3), **plain), 1, relu),
        Pool("pool", (0,), Window(3, 3, 2, 2), "max"),
        Convolution("strided", (1,), Window(5, 5, 2, 2, (1, 1, 1, 1)), make.weights((32, 5, 5, 12), 16, **plain), 2),
        Convolution("expand", (2,), Window(1, 1), make.weights((48, 1, 1, 32), 200, **plain), 1, relu6),
        Convolution("small", (3,), Window(3, 3, 1, 1, (1, 1, 1, 1)), make.weights((48, 3, 3, 1), **plain), 48, relu6),
        Convolution("large", (4,), Window(5, 5, 1, 1, (2, 2, 2, 2)), make.weights((48, 5, 5, 1), **plain), 48, relu),
        Convolution("project", (5,), Window(1, 1), make.weights((32, 1, 1, 48), **plain), 1, linear),
        Add("residual", (2, 6)),
        Convolution("grouped", (7,), Window(3, 3, 1, 1, (1, 1, 1, 1)), make.weights((26, 3, 3, 16), **plain), 2, relu),
        FullConnect("four bits", (8,), make.weights((37, 26 * 25), 16, half=True, scaled=False), relu),
        FullConnect("eight bits", (9,), make.weights((20, 37), 256, half=True, scaled=False), relu),
        FullConnect("logits", (10,), make.weights((CLASSES, 20), 4, half=True, scaled=False)),
    )
    return Model("exact in int8", (53, 53, 3), layers, None, (), Provenance("seed", "BSD-3-Clause", ""))


def adds_its_input() -> Model:
    """Residuals around one convolution: the addend is what the convolution reads, and stands where its output might."""
    make = Maker(12)
    make.gain = 0.5
    wide = Window(3, 3, 1, 1, (1, 1, 1, 1))
    layers: tuple[Layer, ...] = (
        Convolution("first", (-1,), wide, make.weights((24, 3, 3, 3), half=False, scaled=False)),
        Convolution("point", (0,), Window(1, 1, 1, 1), make.weights((24, 1, 1, 24), half=False, scaled=False)),
        Add("point sum", (0, 1)),
        Convolution("window", (2,), wide, make.weights((24, 3, 3, 24), half=False, scaled=False)),
        Add("window sum", (3, 2), Activation.RELU),
        Add("twice", (4, 4)),
        GlobalPool("global", (5,)),
        FullConnect("logits", (6,), make.weights((CLASSES, 24), half=False, scaled=False)),
    )
    return Model("adds its input", (40, 37, 3), layers, None, (), Provenance("seed", "BSD-3-Clause", ""))


def ends_in_softmax() -> Model:
    """One full connect layer and a softmax, tensors only, no labels."""
    make = Maker(2)
    layers: tuple[Layer, ...] = (
        FullConnect("full", (-1,), make.weights((4, 12), half=False, scaled=False)),
        Softmax("softmax", (0,)),
    )
    return Model("softmax", (2, 2, 3), layers, None, (), Provenance("seed", "BSD-3-Clause", ""))


def tall(rows: int = 121, cols: int = 117) -> Model:
    """Maps of a megabyte and more one after the other, of which lean memory holds a few rows at a time.

    These rows and columns are enough of float32; int8 takes twice as many of both.
    """
    make = Maker(4)
    relu6, linear = Activation.RELU6, Activation.LINEAR
    layers: tuple[Layer, ...] = (
        Convolution(
            "stem", (-1,), Window(3, 3, 1, 1, (1, 1, 1, 1)), make.weights((24, 3, 3, 3), half=True, scaled=True)
        ),
        Convolution(
            "depthwise", (0,), Window(5, 5, 1, 1, (2, 2, 2, 2)), make.weights((24, 5, 5, 1), half=True, scaled=True), 24
        ),
        Convolution("project", (1,), Window(1, 1), make.weights((20, 1, 1, 24), 16, half=True, scaled=True), 1, linear),
        Convolution("expand", (2,), Window(1, 1), make.weights((22, 1, 1, 20), 16, half=True, scaled=True), 1, relu6),
        Convolution("back", (3,), Window(1, 1), make.weights((20, 1, 1, 22), 200, half=True, scaled=False), 1, linear),
        Add("residual", (2, 4)),
        Pool("max", (5,), Window(3, 3, 2, 2, (1, 1, 0, 1)), "max"),
        GlobalPool("global", (6,)),
        FullConnect("logits", (7,), make.weights((CLASSES, 20), 16, half=True, scaled=True)),
    )
    return Model("tall", (rows, cols, 3), layers, None, (), Provenance("seed", "BSD-3-Clause", ""))


def broad(rows: int, cols: int) -> Model:
    """As `tall`, of Klaus' kind: large windows, LRN and pools between. The maps have half as many rows and columns."""
    make = Maker(7)
    relu = Activation.RELU
    plain = {"half": False, "scaled": True}
    layers: tuple[Layer, ...] = (
        Convolution("first", (-1,), Window(7, 7, 2, 2, (1, 2, 3, 2)), make.weights((32, 7, 7, 3), **plain), 1, relu),
        LocalResponseNorm("norm", (0,), 5, 2.0, 1e-2, 0.75, 2),
        Convolution("grouped", (1,), Window(3, 3, 1, 1, (1, 1, 1, 1)), make.weights((32, 3, 3, 16), **plain), 2, relu),
        Pool("average", (2,), Window(3, 3, 1, 1, (1, 1, 1, 1)), "average"),
        Pool("max", (3,), Window(3, 2, 2, 1, (0, 0, 1, 1)), "max"),
        Convolution("strided", (4,), Window(5, 5, 2, 2, (2, 2, 2, 2)), make.weights((16, 5, 5, 32), 16, **plain), 1),
        GlobalPool("global", (5,)),
        FullConnect("logits", (6,), make.weights((CLASSES, 16), 16, half=True, scaled=True)),
    )
    return Model("broad", (rows, cols, 3), layers, None, (), Provenance("seed", "BSD-3-Clause", ""))


def scanned(*, pools: bool = True) -> Model:
    """ccv's patches, with layers between the scan layer and the full connects, or without them."""
    make = Maker(3)
    make.gain = 0.1
    relu = Activation.RELU
    layers: tuple[Layer, ...] = (
        Convolution("conv", (-1,), Window(3, 3, 2, 2), make.weights((6, 3, 3, 3), half=False, scaled=False), 1, relu),
        Convolution("scan", (0,), Window(3, 3, 1, 1), make.weights((6, 3, 3, 6), half=False, scaled=False), 1, relu),
    )
    if pools:
        layers += (
            Pool("pool", (1,), Window(2, 2, 1, 1), "max"),
            Pool("other pool", (2,), Window(2, 2, 1, 1, (0, 0, 1, 1)), "average"),
        )
    inputs = 6 * (4 * 4 if pools else 5 * 5)
    layers += (
        FullConnect("hidden", (len(layers) - 1,), make.weights((9, inputs), half=False, scaled=False), relu),
        FullConnect("logits", (len(layers),), make.weights((CLASSES, 9), half=False, scaled=False)),
    )
    mean = np.full((19, 19, 3), 100, np.float32) + np.arange(19, dtype=np.float32)[:, None, None]
    formation = CcvFormation(19, 19, mean, 1)
    return Model("scanned", (15, 15, 3), layers, formation, (), Provenance("seed", "BSD-3-Clause", ""), patches=10)


def apart(model: Model) -> Model:
    """A model of layers one behind the other, its activations as layers of their own, so that a plan can fuse them."""
    formation = model.formation
    assert isinstance(formation, CcvFormation)
    layers: list[Layer] = []
    scan = -1
    for number, layer in enumerate(model.layers):
        inputs = (len(layers) - 1,)
        if isinstance(layer, Convolution | FullConnect) and layer.activation is not Activation.LINEAR:
            layers.append(replace(layer, inputs=inputs, activation=Activation.LINEAR))
            layers.append(Activate(f"{layer.name} bent", (len(layers) - 1,), layer.activation))
        else:
            layers.append(replace(layer, inputs=inputs))
        scan = len(layers) - 1 if number == formation.scan_layer else scan
    return replace(model, layers=tuple(layers), formation=replace(formation, scan_layer=scan))


# --- small files that ask for more than 32-bit memory holds ---


def _filters(shape: tuple[int, ...]) -> Weights:
    return Weights(np.zeros(shape, np.uint8), np.zeros(shape[0], np.float32), None, Codebook(np.zeros(4, np.float16)))


def wide_padding() -> Model:
    """9 KB whose padded picture, which a first convolution copies, has 2^32 bytes."""
    window = Window(16384, 2, 16384, 65534, (16383, 0, 0, 0))
    layers = (Convolution("wide", (-1,), window, _filters((1, 16384, 2, 1))), GlobalPool("pool", (0,)))
    return Model("wide padding", (1, 65536, 1), layers, None, (), Provenance("none", "none", "none"))


def crossing() -> Model:
    """A step that reads a layer without an int8 kernel and the input, so two casts; a layer that leads nowhere."""
    make = Maker(6)
    make.gain = 4
    linear, relu = Activation.LINEAR, Activation.RELU
    layers: tuple[Layer, ...] = (
        Activate("bend", (-1,), relu),
        Convolution("mix", (0,), Window(1, 1), make.weights((3, 1, 1, 3), half=False, scaled=False), 1, linear),
        Add("sum", (1, -1), relu),
        GlobalPool("pool", (2,)),
        FullConnect("hidden", (3,), make.weights((5, 3), half=False, scaled=False), linear),
        Convolution("nowhere", (2,), Window(1, 1), make.weights((4, 1, 1, 3), half=False, scaled=False), 1, linear),
        Activate("last", (4,), relu),
    )
    ranges = tuple(Range(-8, 8) for _ in range(len(layers) + 1))
    return Model("crossing", (9, 7, 3), layers, None, (), Provenance("none", "none", "none"), ranges=ranges)


def many_groups() -> Model:
    """65536 groups of one filter, each a panel of four when packed: made larger by tests, this is 2^32 bytes."""
    layers = (Convolution("groups", (-1,), Window(1, 1), _filters((65536, 1, 1, 1)), 65536),)
    return Model("many groups", (1, 1, 65536), layers, None, (), Provenance("none", "none", "none"))


def wide_crop() -> Model:
    """An input as wide as can be: 21846 rows of a picture, their columns brought to it, have 2^32 bytes and more."""
    layers = (Convolution("colours", (-1,), Window(1, 1), _filters((1, 1, 1, 3))), GlobalPool("pool", (0,)))
    formation = CropFormation(0, (0, 0, 0), (1, 1, 1))
    return Model("wide crop", (1, 65536, 3), layers, formation, (), Provenance("none", "none", "none"))
