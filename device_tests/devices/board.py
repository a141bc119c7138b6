"""Kind `board`: a real Debian arm64 kernel with a real SSH server under qemu's system emulation, on loopback.

It boots in open() and ends in close(), and also when this process dies in whatever way: a shell beside qemu waits for
the end of a pipe that only we hold. Everything it has is in memory, so every boot is a fresh board.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from device_tests.devices import board_image
from device_tests.devices.base import Completed
from device_tests.devices.spec import DeviceSpec, Key, check_word
from device_tests.devices.ssh import SshDevice, Typed
from device_tests.devices.ssh_login import Endpoint
from device_tests.devices.text import tail
from device_tests.errors import DeviceError, SetupError

TARGET: str | None = "linux-aarch64"
KEYS: Mapping[str, Key] = {
    "cpu": Key(str, "the core to emulate: cortex-a53, cortex-a72, cortex-a76 (default), max", check=check_word),
    "cpus": Key(int, "how many cores (2)", minimum=1, maximum=8),
    "memory_mb": Key(int, "memory, the disk included (2048)", minimum=256, maximum=65536),
    "disk_mb": Key(int, "how much of it the disk may take (half)", minimum=1, maximum=65536),
    "boot_timeout_s": Key(float, "how long a boot may take (120)", minimum=1, maximum=3600),
}
ROOT = PurePosixPath("/data/klaus")
_UP = b"BOARD-UP"
_PORT_TRIES = 5

# Starts "$@", kills it when stdin ends, exits as it does.
_GUARD = """exec 3<&0
"$@" </dev/null 3<&- & board=$!
{ cat <&3 >/dev/null; kill -KILL $board; } 2>/dev/null & guard=$!
exec 3<&-
wait $board; status=$?
kill $guard 2>/dev/null
exit $status"""


def make(spec: DeviceSpec) -> BoardDevice:
    """A closed device."""
    return BoardDevice(spec)


def missing_packages() -> list[str]:
    """Debian packages that this kind needs and this computer lacks."""
    return board_image.missing_packages()


class BoardDevice:
    """An emulated computer, seen through its SSH server."""

    def __init__(self, spec: DeviceSpec) -> None:
        self._spec = spec
        self._cache = spec.cache / "board"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._ssh: SshDevice | None = None
        self._console = Path()
        self.image: board_image.BoardImage | None = None  # known once open() has been called

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
        """Its times come from an emulator."""
        return True

    @property
    def root(self) -> PurePosixPath:
        """The folder that is ours, on a disk in memory."""
        return ROOT

    def describe(self, argv: Sequence[str]) -> str:
        """The ssh command that does the same; the port is chosen at boot."""
        return self._ssh.describe(argv) if self._ssh is not None else self._as_typed().run(argv)

    def describe_put(self, local: Path, remote: PurePosixPath) -> str:
        """The ssh and scp commands that do the same."""
        return self._ssh.describe_put(local, remote) if self._ssh is not None else self._as_typed().copy(local, remote)

    def _as_typed(self) -> Typed:
        return Typed("root", "127.0.0.1", "PORT", self._cache / "id_ed25519")

    def boot_command(self, image: board_image.BoardImage, port: int, console: Path) -> list[str]:
        """qemu's command line. Only the forwarded port leads in, and nothing leads out."""
        memory = self._spec.number("memory_mb", 2048)
        disk = self._spec.number("disk_mb", memory // 2)
        return [
            *("qemu-system-aarch64", "-M", "virt", "-cpu", self._spec.text("cpu", "cortex-a76")),
            *("-smp", str(self._spec.number("cpus", 2)), "-m", str(memory)),
            *("-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{console}"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", f"console=ttyAMA0 quiet panic=-1 board.disk_mb={disk}"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-device", "virtio-net-device,netdev=net"),
        ]

    def open(self) -> None:
        """Makes the image if needed, boots and logs in."""
        if self._ssh is not None and self._running():
            self._ssh.open()
            return
        self.close()
        if shutil.which("qemu-system-aarch64") is None:
            raise SetupError(
                f"{self.name}: no qemu-system-aarch64 on this computer; install it: "
                "sudo apt-get install qemu-system-arm (./inv doctor knows other systems)"
            )
        self.image = board_image.build_image(self._cache)
        try:
            self._boot(self.image)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection and the emulator."""
        ssh, self._ssh = self._ssh, None
        if ssh is not None:
            ssh.close()
        qemu, self._qemu = self._qemu, None
        if qemu is not None:
            assert qemu.stdin is not None
            qemu.stdin.close()  # the guard ends qemu and itself
            try:
                qemu.wait(5)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(qemu.pid, signal.SIGKILL)
                qemu.wait()
            self._console.unlink(missing_ok=True)
            self._words.unlink(missing_ok=True)

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """See Device.run."""
        with self._inside() as ssh:
            return ssh.run(argv, timeout_s=timeout_s, on_stdout=on_stdout)

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """See Device.put."""
        with self._inside() as ssh:
            ssh.put(local, remote, executable=executable, timeout_s=timeout_s)

    def get(self, remote: PurePosixPath, local: Path, *, timeout_s: float) -> None:
        """See Device.get."""
        with self._inside() as ssh:
            ssh.get(remote, local, timeout_s=timeout_s)

    def make_folder(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """See Device.make_folder."""
        with self._inside() as ssh:
            ssh.make_folder(remote, timeout_s=timeout_s)

    def remove(self, remote: PurePosixPath, *, timeout_s: float) -> None:
        """See Device.remove."""
        with self._inside() as ssh:
            ssh.remove(remote, timeout_s=timeout_s)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[SshDevice]:
        """The SSH device; a failure tells whether the emulator itself has ended, and its last words."""
        if self._ssh is None:
            raise DeviceError(f"{self.name}: the board is not running; open() it first")
        try:
            yield self._ssh
        except DeviceError as error:
            if self._running():
                raise
            raise DeviceError(f"{error}; the emulator has ended:\n{self._last_words()}") from error

    def _boot(self, image: board_image.BoardImage) -> None:
        timeout_s = self._spec.seconds("boot_timeout_s", 120)
        deadline = time.monotonic() + timeout_s
        folder = self._cache / "run"
        folder.mkdir(parents=True, exist_ok=True)
        port = 0
        for last in (False,) * (_PORT_TRIES - 1) + (True,):
            port = _free_port()
            self._console = folder.resolve() / f"{self.name}.{port}.console"
            self._console.write_bytes(b"")  # the board may say things before we look, and after
            with self._words.open("wb") as words:
                self._qemu = subprocess.Popen(
                    ["sh", "-c", _GUARD, "sh", *self.boot_command(image, port, self._console)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    start_new_session=True,
                )
            if self._wait_up(deadline, timeout_s, retry=not last):
                break
        endpoint = Endpoint(
            host="127.0.0.1",
            port=port,
            user="root",
            pin=image.host_key,
            key_file=image.client_key,
            connect_s=max(5.0, deadline - time.monotonic()),
        )
        self._ssh = SshDevice(self.name, endpoint, target=self.target, root=ROOT, kind=self.kind, emulated=True)
        with self._inside() as ssh:
            ssh.open()

    def _wait_up(self, deadline: float, timeout_s: float, *, retry: bool) -> bool:
        """Waits for the line that init writes when the SSH server listens. False: another took the port; try again."""
        assert self._qemu is not None
        while _UP not in self._console.read_bytes():
            if not self._running():
                said = self._words.read_bytes()
                if retry and b"host forwarding" in said:
                    self.close()
                    return False
                raise DeviceError(
                    f"{self.name}: the emulator ended while it booted (exit code {self._qemu.returncode}):\n"
                    f"{tail(said)}\n{self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"{self.name}: the board did not come up within {timeout_s:g} s; is this computer very busy? "
                    f"(boot_timeout_s in the inventory) The end of its console:\n{self._last_words()}"
                )
            time.sleep(0.05)
        return True

    @property
    def _words(self) -> Path:
        """Where qemu's own messages go."""
        return self._console.with_suffix(".stderr")

    def _running(self) -> bool:
        return self._qemu is not None and self._qemu.poll() is None

    def _last_words(self) -> str:
        """The end of the console, made safe to print."""
        try:
            return tail(self._console.read_bytes()) or "  (the console is empty)"
        except OSError:
            return "  (there is no console)"


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
