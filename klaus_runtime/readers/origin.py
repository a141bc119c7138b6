"""What readers of files that people bring along call a model, its layers and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from klaus_runtime import labels as class_names
from klaus_runtime import shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import CropFormation, Label, Provenance

_FACT_BYTES = 500
_LABEL_LISTS = {"ilsvrc2012": class_names.ilsvrc2012, "sorted-wnids": class_names.sorted_wnids}


def printable(text: str, limit_bytes: int) -> str:
    """Text cut to a number of UTF-8 bytes, with _ for what cannot be printed."""
    clean = "".join(letter if letter.isprintable() else "_" for letter in text[:limit_bytes])
    return clean.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def model_name(path: Path) -> str:
    """A model's name after its file's."""
    return printable(path.stem, shapes.NAME_BYTES) or "network"


def provenance(path: Path, facts: Mapping[str, str]) -> Provenance:
    """What a file's own metadata say of its licence, author and source; 'unknown' where they are silent."""

    def first(*keys: str) -> str:
        found = (printable(facts[key].strip(), _FACT_BYTES) for key in keys if key in facts)
        return next((text for text in found if text), "unknown")

    source = first("source", "url")
    file = printable(f"file {path.name}", _FACT_BYTES)
    return Provenance(
        source=file if source == "unknown" else f"{file}, from {source}",
        licence=first("licence", "license"),
        attribution=first("attribution", "author", "model_author"),
    )


def formation(facts: Mapping[str, str]) -> CropFormation | None:
    """How pictures are prepared, from metadata klaus.mean, klaus.scale, klaus.order and klaus.padding; None without.

    mean and scale are three numbers with commas, for pictures of 0 .. 255 and in the tensor's channel order: tensor =
    (picture - mean) * scale; order is rgb (the default) or bgr; padding is CropFormation's, 32 by default.
    """
    if "klaus.mean" not in facts and "klaus.scale" not in facts:
        return None
    order, padding = facts.get("klaus.order", "rgb"), facts.get("klaus.padding", "32")
    if order not in ("rgb", "bgr") or not padding.isdecimal() or len(padding) > 5:
        raise InputError(f"its metadata klaus.order and klaus.padding are {order[:40]!a} and {padding[:40]!a}")
    mean, scale = _three(facts, "klaus.mean", "0,0,0"), _three(facts, "klaus.scale", "1,1,1")
    return CropFormation(int(padding), mean, scale, "bgr" if order == "bgr" else "rgb")


def labels(facts: Mapping[str, str], classes: int) -> tuple[Label, ...]:
    """Class names, from metadata klaus.labels: ilsvrc2012 or sorted-wnids, the two orders of ImageNet; else none."""
    chosen = facts.get("klaus.labels")
    if chosen is None:
        return ()
    if chosen not in _LABEL_LISTS or classes != class_names.IMAGENET_CLASSES:
        raise InputError(
            f"its metadata klaus.labels are {chosen[:40]!a} for {classes} classes; {' and '.join(_LABEL_LISTS)} are "
            f"lists of {class_names.IMAGENET_CLASSES}"
        )
    return _LABEL_LISTS[chosen]()


def _three(facts: Mapping[str, str], key: str, default: str) -> tuple[float, float, float]:
    text = facts.get(key, default)
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"its metadata {key} is {text[:60]!a}; three numbers are needed, as 127,127,127") from error
    return first, second, third
