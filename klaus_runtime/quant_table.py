"""What quantization costs and saves: one row a scheme, sizes of whole packages against answers on photos.

Klaus' README shows such a table of its own; this draws it again for any network: package bytes, misses with intervals,
and how the answers differ from the float network's, which photos of any number can tell. Packages and answers are kept,
so that a table that was interrupted goes on, and a second one with a scheme more costs that scheme.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from klaus_runtime import accuracy, answers, files, package, quantize, shapes
from klaus_runtime.accuracy import Change, Score
from klaus_runtime.deflate import Effort
from klaus_runtime.engine import Crop
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import F32, Convolution, CropFormation, FullConnect, Model, Provenance
from klaus_runtime.published import REFERENCES

FLOAT = "float"
AS_IT_COMES = "as-it-comes"  # the row of a network whose source has codebooks already
_SHARED_BYTES = 1 << 29
_WEIGHTED = (Convolution, FullConnect)
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One network. `change` is against the float one, None for itself."""

    scheme: str
    total_bytes: int
    bits_per_weight: float
    score: Score
    change: Change | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, and what they were measured on."""

    model: str
    provenance: Provenance
    weights: int
    photos: int
    patches: int
    crop: Crop
    calibration: int  # photos; 0 without
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What a table is made of."""

    model: Model
    schemes: Sequence[str]
    photos: Sequence[tuple[str, Path]]
    packages: Path  # folder
    journal: Path  # folder
    patches: Literal[1, 10]
    crop: Crop
    calibration: Path | None = None
    work: Path | None = None
    effort: Effort = "best"
    seed: int = 0


def default_schemes(model: Model, *, calibration: bool) -> tuple[str, ...]:
    """Klaus' own for a network of his kind, those for every layer else; those that need calibration where it is.

    A network that has codebooks already is measured as it comes, against its weights written out.
    """
    if _quantized(model):
        return (AS_IT_COMES,)
    calibrated = ("q6", "q5", "q4", "q3") if calibration else ()
    if package.why_not_klaus(model) is None:
        return ("klaus-8", "klaus-4", "klaus-2", "klaus-mixed", *(scheme for scheme in calibrated if scheme != "q6"))
    return ("q8", *calibrated)


def default_crop(model: Model, photos: Sequence[tuple[str, Path]]) -> Crop:
    """none where photos have the network's own size, as those that were cut already; else center."""
    if not isinstance(model.formation, CropFormation):
        return "center"
    rows, cols, _ = model.input_shape
    for _, path in photos[:20]:
        try:
            with Image.open(path) as image:
                if image.size != (cols, rows):
                    return "center"
        except OSError as error:
            raise InputError(f"photo {path} is damaged or not a picture; give an intact one") from error
    return "none"


def make(order: Order, report: Report = lambda *_: None) -> Table:
    """Quantizes, packages and measures; report(what, done, of) is told how far it is.

    Every row is measured on the network that is read back from its package. Raises InputError for an unknown scheme or
    photos that do not fit the model.
    """
    if len(order.photos) < accuracy.CLAIM_FROM:
        raise InputError(f"{len(order.photos)} photos say nothing about accuracy: give {accuracy.CLAIM_FROM} or more")
    for scheme in order.schemes:
        if scheme not in quantize.SCHEMES and not (scheme == AS_IT_COMES and _quantized(order.model)):
            raise InputError(f"scheme {scheme!r} is unknown: there are {', '.join(quantize.SCHEMES)}")
    wanted = accuracy.positions(order.model.labels, order.photos)
    weights = shapes.weight_count(order.model)
    rows: list[Row] = []
    reference: F32 | None = None
    shared: dict[str, F32] = {}
    for scheme in (FLOAT, *order.schemes):
        read, total = _packaged(order, scheme, report)
        found = _answered(order, read, scheme, shared, report)
        change = None if reference is None else accuracy.compare(reference, found, wanted)
        reference = found if reference is None else reference
        rows.append(Row(scheme, total, 8 * total / weights, accuracy.score(found, wanted), change))
    calibrated = 0 if order.calibration is None else len(quantize.views.find(order.calibration))
    return Table(
        model=order.model.name,
        provenance=order.model.provenance,
        weights=weights,
        photos=len(order.photos),
        patches=order.patches,
        crop=order.crop,
        calibration=calibrated,
        rows=tuple(rows),
    )


def _packaged(order: Order, scheme: str, report: Report) -> tuple[Model, int]:
    """The network of a scheme as its package gives it back, and the package's bytes."""
    model = order.model
    if scheme == FLOAT:
        model = _written_out(model)
    elif scheme != AS_IT_COMES:
        model = quantize.quantize(
            model,
            scheme,
            seed=order.seed,
            calibration=order.calibration,
            work=order.work,
            report=lambda what, done, of: report(f"{scheme}: {what}", done, of),
        )
    report(f"{scheme}: writing the package", 0, 1)
    folder = order.packages / scheme
    # A package that is already there is written again only if the network, its words or the writer changed.
    facts = {
        "network": answers.fingerprint(model),
        "provenance": asdict(model.provenance),
        "effort": order.effort,
        "writer": _writer(),
    }
    kept = folder / "table.json"
    name = package.default_name(model)
    if kept.is_file() and json.loads(files.read_bytes(kept, 1 << 20)) == facts:
        made = [folder / f"{name}.sqlite3", *sorted(folder.glob(f"{name}-layer*.png"))]
        total = sum(path.stat().st_size for path in made)
    else:
        for stale in (kept, *folder.glob(f"{name}-layer*.png")):
            stale.unlink(missing_ok=True)
        written = package.write_package(model, folder, name=name, effort=order.effort)
        made, total = list(written.files), written.total_bytes
        files.write_bytes(kept, json.dumps(facts).encode())
    return package.read_package(made[0]), total


