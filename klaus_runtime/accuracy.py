"""Top-1 and top-5 of answers to labelled photos, what they are worth, and how two networks' answers differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime.errors import CheckError, InputError
from klaus_runtime.model import F32, Label

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


def score(probabilities: F32, wanted: Sequence[int]) -> Score:
    """Of answers (photos, outputs) to photos whose classes are `wanted`."""
    found = [top(row, 5) for row in probabilities]
    pairs = list(zip(found, wanted, strict=True))
    return Score(len(pairs), sum(ids[0] == one for ids, one in pairs), sum(one in ids for ids, one in pairs))


def interval(hits: int, photos: int) -> tuple[float, float]:
    """95 % interval of a share of hits (E. B. Wilson, JASA 22, 1927): honest for few photos and near 0 and 1 too."""
    z2 = 1.959963984540054**2
    centre = (hits + z2 / 2) / (photos + z2)
    half = math.sqrt(z2) / (photos + z2) * math.sqrt(hits * (photos - hits) / photos + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Change:
    """How a network's answers differ from a reference's on the same photos."""

    photos: int
    agree: int  # photos on which both have the same class first
    gained: int  # right where the reference is wrong
    lost: int  # wrong where the reference is right
    divergence: float  # mean over photos of KL(reference || network), nats

    @property
    def top1(self) -> float:
        """Change of the share of photos whose class came first."""
        return (self.gained - self.lost) / self.photos

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % interval of top1, from the photos on which exactly one of the two is right.

        Those are all that speak about a difference (Q. McNemar, Psychometrika 12, 1947). Half a photo is added to each
        of the four cells, so that few or no differing photos give an honest interval too (A. Agresti and Y. Min,
        Statistics in Medicine 24, 2005).
        """
        photos, gained, lost = self.photos + 2, self.gained + 0.5, self.lost + 0.5
        centre = (gained - lost) / photos
        half = 1.959963984540054 * math.sqrt(gained + lost - (gained - lost) ** 2 / photos) / photos
        return max(-1.0, centre - half), min(1.0, centre + half)


def compare(reference: F32, found: F32, wanted: Sequence[int]) -> Change:
    """Of answers (photos, outputs), both class probabilities, to photos whose classes are `wanted`."""
    if reference.shape != found.shape or not len(found):
        raise InputError(
            f"answers of shape {found.shape} and {reference.shape} cannot be compared: same photos, please"
        )
    first = [(top(one, 1)[0], top(other, 1)[0]) for one, other in zip(reference, found, strict=True)]
    right = [(one == number, other == number) for (one, other), number in zip(first, wanted, strict=True)]
    return Change(
        photos=len(first),
        agree=sum(one == other for one, other in first),
        gained=right.count((False, True)),
        lost=right.count((True, False)),
        divergence=float(divergence(reference, found).mean()),
    )


def divergence(reference: F32, found: F32) -> npt.NDArray[np.float64]:
    """KL(reference || found) of each row, nats; probabilities below float32's smallest number count as that."""
    tiny = float(np.finfo(np.float32).tiny)
    one, other = (np.maximum(rows.astype(np.float64), tiny) for rows in (reference, found))
    result: npt.NDArray[np.float64] = (one * (np.log(one) - np.log(other))).sum(axis=-1)
    return result
