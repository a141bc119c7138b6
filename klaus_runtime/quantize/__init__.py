"""Float weights -> codebooks and indices. One function, quantize(); SCHEMES says what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from klaus_runtime.errors import InputError
from klaus_runtime.model import Convolution, FullConnect, Model
from klaus_runtime.quantize import schemes

SCHEMES: Mapping[str, str] = {name: scheme.description for name, scheme in schemes.SCHEMES.items()}


def quantize(model: Model, scheme: str, *, seed: int = 0) -> Model:
    """A model whose weights are chosen from codebooks as `scheme` (a key of SCHEMES) says; deterministic.

    Raises InputError for an unknown scheme, a model that is quantized already, or one the scheme does not fit.
    """
    chosen = schemes.SCHEMES.get(scheme)
    if chosen is None:
        raise InputError(f"scheme {scheme!r} is unknown: there are {', '.join(SCHEMES)}")
    for layer in model.layers:
        if isinstance(layer, Convolution | FullConnect) and layer.weights.codebook is not None:
            raise InputError(
                f"model {model.name}: layer {layer.name} has a codebook already: quantize the float model it came from"
            )
    result = chosen.apply(model, schemes.Settings(seed))
    return replace(result, provenance=replace(model.provenance, scheme=scheme))


__all__ = ["SCHEMES", "quantize"]
