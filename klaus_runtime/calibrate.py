"""Activation ranges from unlabelled photos: what int8 arithmetic needs to know of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from klaus_runtime import images
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import F32, Model, Range

TAIL = 1e-4  # of the values, cut off at each end by the method "percentile"
_SAMPLES = 4096  # of each layer and photo, that percentiles are taken from


def calibrate(
    model: Model,
    photos: Sequence[Path],
    *,
    method: str = "minmax",
    report: Callable[[int], None] = lambda _: None,
) -> Model:
    """The model with a Range for its input and for every layer's output, over one patch of every photo.

    method: "minmax" takes the least and the largest value of all; "percentile" leaves TAIL of the values outside at
    each end, so that a few outliers do not make all steps coarse. `report` is told how many photos are done.
    Raises InputError for photos that cannot be read, for none, or for values that are not finite.
    """
    if method not in ("minmax", "percentile"):
        raise InputError(f"ranges cannot be measured by {method!r}: there are minmax and percentile")
    if not photos:
        raise InputError("ranges are measured on photos: give a folder that holds some")
    engine = FastEngine(model)
    lows = np.full(len(model.layers) + 1, np.inf)
    highs = -lows
    samples: list[list[F32]] = [[] for _ in lows]
    rng = np.random.default_rng(0)
    for done, photo in enumerate(photos):
        tensor = images.form(model, images.read_picture(photo))
        for number, values in enumerate((tensor, *engine.activations(tensor))):
            lows[number] = min(lows[number], float(values.min()))
            highs[number] = max(highs[number], float(values.max()))
            if method == "percentile":
                flat = values.ravel()
                samples[number].append(flat if flat.size <= _SAMPLES else rng.choice(flat, _SAMPLES))
        report(done + 1)
    if not np.isfinite([lows, highs]).all():
        raise InputError(
            f"model {model.name}: some layer's output is not finite on these photos: its weights are broken"
        )
    ranges = []
    for low, high, drawn in zip(lows, highs, samples, strict=True):
        if method == "percentile":
            low, high = np.quantile(np.concatenate(drawn), (TAIL, 1 - TAIL))  # noqa: PLW2901
            ranges.append(Range(float(low), float(high), "percentile"))
        else:
            ranges.append(Range(float(low), float(high)))
    return replace(model, ranges=tuple(ranges))
