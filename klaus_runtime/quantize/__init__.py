"""Float weights -> codebooks and indices. One function, quantize(); SCHEMES says what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from klaus_runtime.errors import InputError
from klaus_runtime.model import Convolution, FullConnect, Layer, Model
from klaus_runtime.quantize import auto, calibrated, schemes, views
from klaus_runtime.quantize.sequential import Report

_CALIBRATED: Mapping[str, str] = {
    "q6": "64 entries a codebook, chosen on calibration photos",
    "q5": "32 entries a codebook, chosen on calibration photos",
    "q4": "16 entries a codebook, chosen on calibration photos",
    "q3": "9 entries a codebook, about 2.8 bits a weight as a coder counts them, chosen on calibration photos",
    "auto": "mixed precision: the most bits within --budget, or the fewest within --max-loss",
}
SCHEMES: Mapping[str, str] = {name: scheme.description for name, scheme in schemes.SCHEMES.items()} | dict(_CALIBRATED)


def needs_photos(scheme: str) -> bool:
    """Whether a scheme (a key of SCHEMES) chooses on calibration photos and does nothing without them."""
    return scheme in _CALIBRATED


def quantize(
    model: Model,
    scheme: str,
    *,
    seed: int = 0,
    calibration: Path | None = None,
    budget: int | None = None,
    max_loss: float | None = None,
    work: Path | None = None,
    report: Report = lambda *_: None,
) -> Model:
    """A model whose weights are chosen from codebooks as `scheme` (a key of SCHEMES) says; deterministic.

    calibration: folder of unlabelled photos; q6 and fewer bits need one, q8 gains by it, the klaus schemes ignore it.
    budget: for auto, bytes of the package at most; max_loss: for auto instead, answers of 100 that may change at most.
    work: folder that keeps what an interrupted run has finished. report(what, done, of) is told how far it is.
    Raises InputError for an unknown scheme, absent photos, a model that is quantized already, or one the scheme does
    not fit.
    """
    model = replace(model, layers=tuple(_uncorrected(layer) for layer in model.layers))
    if scheme not in SCHEMES:
        raise InputError(f"scheme {scheme!r} is unknown: there are {', '.join(SCHEMES)}")
    for layer in model.layers:
        if isinstance(layer, Convolution | FullConnect) and layer.weights.codebook is not None:
            raise InputError(
                f"model {model.name}: layer {layer.name} has a codebook already: quantize the float model it came from"
            )
    if (scheme == "auto") != (budget is not None or max_loss is not None) or (budget and max_loss is not None):
        raise InputError("scheme auto needs one of --budget BYTES and --max-loss PTS; other schemes take neither")
    recipe = calibrated.RECIPES.get(scheme)
    if scheme == "auto" and calibration is not None:
        photos = views.find(calibration)
        if budget is not None:
            result, bits = auto.within_bytes(model, budget, photos, seed=seed, work=work, report=report)
            chosen = f"{bits:.3f} bits a weight for {budget} bytes"
        else:
            assert max_loss is not None
            result, chosen = auto.within_loss(model, max_loss, photos, seed=seed, work=work, report=report)
        said = f"auto ({chosen}, calibrated on {len(photos)} photos, seed {seed})"
    elif recipe is not None and calibration is not None:
        photos = views.find(calibration)
        result = calibrated.apply(model, recipe, photos, seed=seed, work=work, report=report)
        said = f"{scheme} (calibrated on {len(photos)} photos, seed {seed})"
    elif scheme in schemes.SCHEMES:
        result = schemes.SCHEMES[scheme].apply(model, schemes.Settings(seed))
        said = scheme
    else:
        raise InputError(f"scheme {scheme} is chosen on photos: give a folder of some hundred by --calibration DIR")
    return replace(result, provenance=replace(model.provenance, scheme=said))


def _uncorrected(layer: Layer) -> Layer:
    """Corrections for int8 are of the weights that were calibrated: `klaus calibrate` measures new ones."""
    if isinstance(layer, Convolution | FullConnect) and layer.weights.correction is not None:
        return replace(layer, weights=replace(layer.weights, correction=None))
    return layer


__all__ = ["SCHEMES", "needs_photos", "quantize"]
