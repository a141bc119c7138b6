"""Small networks with every kind of layer, from a seed."""

from __future__ import annotations

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
    Formation,
    FullConnect,
    GlobalPool,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Slice,
    Softmax,
    Weights,
    Window,
)

PROVENANCE = Provenance("a test", "BSD-3-Clause", "nobody", seeded=True)


def numbers(rng: np.random.Generator, *shape: int) -> F32:
    return rng.standard_normal(shape).astype(np.float32)


def weights(
    rng: np.random.Generator, *shape: int, scale: bool = False, entries: int = 0, half: bool = False
) -> Weights:
    bias = numbers(rng, shape[0])
    scales = rng.uniform(0.5, 2, shape[0]).astype(np.float32) if scale else None
    if entries:
        indices = rng.integers(0, entries, shape, dtype=np.uint8)
        return Weights(indices, bias, scales, Codebook((numbers(rng, entries) / 4).astype(np.float16)))
    values = numbers(rng, *shape) / np.float32(np.sqrt(np.prod(shape[1:])))
    return Weights(values.astype(np.float16) if half else values, bias, scales)


def network(layers: list[Layer], shape: tuple[int, int, int], formation: Formation = None, name: str = "test") -> Model:
    return Model(name, shape, tuple(layers), formation, (), PROVENANCE)


def everything(seed: int = 0) -> Model:
    """A net that has each kind of layer and each way of holding weights, with residual and parallel paths."""
    rng = np.random.default_rng(seed)
    relu, relu6 = Activation.RELU, Activation.RELU6
    layers: list[Layer] = [
        Convolution("stem", (-1,), Window(3, 3, 2, 2, (0, 0, 1, 1)), weights(rng, 8, 3, 3, 3, scale=True), 1, relu6),
        LocalResponseNorm("norm", (0,), 5, 2.0, 1e-2, 0.75, 2),
        Convolution("grouped", (1,), Window(3, 5, 1, 1, (1, 2, 1, 2)), weights(rng, 8, 3, 5, 4, entries=16), 2, relu),
        Convolution(
            "depthwise", (2,), Window(5, 5, 1, 1, (2, 2, 2, 2)), weights(rng, 8, 5, 5, 1, scale=True), 8, relu6
        ),
        Convolution("point", (3,), Window(1, 1), weights(rng, 8, 1, 1, 8, entries=4, scale=True), 1),
        Add("add", (4, 1), relu),
        Pool("max", (5,), Window(3, 3, 2, 2, (1, 1, 0, 0)), "max"),
        Pool("average", (5,), Window(3, 2, 2, 2, (1, 0, 0, 1)), "average"),
        Slice("slice", (6,), 2, 5),
        Concat("concat", (8, 7)),
        Activate("activate", (9,), relu6),
        Convolution("wide", (10,), Window(3, 3, 1, 1, (1, 1, 1, 1)), weights(rng, 13, 3, 3, 13, half=True), 1),
        LocalResponseNorm("norm-2", (11,), 4, 1.0, 0.05, 0.5, 1),
        FullConnect("full", (12,), weights(rng, 20, 5 * 6 * 13, entries=256), relu),
        FullConnect("full-2", (13,), weights(rng, 20, 20, scale=True)),
        GlobalPool("global", (14,)),
        Softmax("softmax", (15,)),
    ]
    return network(layers, (20, 24, 3), CropFormation(4, (127, 120, 110), (1 / 128, 1 / 64, 1 / 32), "bgr"))


def coarse() -> Model:
    """A net whose outputs have one large weight each and many that int8 rounds to 0, though together they count."""
    rng = np.random.default_rng(2)

    def uneven(*shape: int) -> Weights:
        values = rng.uniform(0.001, 0.003, shape).astype(np.float32)
        values.reshape(shape[0], -1)[:, 0] = 1
        return Weights(values, rng.uniform(-0.2, 0, shape[0]).astype(np.float32))

    relu6 = Activation.RELU6
    layers: list[Layer] = [
        Convolution("stem", (-1,), Window(3, 3, 2, 2), uneven(8, 3, 3, 3), 1, relu6),
        Convolution("wide", (0,), Window(3, 3, 1, 1), uneven(8, 3, 3, 8), 1, relu6),
        FullConnect("full", (1,), uneven(5, 5 * 7 * 8)),
    ]
    return network(layers, (16, 20, 3), CropFormation(4, (0, 0, 0), (1 / 64, 1 / 64, 1 / 64), "rgb"))


def ccv_like(rows: int = 17, cols: int = 17) -> Model:
    """A small net that cuts patches."""
    rng = np.random.default_rng(1)
    layers: list[Layer] = [
        Convolution("conv", (-1,), Window(3, 3, 2, 2, (1, 1, 1, 1)), weights(rng, 4, 3, 3, 3), 1, Activation.RELU),
        Pool("pool", (0,), Window(3, 3, 2, 2), "max"),
        FullConnect("full", (1,), weights(rng, 5, 4 * ((rows + 1) // 2 - 1) // 2 * (((cols + 1) // 2 - 1) // 2))),
    ]
    mean = rng.uniform(100, 150, (rows + 4, cols + 4, 3)).astype(np.float32)
    return network(layers, (rows, cols, 3), CcvFormation(rows + 4, cols + 4, mean, 0))
