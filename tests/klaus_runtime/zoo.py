"""Small networks for tests, and whether two models are the same to the last bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from klaus_runtime.model import (
    NETWORK_INPUT,
    Activate,
    Activation,
    Add,
    Codebook,
    Concat,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Label,
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


def everything() -> Model:
    """One layer of each kind and each form of weights, in a net of 9 x 9 x 3 that does not fit ccv's schema."""
    draw = np.random.default_rng(1)

    def floats(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(np.float32)

    def indices(entries: int, *shape: int) -> Any:
        return draw.integers(0, entries, shape).astype(np.uint8)

    # Numbers that a byte holds exactly, that two do, and that only float32 does.
    byte, two, four = (np.arange(7, dtype=np.float32) / np.float32(divisor) for divisor in (4, 256 / 257, 10))
    half = floats(5).astype(np.float16)
    layers = (
        Convolution(
            "first ✓",
            (NETWORK_INPUT,),
            Window(3, 2, 2, 1, (1, 0, 1, 1)),
            Weights(indices(5, 6, 3, 2, 3), floats(6), floats(6), Codebook(half), byte[:6]),
            1,
            Activation.RELU6,
        ),
        Convolution(
            "depthwise",
            (0,),
            Window(3, 3, 1, 1, (1, 1, 1, 1)),
            Weights(floats(6, 3, 3, 1), floats(6), floats(6), correction=four[:6]),
            6,
        ),
        Add("add", (0, 1), Activation.RELU),
        Slice("slice", (2,), 2, 3),
        Concat("concat", (3, 2, 3)),
        LocalResponseNorm("norm", (4,), 5, 2.0, float(np.float32(1e-4)), 0.75, 2),
        Pool("largest", (5,), Window(2, 2, 1, 1, (0, 1, 1, 0)), "max"),
        Pool("average", (6,), Window(3, 3, 2, 2, (1, 1, 1, 1)), "average"),
        Activate("relu", (7,), Activation.RELU),
        FullConnect("full", (8,), Weights(floats(11, 12 * 3 * 5).astype(np.float16), floats(11)), Activation.RELU),
        FullConnect(
            "two bits",
            (9,),
            Weights(indices(3, 7, 11), floats(7), None, Codebook(floats(3)), two),
        ),
        GlobalPool("global", (10,)),
        Softmax("softmax", (11,)),
    )
    return Model(
        name="everything",
        input_shape=(9, 9, 3),
        layers=layers,
        formation=CropFormation(32, (1.5, 2.5, 3.25), (0.5, 0.25, 1.0), "bgr"),
        labels=tuple(Label(f"n{number:08d}", f"thing, {number} é") for number in range(7)),
        provenance=Provenance("tests", "BSD-3-Clause", "nobody", seeded=True, scheme="by hand"),
        ranges=(Range(-1.0, 2.5), *[None] * 6, Range(0.0, 0.5, "percentile"), *[None] * 6),
    )


def assert_same(left: object, right: object, where: str = "model") -> None:
    """Equal in every field, arrays in type, shape and bits."""
    assert type(left) is type(right), where
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        assert left.dtype == right.dtype, where
        assert left.shape == right.shape, where
        assert np.array_equal(left, right), where
    elif dataclasses.is_dataclass(left):
        for field in dataclasses.fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name), f"{where}.{field.name}")
    elif isinstance(left, tuple) and isinstance(right, tuple):
        assert len(left) == len(right), where
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}[{number}]")
    else:
        assert left == right, where
