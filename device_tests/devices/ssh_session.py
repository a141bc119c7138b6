"""A logged-in SSH connection: commands with deadlines, output and input as they come.

Commands go through the device's POSIX `sh`, every word quoted. Every call has a deadline twice over: a soft one that
kills the remote process and its children, and a hard one that closes the connection where the device does not even
answer to that.
"""

from __future__ import annotations

import contextlib
import re
import select
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import paramiko

from device_tests.devices.local_file import LocalFile
from device_tests.devices.text import printable
from device_tests.errors import DeadlineError, DeviceError

COMMAND_BYTES = 8000  # dropbear takes commands of up to 9000
_HARD_S = 15.0  # how long after the soft deadline the connection is closed
_KILLED_S = 3.0  # how long a killed command may take to be gone
_GRACE_S = 1.0  # how long output may still come after the exit status
_CHUNK = 32768

# The shell tells its process id first, so that the deadline can end it and its children; where sshd gave it no
# process group of its own (dropbear), setsid does, if there is one.
_RUN = 'echo "klaus-pid $$" >&2; "$@"; exit $?'
_START = (
    'if ! kill -0 "-$$" 2>/dev/null && command -v setsid >/dev/null 2>&1; then exec setsid sh -c "$0" sh "$@"; '
    'else exec sh -c "$0" sh "$@"; fi'
)
_KILL = 'kill -KILL "-$1" 2>/dev/null || kill -KILL "$1"'


