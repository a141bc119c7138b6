"""Fetching a model's files by HTTP or from a folder: resumed, bounded in time and size, checked by git blob id.

A file that a git repository holds is named by its blob id, SHA-1 over "blob SIZE", a zero byte and the content: with
the id known beforehand it does not matter who delivers the file. What is not whole yet waits as .NAME.part.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from klaus_runtime import files
from klaus_runtime.errors import InputError, SetupError

MAX_FILE_BYTES = 1 << 27  # of a file whose size is not known beforehand
_CHUNK_BYTES = 1 << 16
_TRIES = 5  # in a row that bring nothing new
_RETRIED_STATUS = (408, 429, 500, 502, 503, 504)

# (file name, bytes so far, bytes in all or None)
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file and what it must be."""

    name: str
    blob_id: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Remote:
    """Files that stand under one URL."""

    base_url: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server."""

    stall_s: float = 30.0  # without a byte
    file_s: float = 1800.0  # for one file, all tries together
    pause_s: float = 1.0  # before the first retry; doubled each time


def blob_id(data: bytes | memoryview) -> str:
    """Git's name for a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def fetch_files(
    remote: Remote,
    folder: Path,
    *,
    mirror: str | None = None,
    patience: Patience | None = None,
    progress: Progress = lambda _name, _have, _total: None,
) -> tuple[Path, ...]:
    """The files in `folder`; those that are there and right are left alone.

    mirror: another URL that the names are appended to, or a local folder. Raises InputError for a mirror that is
    neither, SetupError where a file cannot be had or is not the pinned one: such a file is never kept.
    """
    base = mirror or remote.base_url
    scheme = urlsplit(base).scheme
    local = Path(base) if scheme not in ("http", "https") else None
    if local is not None and not local.is_dir():
        raise InputError(f"{base}: is no folder and no http or https URL: give one that holds {remote.files[0].name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in remote.files:
            target = folder / file.name
            if _is_right(target, file):
                progress(file.name, target.stat().st_size, target.stat().st_size)
            elif local is not None:
                _copy(local / file.name, target, file, progress)
            else:
                url = f"{base.rstrip('/')}/{quote(file.name)}"
                _Download(url, file, target, patience or Patience(), progress).run()
    except OSError as error:
        raise SetupError(
            f"{folder}: cannot keep files there ({files.reason(error)}): set KLAUS_CACHE to another folder"
        ) from error
    return tuple(folder / file.name for file in remote.files)


def missing(remote: Remote, folder: Path) -> Sequence[str]:
    """Names of the files that `folder` lacks or has damaged."""
    return [file.name for file in remote.files if not _is_right(folder / file.name, file)]


def _is_right(path: Path, file: RemoteFile) -> bool:
    try:
        size = path.stat().st_size
        if size != (file.size_bytes or size) or size > MAX_FILE_BYTES:
            return False
        return blob_id(path.read_bytes()) == file.blob_id
    except OSError:
        return False


def _copy(source: Path, target: Path, file: RemoteFile, progress: Progress) -> None:
    if not _is_right(source, file):
        what = "is not the pinned file" if source.is_file() else "is not there"
        raise SetupError(f"{source}: {what} (git blob id {file.blob_id}): give another mirror")
    files.write_bytes(target, source.read_bytes())
    progress(file.name, target.stat().st_size, target.stat().st_size)


class _RetryError(Exception):
    """This try failed, the next may not."""


class _Download:
    """One file, over as many tries as it takes."""

    def __init__(self, url: str, file: RemoteFile, target: Path, patience: Patience, progress: Progress) -> None:
        self.url, self.file, self.target, self.patience, self.progress = url, file, target, patience, progress
        self.part = target.with_name(f".{target.name}.part")
        self.limit = file.size_bytes or MAX_FILE_BYTES
        self.deadline = time.monotonic() + patience.file_s

    def run(self) -> None:
        with self.part.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SetupError(f"{self.part}: another fetch is writing it: wait for that one") from error
            resumed = self.part.stat().st_size > 0
            while True:
                self._complete()
                if _is_right(self.part, self.file):
                    break
                found = self.part.stat().st_size
                self._empty()
                if not resumed:
                    raise SetupError(
                        f"{self.url}: sent {found:,} bytes that are not the pinned file (git blob id "
                        f"{self.file.blob_id}): do not use this source, give --mirror"
                    )
                resumed = False  # what stood here from an earlier fetch may have been damaged: once more from the start
            os.fsync(lock.fileno())
            self.part.replace(self.target)

    def _complete(self) -> None:
        """Tries until the server says that all has come."""
        failures = 0
        while True:
            before = self.part.stat().st_size
            try:
                self._transfer(before)
            except _RetryError as error:
                failures = 1 if self.part.stat().st_size > before else failures + 1
                pause = self.patience.pause_s * 2 ** (failures - 1)
                late = time.monotonic() + pause > self.deadline
                if failures >= _TRIES or late:
                    what = f"not within {self.patience.file_s:g} s" if late else f"not in {failures} tries in a row"
                    have = self.part.stat().st_size
                    raise SetupError(
                        f"{self.url}: could not be fetched, {what} ({error}); {have:,} bytes are kept: run it again "
                        "to go on, or give --mirror"
                    ) from error
                time.sleep(pause)
            else:
                return

    def _transfer(self, have: int) -> None:
        """One request from byte `have` on; returns once the file is complete by what the server says."""
        if have >= self.limit:
            return
        headers = {"User-Agent": "klaus", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - fetch_files lets only http(s) in
        try:
            with urllib.request.urlopen(request, timeout=self.patience.stall_s) as response:  # noqa: S310
                if response.status == 200 and have:  # it does not resume
                    self._empty()
                    have = 0
                if response.status == 206 and not _starts_at(response.headers.get("Content-Range", ""), have):
                    self._empty()
                    raise _RetryError("it sent another part than was asked for")
                length = response.headers.get("Content-Length", "")
                total = have + int(length) if length.isascii() and length.isdecimal() else None
                if (total or 0) > self.limit:
                    raise SetupError(f"{self.url}: has {total:,} bytes; {self.limit:,} are expected: give --mirror")
                with self.part.open("ab") as out:
                    have = self._receive(response, out, have, total or self.file.size_bytes)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:  # nothing lies behind what is here: complete, or damaged
                    return
                if error.code not in _RETRIED_STATUS:
                    raise SetupError(
                        f"{self.url}: the server says {error.code} {error.reason}: give --mirror"
                    ) from error
                raise _RetryError(f"the server says {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
            raise _RetryError(ascii(str(error) or type(error).__name__)[1:-1][:200]) from error
        if total is not None and have < total:
            raise _RetryError(f"the connection ended after {have:,} of {total:,} bytes")

    def _receive(self, response: http.client.HTTPResponse, out: IO[bytes], have: int, total: int | None) -> int:
        while chunk := response.read1(_CHUNK_BYTES):
            have += len(chunk)
            if have > self.limit:
                self._empty()
                raise SetupError(f"{self.url}: sends more than the {self.limit:,} bytes expected: give --mirror")
            out.write(chunk)
            self.progress(self.file.name, have, total)
            if time.monotonic() > self.deadline:
                out.flush()
                raise _RetryError("too slow")
        return have

    def _empty(self) -> None:
        os.truncate(self.part, 0)


def _starts_at(content_range: str, position: int) -> bool:
    return content_range.replace(" ", "").startswith(f"bytes{position}-")
