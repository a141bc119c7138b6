"""records.jsonl: the one truth of a run, appended, flushed and synced record by record.

A computer that stops in the middle leaves at most one torn last line: reading leaves it out, opening for more cuts it
off. Every other broken line is refused with its number, and so is a journal larger than a run can make.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from reports.record import Record, ReportError

NAME = "records.jsonl"
MAX_LINE_BYTES = 4 << 20
MAX_BYTES = 1 << 30


class JournalError(ReportError):
    """The journal cannot be written: the disk is full or gone. Exit code 3."""

    exit_code = 3


class Journal:
    """The only writer of one run's journal. Use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        """Opens `path` for more records, made where it is absent; cuts off a torn last line."""
        self.path = path
        new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(self._descriptor, _whole_bytes(self._descriptor))
            if new:
                _sync_folder(path.parent)
        except OSError:
            os.close(self._descriptor)
            raise

    def append(self, record: Record) -> None:
        """Writes one record; when this returns, the disk has it."""
        line = record.to_json().encode("ascii") + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ReportError(f"record of {record.metric}: {len(line)} bytes, at most {MAX_LINE_BYTES} fit in a line")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written ({error.strerror}); what was recorded is kept; make room and run again"
            ) from error

    def close(self) -> None:
        """No-op when closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> list[Record]:
    """All records of a journal. Raises ReportError, naming the line, for anything but a torn last line."""
    return list(iterate(path))


def iterate(path: Path) -> Iterator[Record]:
    """Record by record, as `read`, in bounded memory."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ReportError(f"{path}: {size} bytes; a journal has at most {MAX_BYTES}: is it another file?")
        with path.open("rb") as file:
            for number in range(1, MAX_BYTES):
                line = file.readline(MAX_LINE_BYTES + 1)
                if len(line) > MAX_LINE_BYTES:
                    raise ReportError(f"{path}: line {number} is longer than {MAX_LINE_BYTES} bytes: is it a journal?")
                if not line.endswith(b"\n"):
                    return  # the end, or a torn last line
                try:
                    record = Record.from_json(line)
                except ReportError as error:
                    raise ReportError(f"{path}: line {number}: {error}; remove or mend that line") from error
                yield record
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}); name a folder below results/") from error


def _whole_bytes(descriptor: int) -> int:
    """Length up to and including the last line end."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - 65536)
        block = os.pread(descriptor, end - begin, begin)
        found = block.rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
