"""Files of this computer on their way to or from a device: what fails here is told from what fails there.

Transport libraries report a lost connection as an OSError, and so does Python a full disk. A LocalFile turns the
latter into errors of ours where they arise, so that no device is blamed for them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from device_tests.errors import InventoryError, SetupError


class LocalFile:
    """An open file whose read() raises InventoryError and whose write() raises SetupError; `device` is for messages."""

    def __init__(self, device: str, path: Path, stream: BinaryIO) -> None:
        self._device, self._path, self._stream = device, path, stream

    @property
    def size(self) -> int:
        """Bytes that it has now."""
        return os.fstat(self._stream.fileno()).st_size

    def read(self, count: int) -> bytes:
        """At most `count` bytes, b"" at the end."""
        try:
            return self._stream.read(count)
        except OSError as error:
            raise cannot_read(self._device, self._path, error) from error

    def write(self, data: bytes) -> int:
        """Writes all of `data`."""
        try:
            return self._stream.write(data)
        except OSError as error:
            raise cannot_write(self._device, self._path, error) from error


@contextlib.contextmanager
def reading(device: str, path: Path) -> Iterator[LocalFile]:
    """A file that is going to a device."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise cannot_read(device, path, error) from error
    with stream:
        yield LocalFile(device, path, stream)


@contextlib.contextmanager
def writing(device: str, path: Path, mode: int = 0o644) -> Iterator[LocalFile]:
    """A file that comes from a device: whole at the end of the block, untouched where the block or the disk fails."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            stream = part.open("wb")
        except OSError as error:
            raise cannot_write(device, path, error) from error
        try:
            yield LocalFile(device, path, stream)
        except BaseException:
            with contextlib.suppress(OSError):  # what the buffer still holds finds no room either
                stream.close()
            raise
        try:
            stream.close()
            part.chmod(mode)
            part.replace(path)
        except OSError as error:
            raise cannot_write(device, path, error) from error
    finally:
        part.unlink(missing_ok=True)


def cannot_read(device: str, path: Path, error: OSError) -> InventoryError:
    """A file of this computer that was to be sent."""
    return InventoryError(f"{device}: cannot read {path}: {error.strerror or error}")


def cannot_write(device: str, path: Path, error: OSError) -> SetupError:
    """A file of this computer that was to be fetched."""
    return SetupError(
        f"{device}: cannot write {path} on this computer: {error.strerror or error}; mend that and try again"
    )