def _quantized(model: Model) -> bool:
    return any(layer.weights.codebook is not None for layer in model.layers if isinstance(layer, _WEIGHTED))


def _written_out(model: Model) -> Model:
    """The same network with every weight in place of its index; one without codebooks as it is."""
    layers = tuple(
        replace(layer, weights=replace(layer.weights, values=layer.weights.stored(), codebook=None))
        if isinstance(layer, _WEIGHTED) and layer.weights.codebook is not None
        else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)


def _writer() -> str:
    """Digest of the code that writes packages."""
    here = Path(__file__).parent
    return answers.code(*sorted((here / "package").glob("*.py")), here / "png.py", here / "deflate.py")


class _SharingEngine(FastEngine):
    """Networks that differ in their last layers only compute what comes before once a photo.

    Klaus' schemes leave all convolutions as they are, and those are nearly all the work when patches are cut behind
    them. kept: results of other networks' first layers, by digest of layers and input; filled up to _SHARED_BYTES.
    """

    def __init__(self, model: Model, kept: dict[str, F32]) -> None:
        super().__init__(model)
        self._kept = kept
        self._digests: dict[int, str] = {}

    def _run(self, tensors: F32, first: int, stop: int) -> F32:
        if first or stop == len(self.model.layers):
            return super()._run(tensors, first, stop)
        if stop not in self._digests:
            self._digests[stop] = answers.fingerprint(replace(self.model, layers=self.model.layers[:stop]))
        key = self._digests[stop] + hashlib.sha256(tensors.tobytes()).hexdigest()
        if (known := self._kept.get(key)) is not None:
            return known
        result = super()._run(tensors, first, stop)
        if sum(item.nbytes for item in self._kept.values()) + result.nbytes <= _SHARED_BYTES:
            self._kept[key] = result
        return result


def _answered(order: Order, model: Model, scheme: str, shared: dict[str, F32], report: Report) -> F32:
    asked = answers.Asked(f"fast {answers.code()}", order.patches, order.crop)
    numbers, found = answers.ask(
        model,
        lambda: _SharingEngine(model, shared),
        [path for _, path in order.photos],
        asked,
        journal=answers.Journal(order.journal, model, asked),
        after=lambda done: report(f"{scheme}: photos", done, len(order.photos)),
    )
    if len(numbers) != len(order.photos) or not np.isfinite(found).all():
        raise InputError(f"scheme {scheme}: not every photo could be answered")
    return found


# ---------------------------------------------------------------------------------------------------------- pages

HEADINGS = (
    "scheme", "bytes", "bits a weight", "top-1 miss, %", "top-5 miss, %", "same first, %", "KL, nats", "top-1, points"
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, under HEADINGS."""
    misses = []
    for hits in (row.score.top1, row.score.top5):
        low, high = accuracy.interval(hits, row.score.photos)
        misses.append(f"{_miss(hits, row.score.photos):.1f} ({100 - 100 * high:.1f} to {100 - 100 * low:.1f})")
    compared = ("", "", "")
    if row.change:
        low, high = row.change.top1_interval
        share = row.change.agree / row.change.photos
        moved = f"{100 * row.change.top1:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        compared = (f"{share:.1%}".rstrip("%"), _divergence(row.change.divergence), moved)
    return (row.scheme, f"{row.total_bytes:,}", f"{row.bits_per_weight:.2f}", *misses, *compared)


def _divergence(nats: float) -> str:
    return f"{nats:.4f}" if nats >= 0.001 or not nats else f"{nats:.0e}"


def _miss(hits: int, photos: int) -> float:
    return 100 - 100 * hits / photos


def conditions(table: Table) -> str:
    """One sentence: what was measured, on what."""
    views = "10 patches" if table.patches == 10 else "one view, cut from the middle"
    if table.patches == 1 and table.crop == "none":
        views = "one view, the whole photo"
    learned = f", codebooks chosen on {table.calibration} other photos" if table.calibration else ""
    return (
        f"{table.model} ({table.weights:,} weights; {table.provenance.source}; licence {table.provenance.licence}) on "
        f"{table.photos} photos, {views}{learned}. In brackets 95 % intervals: Wilson's of the misses, McNemar's of "
        "the change of top-1 against float. Same first: photos on which the float network has the same class first. "
        "Bytes: all that ship, sqlite3 and pictures; float is the package without codebooks."
    )


def markdown(table: Table, command: str, chart: str) -> str:
    """The page: conditions, rows, chart, references. chart: its file beside the page."""
    lines = [f"# Size and accuracy of {table.model}", "", conditions(table), ""]
    lines += _lines(HEADINGS, [cells(row) for row in table.rows])
    lines += ["", f"![size against misses]({chart})", "", "Made by", "", "```", command, "```", ""]
    lines += ["## For comparison, as published", "", "Other networks, other photos (ImageNet's 50,000 for misses).", ""]
    headings = ("what", "size", "memory", "top-1 miss, %", "top-5 miss, %", "note")
    published = [
        (item.name, item.size, item.memory, _percent(item.top1_miss), _percent(item.top5_miss), item.note)
        for item in REFERENCES
    ]
    lines += _lines(headings, published)
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return [f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in (headings, ruler, *rows)]
