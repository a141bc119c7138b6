"""What a network says to each of many photos: class probabilities, kept in a journal so that nothing is computed twice.

One folder for each network and way of looking, named by a digest of both; in it a file for each shard, records appended
and flushed photo by photo. A run that was killed goes on where it was, shards fill one folder side by side, and rows of
a table share what their networks share. A record is: SHA-256 of the photo's bytes, probabilities (float32, little-
endian), CRC-32 of both; one that was cut off by a kill is cut away when the file is opened to write.
"""

from __future__ import annotations

import fcntl
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from klaus_runtime import files, forward, images, shapes
from klaus_runtime.engine import Crop, Engine
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, CropFormation, Model

_BATCH = 16  # photos
_DIGEST_BYTES, _CHECK_BYTES = 32, 4
_MAX_JOURNAL_BYTES = 1 << 34
_CODE = ("evaluate", "forward", "images", "model", "native", "reference", "resample")


@dataclass(frozen=True, slots=True)
class Asked:
    """How photos are looked at."""

    engine: str  # its name, and what else decides its rounding
    patches: Literal[1, 10]
    crop: Crop


def fingerprint(model: Model) -> str:
    """Digest of all that decides a network's answers: layers with their weights, input, formation; not its names."""
    digest = hashlib.sha256()
    _feed(digest.update, (model.input_shape, model.layers, model.formation))
    return digest.hexdigest()


def code(*more: Path) -> str:
    """Digest of the code that computes answers, and of files beside it (a library): a changed engine asks anew."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*(here / f"{name}.py" for name in _CODE), *more):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], value: object) -> None:
    if isinstance(value, np.ndarray):
        update(f"array {value.dtype.str} {value.shape} ".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif is_dataclass(value):
        update(f"{type(value).__name__} ".encode())
        for field in fields(value):
            update(f"{field.name} ".encode())
            _feed(update, getattr(value, field.name))
    elif isinstance(value, tuple):
        update(f"tuple {len(value)} ".encode())
        for item in value:
            _feed(update, item)
    else:
        update(f"{value!r} ".encode())


class Journal:
    """Answers on disk, by photo. Without a folder they last as long as the object."""

    def __init__(self, folder: Path | None, model: Model, asked: Asked) -> None:
        """Reads what is there. Raises InputError where the folder cannot be read."""
        self._outputs = shapes.outputs(model)
        self._known: dict[bytes, F32] = {}
        key = hashlib.sha256(f"{fingerprint(model)} {asked!r}".encode()).hexdigest()[:24]
        self.folder = None if folder is None else folder / key
        if self.folder is not None and self.folder.is_dir():
            for path in sorted(self.folder.glob("*.answers")):
                for photo, answer in self._records(files.read_bytes(path, _MAX_JOURNAL_BYTES)):
                    self._known[photo] = answer

    @property
    def _record_bytes(self) -> int:
        return _DIGEST_BYTES + 4 * self._outputs + _CHECK_BYTES

    def _records(self, data: bytes) -> Iterator[tuple[bytes, F32]]:
        for begin in range(0, len(data) - self._record_bytes + 1, self._record_bytes):
            body = data[begin : begin + self._record_bytes - _CHECK_BYTES]
            (check,) = struct.unpack_from("<I", data, begin + len(body))
            if check == zlib.crc32(body):
                yield body[:_DIGEST_BYTES], np.frombuffer(body[_DIGEST_BYTES:], "<f4").astype(np.float32)

    def get(self, photo: bytes) -> F32 | None:
        """The answer to the photo of this digest, None where it was not asked yet."""
        return self._known.get(photo)

    @contextmanager
    def writer(self, shard: tuple[int, int]) -> Iterator[Callable[[bytes, F32], None]]:
        """Yields put(digest of a photo, answer). Raises InputError where another run writes the same shard."""
        if self.folder is None:
            yield self._known.__setitem__
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{shard[0]}-of-{shard[1]}.answers").open("ab") as file:
                self._lock(file)
                file.truncate(file.tell() // self._record_bytes * self._record_bytes)

                def put(photo: bytes, answer: F32) -> None:
                    body = photo + answer.astype("<f4").tobytes()
                    file.write(body + struct.pack("<I", zlib.crc32(body)))
                    file.flush()
                    self._known[photo] = answer

                yield put
        except OSError as error:
            raise InputError(f"{self.folder}: cannot keep answers there ({files.reason(error)})") from error

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{file.name}: another run is writing it: wait for its end, or take --shard K/N"
            ) from error


def ask(
    model: Model,
    engine: Callable[[], Engine],
    photos: Sequence[Path],
    asked: Asked,
    *,
    journal: Journal,
    shard: tuple[int, int] = (1, 1),
    after: Callable[[int], None] = lambda _done: None,
) -> tuple[list[int], F32]:
    """(numbers of the photos that have an answer, their probabilities (n, outputs)).

    Computes photos shard[0], shard[0] + shard[1], ... that the journal does not know; those of other shards are
    included where their answers are there. `engine` is made only if something is to be computed; after(photos done) is
    called now and then. Raises InputError for photos that cannot be read or answered.
    """
    digests = [hashlib.sha256(files.read_bytes(path, images.MAX_FILE_BYTES)).digest() for path in photos]
    mine = list(range(shard[0] - 1, len(photos), shard[1]))
    missing = [number for number in mine if journal.get(digests[number]) is None]
    after(len(mine) - len(missing))
    if missing:
        with journal.writer(shard) as put:
            ready = engine()
            for begin in range(0, len(missing), _BATCH):
                batch = missing[begin : begin + _BATCH]
                for number, answer in zip(
                    batch, _answers(model, ready, [photos[n] for n in batch], asked), strict=True
                ):
                    put(digests[number], answer)
                after(len(mine) - len(missing) + begin + len(batch))
    found = {number: known for number, digest in enumerate(digests) if (known := journal.get(digest)) is not None}
    return list(found), np.array(list(found.values()), np.float32)


def _answers(model: Model, engine: Engine, photos: Sequence[Path], asked: Asked) -> list[F32]:
    pictures = [images.read_picture(path) for path in photos]
    if asked.patches == 1 and isinstance(model.formation, CropFormation):
        tensors = np.stack([images.form(model, picture, asked.crop) for picture in pictures])
        return [forward.average(model, row[None]) for row in engine.logits(tensors)]
    return [engine.probabilities(picture, patches=asked.patches, crop=asked.crop) for picture in pictures]
