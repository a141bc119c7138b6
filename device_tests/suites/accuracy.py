"""Accuracy: what the device says to photos, against the right classes and against the host.

An accuracy is claimed from CLAIM_FROM photos of the user's on; fewer, and the demonstration photos, are a
demonstration: 'k of n as expected'. In fp32 every photo's first five classes must be the host's, where only neighbours
closer than NEAR may swap. fp16 and int8 round on purpose: how many photos keep their first five classes is stated, not
judged, as long as classes swap no farther than agreement's bound of drift allows; farther is a failure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from device_tests.errors import InventoryError, ProgramError
from device_tests.photos import Photo
from device_tests.plan import Precision, Trial
from device_tests.program_records import PictureRecord, Record, TopClass
from device_tests.suites.agreement import DRIFT_BOUNDS
from device_tests.suites.context import Context, Remote
from klaus_runtime.accuracy import CLAIM_FROM, interval
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.images import read_picture
from klaus_runtime.model import F32, U8, Model
from klaus_runtime.pack import write_batch
from reports.record import Attribute, Status
from reports.stats import median

TOP = 5
NEAR = 2e-5  # relative difference of two probabilities that may swap
BATCH_BYTES = 16 << 20
TIMEOUT_S = 3600.0
SHOWN_ANSWERS = 20  # photos up to which each answer is a record


@dataclass(frozen=True, slots=True)
class Answer:
    """One photo's."""

    photo: Photo
    expected: int  # class
    top: tuple[TopClass, ...]
    as_host: bool
    in_reach: bool  # as the host's, or as far from it as the precision may bring it
    first_as_host: bool
    largest_difference: float
    preprocess_ns: int


def test_photos(context: Context, remote: Remote, trial: Trial) -> None:
    """The device names photos as the host does; how many rightly is measured."""
    read = context.model(trial.model)
    if read.formation is None:
        pytest.skip(f"{trial.model.name} takes no pictures")
    photos = context.photos[:1] if trial.model.seeded else context.photos
    classes = class_numbers(read, photos) if _named(context, trial, read) else {}
    engine = FastEngine(read)
    answers: list[Answer] = []
    for batch in _batches(photos):
        for (photo, picture), record in zip(batch, _classify(context, remote, trial, batch), strict=True):
            context.doing(f"{trial.id}: photo {len(answers) + 1} of {len(photos)} on the host")
            probabilities = engine.probabilities(picture, patches=trial.model.patches, crop=context.job.crop)
            same, distance = same_top(record.top, probabilities)
            first = record.top[0].id == int(probabilities.argmax())
            allowed = same or same_top(record.top, probabilities, reach(probabilities, trial.precision))[0]
            expected = classes.get(photo.wnid, -1)
            answers.append(Answer(photo, expected, record.top, same, allowed, first, distance, record.preprocess_ns))
            if len(photos) <= SHOWN_ANSWERS or not allowed:
                _emit_answer(context, trial, read, answers[-1], probabilities)
    _emit_all(context, trial, answers)
    unlike = [answer.photo.name for answer in answers if not answer.in_reach]
    assert not unlike, f"{len(unlike)} of {len(answers)} photos are named otherwise than on the host, first {unlike[0]}"


def _named(context: Context, trial: Trial, read: Model) -> bool:
    """Whether the model's answers can be right: a seeded one's cannot, nor those of one without these classes."""
    if trial.model.seeded:
        return False
    known = {label.id for label in read.labels}
    return context.job.photos is not None or all(photo.wnid in known for photo in context.photos)


def class_numbers(model: Model, photos: Sequence[Photo]) -> dict[str, int]:
    """Class of each photo's id in the model's own label order. Raises InventoryError for an id it does not know."""
    order = {label.id: number for number, label in enumerate(model.labels)}
    unknown = sorted({photo.wnid for photo in photos} - order.keys())
    if unknown:
        raise InventoryError(
            f"photos: {model.name} has no class {', '.join(unknown[:3])}; name the folders by its label ids, such as "
            f"{', '.join(list(order)[:2]) or '(it has no labels)'}"
        )
    return {photo.wnid: order[photo.wnid] for photo in photos}


def reach(probabilities: F32, precision: Precision) -> float:
    """How far apart, relatively, two of the host's probabilities may be whose classes a precision may swap.

    Each of the two values before softmax may have drifted by agreement's bound, of the largest about their mean.
    """
    if precision == "fp32":
        return NEAR
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    largest = float(np.abs(logs - logs.mean()).max())
    return 1 - math.exp(-2 * DRIFT_BOUNDS[precision] * largest)


