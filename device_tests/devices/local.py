"""What the kinds that run programs on this computer share: a folder as the device's disk, deadlines, output limits."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from device_tests.devices.base import Completed
from device_tests.devices.local_file import LocalFile, reading, writing
from device_tests.devices.spec import DeviceSpec, remote_below
from device_tests.devices.text import Collector, Limits, printable
from device_tests.errors import DeadlineError, DeviceError, NoSpaceError
from device_tests.processes import leash

_ENOSPC = (28, 122)  # ENOSPC, and EDQUOT on Linux: full for us
GRACE_S = 1.0  # how long output may still come after the program itself has ended


class LocalDevice:
    """A device whose disk is a folder of this computer. A kind says by _command() how a program is started."""

    def __init__(self, spec: DeviceSpec, *, emulated: bool, limits: Limits | None = None) -> None:
        self._spec, self._emulated = spec, emulated
        self._limits = limits or Limits()
        folder = spec.cache / "devices" / spec.name
        self._root = PurePosixPath(folder.resolve().as_posix())
        self._open = False

    @property
    def name(self) -> str:
        """Name in the inventory."""
        return self._spec.name

    @property
    def kind(self) -> str:
        """The kind's name in the inventory."""
        return self._spec.kind

    @property
    def target(self) -> str:
        """What its program is compiled for."""
        return self._spec.target

    @property
    def emulated(self) -> bool:
        """Whether times come from an emulator."""
        return self._emulated

    @property
    def root(self) -> PurePosixPath:
        """The folder that plays the disk: an absolute path on this computer."""
        return self._root

    def describe(self, argv: Sequence[str]) -> str:
        """The command line of this computer that runs argv."""
        return shlex.join(self._command(argv))

    def describe_put(self, local: Path, remote: PurePosixPath) -> str:
        """The mkdir and cp commands of this computer that do the same."""
        return f"{shlex.join(['mkdir', '-p', str(remote.parent)])} && {shlex.join(['cp', str(local), str(remote)])}"

    def open(self) -> None:
        """Makes the folder."""
        Path(self._root).mkdir(parents=True, exist_ok=True)
        self._open = True

    def close(self) -> None:
        """Nothing is held; the folder stays, as a disk does."""
        self._open = False

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """Runs a program of the folder; the whole process group ends with it. See Device.run."""
        self._require_open()
        started = time.monotonic_ns()
        if not argv or not Path(argv[0]).is_file() or not os.access(argv[0], os.X_OK):
            what = printable(argv[0] if argv else "", 120)
            return Completed(tuple(argv), 127, b"", f"{what}: not found\n".encode(), 0)
        collector = Collector(self.name, on_stdout, self._limits)
        command = self._command(argv)
        process = subprocess.Popen(
            [*leash(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._root,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._root), "LC_ALL": "C"},
            start_new_session=True,
        )
        try:
            self._pump(process, command, collector, time.monotonic() + timeout_s, timeout_s)
            status = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # children that outlived it, and itself where we gave up
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        stdout, stderr = collector.finish()
        status = status if status >= 0 else 128 - status
        return Completed(tuple(argv), status, stdout, stderr, time.monotonic_ns() - started)

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """Copies a file into the folder, whole or absent."""
        self._require_open()
        target = Path(remote_below(self._root, remote))
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(self.name, local, target, 0o755 if executable else 0o644, timeout_s, to_device=True)

    def get(self, remote: PurePosixPath, local: Path, *, timeout_s: float) -> None:
        """Copies a file out of the folder, whole or absent."""
        self._require_open()
        _copy(self.name, Path(remote_below(self._root, remote)), local, 0o644, timeout_s, to_device=False)

    def make_folder(self, remote: PurePosixPath, *, timeout_s: float) -> None:  # noqa: ARG002 - a local call
        """Makes a folder and those above it."""
        self._require_open()
        Path(remote_below(self._root, remote)).mkdir(parents=True, exist_ok=True)

    def remove(self, remote: PurePosixPath, *, timeout_s: float) -> None:  # noqa: ARG002 - a local call
        """Removes a file or a folder."""
        self._require_open()
        path = Path(remote_below(self._root, remote))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _command(self, argv: Sequence[str]) -> list[str]:
        """The command line of this computer that runs a program of the device."""
        return list(argv)

    def _require_open(self) -> None:
        if not self._open:
            raise DeviceError(f"{self.name}: the device is not open; open() it first")

    def _pump(
        self,
        process: subprocess.Popen[bytes],
        command: Sequence[str],
        collector: Collector,
        deadline: float,
        timeout_s: float,
    ) -> None:
        """Moves output to the collector until both streams end, or the program ended and GRACE_S passed."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, collector.take_stdout)
            selector.register(process.stderr, selectors.EVENT_READ, collector.take_stderr)
            ended: float | None = None
            while selector.get_map():
                for key, _ in selector.select(min(0.2, max(0.0, deadline - time.monotonic()))):
                    data = os.read(key.fd, 65536)
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if ended is None and process.poll() is not None:
                    ended = now
                if ended is not None and now > ended + GRACE_S:
                    return  # a child of the program still holds the pipe
                if now > deadline and ended is None:
                    raise DeadlineError(_deadline_text(self.name, command, timeout_s))
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(_deadline_text(self.name, command, timeout_s)) from error


def _deadline_text(name: str, command: Sequence[str], timeout_s: float) -> str:
    return f"{name}: no end after {timeout_s:g} s, so it was killed: {printable(' '.join(command), 200)}"


def _copy(name: str, source: Path, target: Path, mode: int, timeout_s: float, *, to_device: bool) -> None:
    """Copies by a temporary file beside the target; each side's failures are told as those of its own place."""
    deadline = time.monotonic() + timeout_s

    def pour(reader: LocalFile | BinaryIO, writer: LocalFile | BinaryIO) -> None:
        while piece := reader.read(1 << 20):
            writer.write(piece)
            if time.monotonic() > deadline:
                raise DeadlineError(f"{name}: copying {source.name} took more than {timeout_s:g} s")

    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        if to_device:
            with reading(name, source) as reader, part.open("wb") as there:
                pour(reader, there)
            part.chmod(mode)
            part.replace(target)
        else:
            with source.open("rb") as stored, writing(name, target, mode) as writer:
                pour(stored, writer)
    except OSError as error:
        if error.errno in _ENOSPC:
            raise NoSpaceError(f"{name}: no room left on the device for {target}; free some and try again") from error
        raise DeviceError(f"{name}: cannot copy {source} to {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
