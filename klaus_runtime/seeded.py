"""klaus-mobile: the exact geometry of Klaus' network with weights from a seed, for timing where Klaus' own are absent.

Geometry: ccv's "matt_a" with 2048 instead of 4096 neurons in the first two full connect layers, as Klaus ships it
(13 layers, grouped convolutions, 225 x 225 input cut from pictures brought to 257 x 257, 10 patches). Its answers mean
nothing; provenance.seeded says so wherever the model appears.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from klaus_runtime import labels
from klaus_runtime.model import (
    Activation,
    CcvFormation,
    Convolution,
    FullConnect,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Weights,
    Window,
)

NAME = "klaus-mobile"
_MEAN_RGB = (124.0, 117.0, 104.0)  # about what photos average to
_PICTURE_SCALE = 1 / 64  # brings pictures of -124..151 to about unit variance
_LOGIT_SCALE = 3.0  # spreads the answers about as a trained net's


def klaus_mobile(seed: int = 0) -> Model:
    """The network with half precision weights drawn from `seed`: the same on every computer and numpy."""
    draw = _Draw(seed)
    layers: list[Layer] = []

    def conv(size: int, inputs: int, outputs: int, *, stride: int = 1, border: int = 1, groups: int = 1) -> None:
        gain = _PICTURE_SCALE if not layers else 1.0
        weights = draw.weights((outputs, size, size, inputs // groups), gain)
        window = Window(size, size, stride, stride, (border,) * 4)
        layers.append(Convolution(*_place(layers, "conv"), window, weights, groups, Activation.RELU))

    def norm() -> None:
        layers.append(LocalResponseNorm(*_place(layers, "norm"), 5, 2.0, float(np.float32(1e-4)), 0.75, groups=2))

    def pool() -> None:
        layers.append(Pool(*_place(layers, "max-pool"), Window(3, 3, 2, 2), "max"))

    def full(inputs: int, outputs: int, activation: Activation, gain: float = 1.0) -> None:
        layers.append(FullConnect(*_place(layers, "full"), draw.weights((outputs, inputs), gain), activation))

    conv(7, 3, 96, stride=2)
    norm()
    pool()
    conv(5, 96, 256, stride=2, groups=2)
    norm()
    pool()
    conv(3, 256, 384)
    conv(3, 384, 384, groups=2)
    conv(3, 384, 256, groups=2)
    pool()
    full(6 * 6 * 256, 2048, Activation.RELU)
    full(2048, 2048, Activation.RELU)
    full(2048, 1000, Activation.LINEAR, _LOGIT_SCALE)
    return Model(
        name=NAME,
        input_shape=(225, 225, 3),
        layers=tuple(layers),
        formation=CcvFormation(257, 257, np.full((257, 257, 3), _MEAN_RGB, np.float32), scan_layer=8),
        labels=labels.for_classes(1000),
        provenance=Provenance(
            source=f"seed {seed}, in the geometry of Klaus' image-net-2012-mobile",
            licence="BSD-3-Clause",
            attribution="seeded: timing only; geometry after ccv and Klaus by Liu Liu",
            seeded=True,
        ),
        patches=10,
    )


def _place(layers: list[Layer], kind: str) -> tuple[str, tuple[int, ...]]:
    """Name, as the ccv reader gives them, and inputs of the next layer of a chain."""
    return f"{kind}-{len(layers)}", (len(layers) - 1,)


class _Draw:
    """Uniform numbers from PCG64's raw bits, the only part of numpy's randomness that never changes."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, count: int, limit: float) -> npt.NDArray[np.float32]:
        """(count,) float32 between -limit and limit."""
        raw = self._bits.random_raw(-(-count // 2)).view(np.uint32)[:count]
        unit = (raw >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        result: npt.NDArray[np.float32] = unit * np.float32(limit)
        return result

    def weights(self, shape: tuple[int, ...], gain: float) -> Weights:
        """He et al. 2015: variance 2 / inputs keeps the activations' scale through ReLU layers."""
        limit = gain * math.sqrt(3 * 2 / math.prod(shape[1:]))
        values = self.uniform(math.prod(shape), limit).astype(np.float16).reshape(shape)
        return Weights(values, self.uniform(shape[0], 0.05).astype(np.float16).astype(np.float32))
