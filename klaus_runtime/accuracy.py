"""Top-1 and top-5 of a model on labelled photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from klaus_runtime import images
from klaus_runtime.engine import Crop, Engine
from klaus_runtime.errors import CheckError, InputError
from klaus_runtime.model import F32, Label, Model

CLAIM_FROM = 100  # photos; fewer say nothing about accuracy


@dataclass(frozen=True, slots=True)
class Score:
    """How many of `photos` had their class first, and among the first five."""

    photos: int
    top1: int
    top5: int

    @property
    def claimed(self) -> bool:
        """Whether there are enough photos to speak of an accuracy."""
        return self.photos >= CLAIM_FROM


def top(probabilities: F32, count: int) -> list[int]:
    """The ids of the `count` largest, largest first, ties to the lower id. Raises CheckError where one is no number."""
    if not np.isfinite(probabilities).all():
        raise CheckError("the network answered with numbers that are not finite: its weights or the input are broken")
    return [int(number) for number in np.argsort(-probabilities, kind="stable")[:count]]


def positions(labels: Sequence[Label], photos: Sequence[tuple[str, Path]]) -> list[int]:
    """Each photo's class as the network's own number. Raises InputError for a class that it does not know."""
    numbers = {label.id: number for number, label in enumerate(labels)}
    for wnid, path in photos:
        if wnid not in numbers:
            raise InputError(f"{path}: class {wnid} is none of the network's {len(numbers)}: take the folder out")
    return [numbers[wnid] for wnid, _ in photos]


def evaluate(
    model: Model,
    engine: Engine,
    photos: Sequence[tuple[str, Path]],
    *,
    patches: Literal[1, 10],
    crop: Crop,
    after: Callable[[Score], None] = lambda _score: None,
) -> Score:
    """Classifies (WordNet id, path) photos; `after` is told the score so far after each."""
    wanted = positions(model.labels, photos)
    score = Score(0, 0, 0)
    for (_, path), number in zip(photos, wanted, strict=True):
        found = top(engine.probabilities(images.read_picture(path), patches=patches, crop=crop), 5)
        score = Score(score.photos + 1, score.top1 + (found[0] == number), score.top5 + (number in found))
        after(score)
    return score


def interval(hits: int, photos: int) -> tuple[float, float]:
    """95 % interval of a share of hits (E. B. Wilson, JASA 22, 1927): honest for few photos and near 0 and 1 too."""
    z2 = 1.959963984540054**2
    centre = (hits + z2 / 2) / (photos + z2)
    half = math.sqrt(z2) / (photos + z2) * math.sqrt(hits * (photos - hits) / photos + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