class Session:
    """The commands of one connection; `name` is the device's, for messages."""

    def __init__(self, name: str, transport: paramiko.Transport) -> None:
        self._name, self.transport = name, transport
        self._sftp: paramiko.SFTPClient | None = None
        self._has_sftp = True  # until the server says no

    def sftp(self) -> paramiko.SFTPClient | None:
        """The connection's one SFTP client, or None where the server has none; to be used inside guarded().

        It stays open: dropbear 2022.83 closes a channel that was just opened when the process of another, already
        closed one ends (seen on the emulated board, about once in twenty copies). For the same reason no channel is
        closed here before its command has ended.
        """
        if self._sftp is None and self._has_sftp:
            try:
                self._sftp = paramiko.SFTPClient.from_transport(self.transport)
            except (paramiko.SSHException, EOFError, OSError):
                if not self.transport.is_active():
                    raise
            self._has_sftp = self._sftp is not None
        return self._sftp

    def without_sftp(self) -> None:
        """Copies through `cat` from now on, as if the server had no SFTP."""
        self._has_sftp, self._sftp = False, None

    def exec(
        self,
        argv: Sequence[str],
        timeout_s: float,
        *,
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
        stdin: LocalFile | None = None,
    ) -> tuple[int, bytes]:
        """Runs argv and returns its exit status and the beginning of its stderr (all of it to `stderr`, if given)."""
        command = "exec " + shlex.join(["sh", "-c", _START, _RUN, *argv])
        if len(command.encode()) > COMMAND_BYTES or "\0" in command:
            raise DeviceError(f"{self._name}: a command of more than {COMMAND_BYTES} bytes: {printable(command, 200)}")
        what = printable(" ".join(argv), 200)
        kept = bytearray()

        def keep(data: bytes) -> None:
            kept.extend(data[: max(0, 65536 - len(kept))])
            if stderr is not None:
                stderr(data)

        with self.guarded(timeout_s, what) as transport:
            deadline = time.monotonic() + timeout_s
            channel = transport.open_session(timeout=timeout_s)
            marker = _PidFilter(keep)
            try:
                channel.exec_command(command.encode())
                status = self._pump(channel, deadline, stdout or (lambda _: None), marker.take, stdin)
                marker.flush()
            except BaseException as error:
                if marker.pid is not None and transport.is_active():
                    self._kill(transport, marker.pid)
                    channel.status_event.wait(_KILLED_S)
                if isinstance(error, TimeoutError):
                    raise DeadlineError(
                        f"{self._name}: no end after {timeout_s:g} s, so it was killed: {what}"
                    ) from error
                raise
            finally:
                channel.close()
            if status == -1:
                raise DeviceError(
                    f"{self._name}: the connection was lost while this ran: {what}"
                    if not transport.is_active()
                    else f"{self._name}: ended without an exit status: {what}"
                )
            return status, bytes(kept)

    def _pump(
        self,
        channel: paramiko.Channel,
        deadline: float,
        stdout: Callable[[bytes], object],
        stderr: Callable[[bytes], object],
        stdin: LocalFile | None,
    ) -> int:
        """Moves data until the command ended; TimeoutError at the deadline. Returns its exit status, -1 for none."""
        ended: float | None = None
        while True:
            busy = False
            if channel.recv_ready():
                stdout(channel.recv(_CHUNK))
                busy = True
            if channel.recv_stderr_ready():
                stderr(channel.recv_stderr(_CHUNK))
                busy = True
            if stdin is not None and not channel.closed:
                piece = stdin.read(_CHUNK)
                channel.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    channel.sendall(piece) if piece else channel.shutdown_write()
                except TimeoutError:
                    raise
                except OSError:  # the command has ended; its status says why
                    piece = b""
                stdin = stdin if piece else None
                continue
            now = time.monotonic()
            if not busy:
                if channel.closed or not channel.get_transport().is_active():
                    break
                if channel.exit_status_ready():
                    ended = ended or now
                    if channel.eof_received or now > ended + _GRACE_S:
                        break
                select.select([channel.fileno()], [], [], min(0.05 if ended else 0.5, max(0.0, deadline - now)))
            if now > deadline and ended is None:
                raise TimeoutError
        return channel.recv_exit_status() if channel.exit_status_ready() else -1

    def _kill(self, transport: paramiko.Transport, pid: int) -> None:
        """Ends a remote process and its group; the hard deadline of the caller bounds this too."""
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            channel = transport.open_session(timeout=5)
            channel.settimeout(5)
            channel.exec_command(shlex.join(["sh", "-c", _KILL, "sh", str(pid)]).encode())
            channel.status_event.wait(_KILLED_S)
            channel.close()

    @contextlib.contextmanager
    def guarded(self, timeout_s: float, what: str) -> Iterator[paramiko.Transport]:
        """The transport, with the hard deadline around it and its library's errors made ours."""
        transport = self.transport
        if not transport.is_active():
            raise DeviceError(f"{self._name}: the connection was lost; open() it again")
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            transport.close()

        timer = threading.Timer(max(0.0, timeout_s) + _HARD_S, expire)
        timer.daemon = True
        timer.start()
        try:
            yield transport
        except (paramiko.SSHException, EOFError, OSError) as error:
            if expired.is_set():
                raise DeadlineError(
                    f"{self._name}: no answer within {timeout_s + _HARD_S:g} s; the connection was closed: {what}"
                ) from error
            said = printable(str(error)) or type(error).__name__
            raise DeviceError(f"{self._name}: the connection was lost while this ran ({said}): {what}") from error
        finally:
            timer.cancel()


class _PidFilter:
    """Takes the line `klaus-pid N` out of stderr and passes on the rest."""

    _LINE = re.compile(rb"^klaus-pid ([0-9]{1,10})\r?\n", re.MULTILINE)

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink, self._held = sink, bytearray()
        self.pid: int | None = None
        self._done = False

    def take(self, data: bytes) -> None:
        """Adds a piece of stderr."""
        if self._done:
            self._sink(data)
            return
        self._held += data
        found = self._LINE.search(self._held)
        if found is not None and int(found[1]) > 1:
            self.pid = int(found[1])
            del self._held[found.start() : found.end()]
        if self.pid is not None or len(self._held) > 65536:
            self.flush()

    def flush(self) -> None:
        """Passes on what was held back."""
        self._done = True
        if self._held:
            self._sink(bytes(self._held))
            self._held.clear()
