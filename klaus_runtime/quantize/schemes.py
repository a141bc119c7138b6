"""The schemes of the first form: which layers get a codebook of how many bits, by plain k-means.

A scheme is a function from a float model and settings to a quantized model; later ones (mixed precision, calibrated)
join SCHEMES in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from klaus_runtime.errors import InputError
from klaus_runtime.model import Codebook, Convolution, FullConnect, Layer, Model, Weights
from klaus_runtime.quantize.kmeans import cluster


@dataclass(frozen=True, slots=True)
class Settings:
    """What a scheme may be told beside its name."""

    seed: int = 0  # of whatever a scheme draws; plain k-means draws nothing


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to quantize."""

    description: str
    apply: Callable[[Model, Settings], Model]


def by_bits(model: Model, bits: Mapping[int, int]) -> Model:
    """Each layer in `bits` with a codebook of at most 2**bits entries; scale and bias stay as they are.

    The codebook is made of the weights *before* their scale: folded ones spread too far for one codebook a layer.
    """
    layers: list[Layer] = []
    for number, layer in enumerate(model.layers):
        if number in bits and isinstance(layer, Convolution | FullConnect):
            values: npt.NDArray[Any] = layer.weights.values
            found = cluster(values, 1 << bits[number])
            weights = Weights(found.indices, layer.weights.bias, layer.weights.scale, Codebook(found.entries))
            layers.append(replace(layer, weights=weights))
        else:
            layers.append(layer)
    return replace(model, layers=tuple(layers))


def _full_connects(model: Model) -> list[int]:
    numbers = [number for number, layer in enumerate(model.layers) if isinstance(layer, FullConnect)]
    if not numbers:
        raise InputError(f"model {model.name}: the klaus schemes quantize full connect layers, it has none: choose q8")
    return numbers


def _klaus(bits: int) -> Callable[[Model, Settings], Model]:
    def apply(model: Model, _settings: Settings) -> Model:
        return by_bits(model, dict.fromkeys(_full_connects(model), bits))

    return apply


def _klaus_mixed(model: Model, _settings: Settings) -> Model:
    first, *others = _full_connects(model)
    return by_bits(model, {first: 4} | dict.fromkeys(others, 8))


def _q8(model: Model, _settings: Settings) -> Model:
    weighted = [n for n, layer in enumerate(model.layers) if isinstance(layer, Convolution | FullConnect)]
    return by_bits(model, dict.fromkeys(weighted, 8))


SCHEMES: Mapping[str, Scheme] = {
    "klaus-8": Scheme("full connect layers at 8 bits, the others as they are", _klaus(8)),
    "klaus-4": Scheme("full connect layers at 4 bits, the others as they are", _klaus(4)),
    "klaus-2": Scheme("full connect layers at 2 bits, the others as they are", _klaus(2)),
    "klaus-mixed": Scheme("first full connect layer at 4 bits, the other ones at 8: Klaus' own choice", _klaus_mixed),
    "q8": Scheme("every layer at 8 bits, batch-norm scales kept apart", _q8),
}
