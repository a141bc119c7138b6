"""Where runs leave what they found: a new folder for each, and files in it that are whole or not there."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from device_tests.errors import SetupError
from klaus_runtime import files
from klaus_runtime.errors import InputError


def new_folder(results: Path) -> Path:
    """A run's folder below `results`; its name is the run's, and names sort by time. Raises SetupError."""
    folder = results / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SetupError(
            f"{folder}: results cannot be written there ({files.reason(error)}); give a writable folder"
        ) from error
    return folder


def write_text(path: Path, text: str) -> None:
    """A file in UTF-8. Raises SetupError where it cannot be written; what stood there stands there then."""
    try:
        files.write_bytes(path, text.encode())
    except InputError as error:
        raise SetupError(f"{error}; make room and try again") from error