def same_top(top: Sequence[TopClass], probabilities: F32, near: float = NEAR) -> tuple[bool, float]:
    """Whether a list of classes is the host's, near ties aside; and a probability's largest relative difference."""
    if any(not 0 <= answer.id < probabilities.size for answer in top):
        return False, float("inf")
    ranking = np.argsort(-probabilities, kind="stable")[: len(top)]
    same = len({answer.id for answer in top}) == len(top)
    worst = 0.0
    for answer, host in zip(top, ranking, strict=True):
        here, there = float(probabilities[host]), float(probabilities[answer.id])
        same = same and bool(answer.id == host or abs(here - there) <= near * max(here, there))
        worst = max(worst, abs(answer.probability - there) / max(there, 1e-12))
    return same, worst


def _batches(photos: Sequence[Photo]) -> Iterator[list[tuple[Photo, U8]]]:
    """Decoded photos in batches of at most about BATCH_BYTES."""
    batch: list[tuple[Photo, U8]] = []
    size = 0
    for photo in photos:
        picture = read_picture(photo.path)
        if batch and size + picture.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((photo, picture))
        size += picture.size
    yield batch


def _classify(context: Context, remote: Remote, trial: Trial, batch: Sequence[tuple[Photo, U8]]) -> list[PictureRecord]:
    ids = [f"{number}" for number in range(len(batch))]
    local = context.job.work / "photos.batch"
    write_batch(local, [(name, picture) for name, (_, picture) in zip(ids, batch, strict=True)])
    context.doing(f"{trial.id}: sending {len(batch)} photos")
    sent = remote.send("photos.batch", local)
    local.unlink()
    done = 0

    def show(_: Record) -> None:
        nonlocal done
        done += 1
        context.doing(f"{trial.id}: photo {done} of {len(batch)} on the device")

    options = [*trial.options, *(["--crop", context.job.crop] if context.job.crop != "center" else [])]
    records = remote.program.classify(
        remote.packed(trial.model),
        sent,
        top=TOP,
        patches=trial.model.patches,
        options=options,
        on_record=show,
        timeout_s=TIMEOUT_S,
    )
    if [record.id for record in records] != ids:
        raise ProgramError(
            f"{context.job.device.name}: classify answered {len(records)} pictures, not the {len(ids)} sent"
        )
    short = [record.id for record in records if len(record.top) != TOP]
    if short:
        raise ProgramError(f"{context.job.device.name}: classify gave not {TOP} classes for picture {short[0]}")
    return records


def _emit_answer(context: Context, trial: Trial, read: Model, answer: Answer, probabilities: F32) -> None:
    names = [label.name for label in read.labels] or [f"class {number}" for number in range(probabilities.size)]
    said = ", ".join(f"{names[top.id].split(',')[0]} {100 * top.probability:.0f} %" for top in answer.top[:3])
    host = ", ".join(f"{number}" for number in np.argsort(-probabilities, kind="stable")[:TOP])
    context.emit(
        "photo",
        Status.PASS if answer.as_host else Status.DONE if answer.in_reach else Status.FAIL,
        trial=trial,
        subject=answer.photo.name,
        message="" if answer.as_host else f"the host says classes {host}",
        attributes={
            "expected": names[answer.expected] if answer.expected >= 0 else None,
            "as_expected": answer.top[0].id == answer.expected,
            "top5": "answers of a seeded model mean nothing" if trial.model.seeded else said,
            "ids": ", ".join(str(top.id) for top in answer.top),
            "largest_difference": answer.largest_difference if np.isfinite(answer.largest_difference) else None,
        },
    )


def _agreement(trial: Trial, answers: Sequence[Answer]) -> Status:
    """A figure where the precision may change answers, else a check; beyond its reach a failure in any case."""
    if not all(answer.in_reach for answer in answers):
        return Status.FAIL
    return Status.PASS if trial.precision == "fp32" else Status.DONE


def _emit_all(context: Context, trial: Trial, answers: Sequence[Answer]) -> None:
    count = len(answers)
    about: dict[str, Attribute] = {
        "photos": count,
        "photos_sha256": context.photos_sha256,
        "crop": context.job.crop,
        "patches": trial.model.patches,
        "threads": 1,
    }
    agreeing = sum(answer.as_host for answer in answers)
    context.emit(
        "top5_agreement",
        _agreement(trial, answers),
        trial=trial,
        value=agreeing,
        attributes=about | {"near": NEAR, "first_as_host": sum(answer.first_as_host for answer in answers)},
    )
    samples = [answer.preprocess_ns for answer in answers]
    context.emit("preprocess_ns", trial=trial, value=median(samples), samples=samples, attributes=about)
    if any(answer.expected < 0 for answer in answers):
        return
    first = sum(answer.top[0].id == answer.expected for answer in answers)
    if not context.claims_accuracy:
        context.emit("demo", trial=trial, value=first, attributes=about)
        return
    five = sum(answer.expected in {top.id for top in answer.top} for answer in answers)
    for metric, right in (("top1", first), ("top5", five)):
        low, high = interval(right, count)
        context.emit(
            metric,
            trial=trial,
            value=right / count,
            attributes=about
            | {"right": right, "low": low, "high": high}
            | {"interval": "Wilson, 95 %", "claim_from": CLAIM_FROM},
        )
