"""Class names in both orders, and the notice that goes with them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from klaus_runtime import labels
from klaus_runtime.model import Label


def test_both_orders() -> None:
    ilsvrc, by_wnid = labels.ilsvrc2012(), labels.sorted_wnids()
    assert len(ilsvrc) == len(by_wnid) == labels.IMAGENET_CLASSES
    assert ilsvrc[0] == Label("n02119789", "kit fox, Vulpes macrotis")
    assert by_wnid[0] == Label("n01440764", "tench, Tinca tinca")
    assert set(ilsvrc) == set(by_wnid)
    assert len({label.id for label in ilsvrc}) == labels.IMAGENET_CLASSES
    assert all(label.name.isprintable() and label.name for label in ilsvrc)


def test_only_thousand_class_networks_get_them() -> None:
    assert labels.for_classes(1000) == labels.ilsvrc2012()
    assert labels.for_classes(10) == ()


def test_orders_are_those_of_the_sources(shared: Path) -> None:
    own = (shared / "data" / "klaus-2014" / "image-net-2012.wnid").read_text().split()
    assert [label.id for label in labels.ilsvrc2012()] == own
    lines = (shared / "data" / "photos" / "wnid-sorted.txt").read_text().splitlines()
    assert [label.id for label in labels.sorted_wnids()] == [line.split()[0] for line in lines]


def test_wordnets_notice_goes_with_the_words() -> None:
    notice = resources.files("klaus_runtime").joinpath("data/NOTICE-WordNet.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
