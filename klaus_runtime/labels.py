"""Class names of the 1,000 ImageNet classes (ILSVRC2012), in the two orders that networks use.

The ids and words are WordNet's; its notice stands in data/NOTICE-WordNet.txt.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from klaus_runtime.model import Label

IMAGENET_CLASSES = 1000


@cache
def ilsvrc2012() -> tuple[Label, ...]:
    """Labels in ILSVRC2012 id order (first n02119789, kit fox): that of ccv and Klaus."""
    text = resources.files("klaus_runtime").joinpath("data/imagenet-1000.tsv").read_text(encoding="utf-8")
    return tuple(Label(*line.split("\t")) for line in text.splitlines())


@cache
def sorted_wnids() -> tuple[Label, ...]:
    """Labels in the order of their sorted WordNet ids (first n01440764, tench): that of most other networks."""
    return tuple(sorted(ilsvrc2012(), key=lambda label: label.id))


def for_classes(count: int) -> tuple[Label, ...]:
    """Labels of a ccv network with `count` classes: ILSVRC2012's for 1,000 (ccv's own nets), none for others."""
    return ilsvrc2012() if count == IMAGENET_CLASSES else ()
