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
    exit_status: int  # 128 + signal number where a signal ended it
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

    def open(self) -> None:
        """Connects (boots, where the kind boots); no-op when open."""

    def close(self) -> None:
        """Disconnects and frees what open() took; no-op when closed."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """Runs argv (no shell sees it unquoted); raises DeadlineError after timeout_s, having killed it."""

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """Copies a file to the device under a temporary name and renames it: whole or absent, never half."""

    def get(self, remote: PurePosixPath, local: Path, *, timeout_s: float) -> None:
        """Copies a file from the device, whole or absent."""
