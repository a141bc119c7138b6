"""Kind `ssh`: any ARM board or jailbroken phone, by paramiko.

ssh_login.py connects and checks the pinned host key before anything else is said; ssh_session.py runs commands.
Files go by SFTP, or through `cat` where the server has none.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from device_tests.devices.base import Completed
from device_tests.devices.local_file import LocalFile, reading, writing
from device_tests.devices.spec import DeviceSpec, Key, OfferedKey, check_remote_path, remote_below
from device_tests.devices.ssh_login import CONNECT_S, Endpoint, check_pin, fingerprint, handshake, log_in, verified
from device_tests.devices.ssh_session import Session
from device_tests.devices.text import Collector, Limits, printable
from device_tests.errors import DeadlineError, DeviceError, InventoryError, NoSpaceError

_LOG = logging.getLogger(__name__)

GET_BYTES = 1 << 31  # no file that we fetch is larger
_CHUNK = 32768
_DISK_FULL = re.compile(rb"no space left|quota exceeded|disc? ?k? full", re.IGNORECASE)

_HOST = re.compile(r"[A-Za-z0-9:](?:[A-Za-z0-9.:%_-]{0,252}[A-Za-z0-9])?")  # names, IPv4, IPv6 with its zone
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PREPARE = 'mkdir -p "$1" && rm -f "$1"/."$2".*.part'
_SHORTER = 65
_FINISH = f'test "$(wc -c <"$1")" -eq "$3" || exit {_SHORTER}; chmod "$4" "$1" && mv -f "$1" "$2"'
_OWN_ROOT = 'mkdir -p "$1" && test -d "$1" && test -O "$1" && test -w "$1"'


def _by(pattern: re.Pattern[str], what: str) -> Callable[[str], str | None]:
    return lambda value: None if pattern.fullmatch(value) else f"is '{printable(value, 60)}', no {what}"


TARGET: str | None = None
KEYS: Mapping[str, Key] = {
    "host": Key(str, "name or address; $THEOS_DEVICE_IP where it is missing", check=_by(_HOST, "host name or address")),
    "port": Key(int, "22 where it is missing", minimum=1, maximum=65535),
    "user": Key(str, "root where it is missing", check=_by(_USER, "user name")),
    "root": Key(str, "the folder on the device that is ours", check=check_remote_path),
    "host_key": Key(str, "the pinned host key; devices.enrol writes it", check=check_pin),
    "key_file": Key(str, "a private key on this computer; the SSH agent where neither this nor password_env is given"),
    "password_env": Key(
        str, "the environment variable that holds the password", check=_by(_VARIABLE, "name of an environment variable")
    ),
    "legacy_ssh": Key(bool, "true lets old phones use ssh-rsa and other SHA-1 algorithms"),
    "connect_timeout_s": Key(float, f"how long a connection may take ({CONNECT_S:g})", minimum=1, maximum=600),
}


def make(spec: DeviceSpec) -> SshDevice:
    """A closed device."""
    host = spec.text("host", "")
    if not host:
        raise InventoryError(
            f"{spec.source}: [devices.{spec.name}]: host is missing; write it there or set THEOS_DEVICE_IP"
        )
    user = spec.text("user", "root")
    if spec.target.startswith("ios"):
        home = "/var/root" if user == "root" else "/var/mobile"
        default_root = f"{home}/klaus"
    else:
        default_root = f"/var/tmp/klaus-{user}"  # noqa: S108 - the device's; open() insists that it is ours
    key_file = spec.text("key_file", "")
    endpoint = Endpoint(
        host=host,
        port=spec.number("port", 22),
        user=user,
        pin=spec.text("host_key", "") or None,
        key_file=Path(key_file).expanduser() if key_file else None,
        password_env=spec.text("password_env", "") or None,
        legacy=spec.flag("legacy_ssh"),
        connect_s=spec.seconds("connect_timeout_s", CONNECT_S),
    )
    root = PurePosixPath(spec.text("root", default_root))
    return SshDevice(spec.name, endpoint, target=spec.target, root=root)


def fetch_host_key(spec: DeviceSpec) -> OfferedKey:
    """The key that the device shows; nothing is sent that only the right device should see."""
    device = make(spec)
    transport, key = handshake(device.name, device.endpoint)
    transport.close()
    return OfferedKey(f"{key.get_name()} {key.get_base64()}", fingerprint(key.asbytes()))


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person would type to do the same by OpenSSH. `port` may be a word, where it is not known yet."""

    user: str
    host: str
    port: str
    key: Path | None

    def run(self, argv: Sequence[str]) -> str:
        """The ssh command."""
        return shlex.join(["ssh", "-p", self.port, *self._key(), f"{self.user}@{self.host}", shlex.join(argv)])

    def copy(self, local: Path, remote: PurePosixPath) -> str:
        """The folder, then the file."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        to = f"{self.user}@{host}:{remote}"
        made = self.run(["mkdir", "-p", str(remote.parent)])
        return f"{made} && {shlex.join(['scp', '-P', self.port, *self._key(), str(local), to])}"

    def _key(self) -> list[str]:
        return ["-i", str(self.key)] if self.key else []


class SshDevice:
    """A device behind an SSH server."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        target: str,
        root: PurePosixPath,
        kind: str = "ssh",
        emulated: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._name, self._kind, self._target, self._root, self._emulated = name, kind, target, root, emulated
        self._limits = limits or Limits()
        self._session: Session | None = None

    @property
    def name(self) -> str:
        """Name in the inventory."""
        return self._name

    @property
    def kind(self) -> str:
        """The kind's name in the inventory."""
        return self._kind

    @property
    def target(self) -> str:
        """What its program is compiled for."""
        return self._target

    @property
    def emulated(self) -> bool:
        """Whether times come from an emulator."""
        return self._emulated

    @property
    def root(self) -> PurePosixPath:
        """The folder on the device that is ours."""
        return self._root

    def describe(self, argv: Sequence[str]) -> str:
        """The ssh command that does the same."""
        return self._as_typed().run(argv)

    def describe_put(self, local: Path, remote: PurePosixPath) -> str:
        """The ssh and scp commands that do the same."""
        return self._as_typed().copy(local, remote)

    def _as_typed(self) -> Typed:
        at = self.endpoint
        return Typed(at.user, at.host, str(at.port), at.key_file)

    def open(self) -> None:
        """Connects, checks the host key, logs in and makes the root folder."""
        if self._session is not None and self._session.transport.is_active():
            return
        self.close()
        if self.endpoint.legacy:
            _LOG.warning("%s: legacy_ssh allows ssh-rsa and SHA-1: use it in networks that you trust", self.name)
        transport = verified(self.name, self.endpoint)
        try:
            log_in(self.name, self.endpoint, transport)
        except BaseException:
            transport.close()
            raise
        transport.set_keepalive(15)
        self._session = Session(self.name, transport)
        try:
            self._own_root()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnects."""
        session, self._session = self._session, None
        if session is not None:
            session.transport.close()

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """See Device.run."""
        started = time.monotonic_ns()
        collector = Collector(self.name, on_stdout, self._limits)
        status, _ = self._connected().exec(argv, timeout_s, stdout=collector.take_stdout, stderr=collector.take_stderr)
        stdout, stderr = collector.finish()
        return Completed(tuple(argv), status, stdout, stderr, time.monotonic_ns() - started)

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """See Device.put. Uses SFTP, or `cat` where the server has none."""
        remote_below(self.root, remote)
        deadline = time.monotonic() + timeout_s
        folder, part = str(remote.parent), str(remote.with_name(f".{remote.name}.{secrets.token_hex(4)}.part"))
        with reading(self.name, local) as source:
            size = source.size
            # Leftovers of a copy that died go first: only one of us uses a device at a time.
            self._shell(_PREPARE, [folder, remote.name], timeout_s, f"cannot make the folder {folder}")
            try:
                self._upload(source, part, deadline, timeout_s)
                self._finish(part, remote, size, "755" if executable else "644", deadline)
            except BaseException:
                with contextlib.suppress(DeviceError):
                    self._connected().exec(["rm", "-f", part], 10)
                raise

    def get(self, remote: PurePosixPath, local: Path, *, timeout_s: float) -> None:
        """See Device.get."""
        remote_below(self.root, remote)
        deadline = time.monotonic() + timeout_s
        with writing(self.name, local) as sink:
            self._download(str(remote), sink, deadline, timeout_s)

    def make_folder(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """See Device.make_folder."""
        remote_below(self.root, remote)
        self._shell('mkdir -p "$1"', [str(remote)], timeout_s, f"cannot make the folder {remote}")

    def remove(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """See Device.remove."""
        remote_below(self.root, remote)
        self._shell('rm -rf "$1"', [str(remote)], timeout_s, f"cannot remove {remote}")

    def _connected(self) -> Session:
        if self._session is None:
            raise DeviceError(f"{self.name}: not connected; open() it first")
        return self._session

    def _own_root(self) -> None:
        """Makes the root folder; it must be ours alone to write programs into."""
        status, stderr = self._connected().exec(["sh", "-c", _OWN_ROOT, "sh", str(self.root)], self.endpoint.connect_s)
        if status != 0:
            why = printable(stderr) or "it belongs to somebody else"
            raise DeviceError(
                f"{self.name}: cannot use the folder {self.root} as user {self.endpoint.user}: {why}; "
                f"name another below [devices.{self.name}]: root"
            )

    def _finish(self, part: str, remote: PurePosixPath, size: int, mode: str, deadline: float) -> None:
        """Gives a whole copy its mode and its name."""
        argv = ["sh", "-c", _FINISH, "sh", part, str(remote), str(size), mode]
        status, stderr = self._connected().exec(argv, _left(deadline))
        if status != 0:
            why = "it is shorter there" if status == _SHORTER else printable(stderr)
            raise self._copy_error(f"cannot finish {remote}: {why}", str(remote.parent), size, stderr)

    def _shell(self, script: str, words: Sequence[str], timeout_s: float, failure: str) -> None:
        """Runs a script of ours; a failure is a DeviceError, a full disk a NoSpaceError."""
        status, stderr = self._connected().exec(["sh", "-c", script, "sh", *words], timeout_s)
        if status != 0:
            raise self._copy_error(f"{failure}: {printable(stderr)}", str(self.root), 0, stderr)

    def _upload(self, source: LocalFile, part: str, deadline: float, timeout_s: float) -> None:
        """Writes a local file under a temporary name."""
        size = source.size
        with self._connected().guarded(timeout_s, f"copying to {part}") as transport:
            sftp = self._connected().sftp()
            if sftp is not None:
                try:
                    with sftp.open(part, "wb") as sink:
                        sink.set_pipelined(True)
                        while piece := source.read(_CHUNK):
                            sink.write(piece)
                            self._check_deadline(deadline, timeout_s, f"copying to {part}")
                except OSError as error:
                    if not transport.is_active():
                        raise
                    # SFTP 3 has no code for a full disk: it says "Failure".
                    raise self._copy_error(
                        f"cannot write {part}: {printable(str(error))}", str(Path(part).parent), size
                    ) from error
                return
        status, stderr = self._connected().exec(["sh", "-c", 'cat >"$1"', "sh", part], _left(deadline), stdin=source)
        if status != 0:
            raise self._copy_error(f"cannot write {part}: {printable(stderr)}", str(Path(part).parent), size, stderr)

    def _download(self, remote: str, sink: LocalFile, deadline: float, timeout_s: float) -> None:
        """Reads a remote file."""
        with self._connected().guarded(timeout_s, f"copying {remote}"):
            sftp = self._connected().sftp()
            if sftp is not None:
                try:
                    with sftp.open(remote, "rb") as source:
                        expected = source.stat().st_size or 0
                        if not stat.S_ISREG(source.stat().st_mode or 0) or expected > GET_BYTES:
                            raise DeviceError(f"{self.name}: {remote} is no file of at most {GET_BYTES} bytes")
                        source.prefetch(expected)
                        count = 0
                        while piece := source.read(_CHUNK):
                            count += sink.write(piece)
                            self._check_deadline(deadline, timeout_s, f"copying {remote}")
                            if count > expected:
                                break
                        if count != expected:
                            raise DeviceError(f"{self.name}: {remote} changed while it was copied; try again")
                except FileNotFoundError as error:
                    raise DeviceError(f"{self.name}: there is no {remote} on the device") from error
                return
        count = 0

        def take(data: bytes) -> None:
            nonlocal count
            count += sink.write(data)
            if count > GET_BYTES:
                raise DeviceError(f"{self.name}: {remote} is larger than {GET_BYTES} bytes")

        script = 'test -f "$1" || exit 66; cat "$1"'
        status, stderr = self._connected().exec(["sh", "-c", script, "sh", remote], _left(deadline), stdout=take)
        if status != 0:
            raise DeviceError(f"{self.name}: cannot read {remote}: {printable(stderr) or 'there is no such file'}")

    def _copy_error(self, what: str, folder: str, size: int, stderr: bytes = b"") -> DeviceError:
        """A NoSpaceError where the device's disk is full, else a DeviceError."""
        full = _DISK_FULL.search(stderr) is not None
        if not full:
            with contextlib.suppress(DeviceError, ValueError, IndexError):
                said = bytearray()
                self._connected().exec(["df", "-Pk", folder], 20, stdout=said.extend)
                full = int(bytes(said).splitlines()[-1].split()[3]) * 1024 < min(size, 1 << 20)
        if full:
            return NoSpaceError(
                f"{self.name}: no room left on the device below {folder} ({what}); free some, e.g. {self.root}"
            )
        return DeviceError(f"{self.name}: {what}")

    def _check_deadline(self, deadline: float, timeout_s: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise DeadlineError(f"{self.name}: {what} took more than {timeout_s:g} s")


def _left(deadline: float) -> float:
    return max(1.0, deadline - time.monotonic())
