"""Bytes from a device become lines within limits and text that is safe on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_tests.errors import DeviceError
from reports.words import visible


def shown(message: str) -> str:
    """A message of any number of lines as it may go to a terminal: each line is escaped, line ends and tabs stay."""
    return "\n".join(visible(line.expandtabs()) for line in message.split("\n"))


def printable(text: str | bytes, limit: int = 400) -> str:
    """One line for a message: escaped, of at most about `limit` characters, blanks at its ends left out."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    return visible(text[:limit].strip()) + (" …" if len(text) > limit else "")


def tail(text: bytes, lines: int = 12, limit: int = 200) -> str:
    """The last lines of a console or of stderr, each made printable."""
    kept = [line for line in text[-65536:].splitlines() if line.strip()][-lines:]
    return "\n".join("  " + printable(line, limit) for line in kept)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a device may say in one command. Sizes in bytes."""

    line: int = 1 << 20
    stdout: int = 64 << 20
    stderr: int = 1 << 20  # beyond it the beginning is dropped: the end says why something failed


class Collector:
    """Takes a command's output as it comes, cuts stdout into lines and holds both within Limits."""

    def __init__(self, device: str, on_stdout: Callable[[bytes], None] | None, limits: Limits) -> None:
        self._device, self._on_stdout, self._limits = device, on_stdout, limits
        self._stdout, self._stderr, self._line = bytearray(), bytearray(), bytearray()

    def take_stdout(self, data: bytes) -> None:
        """Adds a piece of stdout and passes on the lines that it completes."""
        if len(self._stdout) + len(data) > self._limits.stdout:
            raise DeviceError(
                f"{self._device}: the program wrote more than {self._limits.stdout} bytes to stdout; it was stopped. "
                "This is not what klaus-run does: look at what runs on the device."
            )
        self._stdout += data
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._check_line(len(self._line) + len(piece))
            line = bytes(self._line) + piece + b"\n"
            self._line.clear()
            if self._on_stdout is not None:
                self._on_stdout(line)
        self._check_line(len(self._line) + len(rest))
        self._line += rest

    def take_stderr(self, data: bytes) -> None:
        """Adds a piece of stderr; of too much the end is kept."""
        self._stderr += data
        if len(self._stderr) > self._limits.stderr:
            del self._stderr[: len(self._stderr) - self._limits.stderr]

    def finish(self) -> tuple[bytes, bytes]:
        """Passes on a last line without a newline and returns (stdout, stderr)."""
        if self._line and self._on_stdout is not None:
            self._on_stdout(bytes(self._line))
        self._line.clear()
        return bytes(self._stdout), bytes(self._stderr)

    def _check_line(self, size: int) -> None:
        if size > self._limits.line:
            raise DeviceError(
                f"{self._device}: the program wrote a line of more than {self._limits.line} bytes; it was stopped. "
                "This is not what klaus-run does: look at what runs on the device."
            )
