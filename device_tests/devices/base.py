"""What suites and deployment ask of a device, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """A remote command that ended by itself. Output is bytes: nothing a device says is trusted."""

    argv: tuple[str, ...]
    exit_status: int  # 128 + signal number where a signal ended it; 127 where the program is not there
    stdout: bytes
    stderr: bytes
    wall_ns: int  # seen from here, transport included


class Device(Protocol):
    """One thing that runs our program. Methods raise DeviceError kinds, never transport libraries' errors."""

    @property
    def name(self) -> str:
        """Name in the inventory."""

    @property
    def kind(self) -> str:
        """How it is reached: ssh, board, qemu-user, fake."""

    @property
    def target(self) -> str:
        """What its program is compiled for: linux-aarch64, ios, ..."""

    @property
    def emulated(self) -> bool:
        """True where times come from an emulator: they are marked so and never compared with hardware's."""

    @property
    def root(self) -> PurePosixPath:
        """The folder on the device that is ours."""

    def describe(self, argv: Sequence[str]) -> str:
        """The command line with which a person would run argv there, for --dry-run; touches nothing."""

    def describe_put(self, local: Path, remote: PurePosixPath) -> str:
        """The command line with which a person would copy a file there, for --dry-run; touches nothing."""

    def open(self) -> None:
        """Connects (boots, where the kind boots); no-op when open."""

    def close(self) -> None:
        """Disconnects and frees what open() took; no-op when closed."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """Runs argv (no shell sees it unquoted); raises DeadlineError after timeout_s, having killed it.

        on_stdout gets every line as it comes, its newline included; only a last, torn line has none. What it raises
        ends the command and comes out of run(). Output beyond text.Limits is a DeviceError.
        """

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """Copies a file to the device under a temporary name and renames it: whole or absent, never half.

        Missing folders above `remote`, which lies below root, are made.
        """

    def get(self, remote: PurePosixPath, local: Path, *, timeout_s: float) -> None:
        """Copies a file from the device, whole or absent."""

    def make_folder(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """Makes a folder below root and those above it; no-op where it exists."""

    def remove(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """Removes a file or a whole folder below root; no-op where nothing is there."""
