"""Kind `fake`: a local folder that fails on purpose, so that the harness can be tested against every way of failing.

It runs programs compiled for this computer (target `host`). `faults` is a list like "drop@3 full": each fault strikes
once, at the call named by the number after @ (1, the first, by default), and the device then behaves again, except
that a rebooted one has to be opened anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from device_tests.devices.base import Completed
from device_tests.devices.local import LocalDevice
from device_tests.devices.spec import DeviceSpec, Key
from device_tests.errors import DeadlineError, DeviceError, HostKeyError, NoSpaceError

TARGET: str | None = "host"
FOR_TESTS = True

# fault -> the method whose calls are counted
FAULTS: Mapping[str, str] = {
    "refuse": "open",  # nobody answers
    "hostkey": "open",  # another key than the pinned one
    "drop": "run",  # the connection ends after the first line of output
    "truncate": "run",  # the last line is cut in the middle, the exit status is still 0
    "hang": "run",  # no answer until the deadline (HANG_S at most, so that tests end)
    "reboot": "run",  # the device is gone, and so is what it had in memory
    "hostile": "run",  # terminal escapes and nonsense before the real output
    "full": "put",  # no space left
    "drop-put": "put",  # the connection ends in the middle of a copy
}
HANG_S = 0.2
HOSTILE = b'\x1b]0;owned\x07\x1b[2J{"record":"\x1b[31minfo"}\n\xff\xfe\n'


def _check_faults(value: str) -> str | None:
    for word in value.split():
        name, _, count = word.partition("@")
        if name not in FAULTS or (count and not (count.isdecimal() and 1 <= int(count) <= 10_000)):
            return f"has {word!r}; faults: {', '.join(FAULTS)}, each with an optional @N, the call it strikes at"
    return None


KEYS: Mapping[str, Key] = {"faults": Key(str, 'what goes wrong, and when: e.g. "drop@3 full"', check=_check_faults)}


def make(spec: DeviceSpec) -> FakeDevice:
    """A closed device."""
    return FakeDevice(spec)


class FakeDevice(LocalDevice):
    """A LocalDevice with faults."""

    def __init__(self, spec: DeviceSpec) -> None:
        super().__init__(spec, emulated=True)
        self.calls = {"open": 0, "run": 0, "put": 0}
        self._faults = [
            (name, int(count or "1"))
            for name, _, count in (word.partition("@") for word in spec.text("faults", "").split())
        ]

    def open(self) -> None:
        """See Device.open."""
        if self._open:
            return
        match self._fault("open"):
            case "refuse":
                raise DeviceError(f"{self.name}: connection refused (a fake fault)")
            case "hostkey":
                raise HostKeyError(f"{self.name}: pinned SHA256:AAAA, found SHA256:BBBB (a fake fault)")
        super().open()

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_stdout: Callable[[bytes], None] | None = None
    ) -> Completed:
        """See Device.run."""
        self._require_open()
        fault = self._fault("run")
        if fault == "hang":
            time.sleep(min(timeout_s, HANG_S))
            raise DeadlineError(f"{self.name}: no end after {timeout_s:g} s, so it was killed (a fake fault)")
        if fault == "reboot":
            self._open = False
            raise DeviceError(f"{self.name}: the device went away while a command ran (a fake fault)")
        if fault not in ("drop", "truncate", "hostile"):
            return super().run(argv, timeout_s=timeout_s, on_stdout=on_stdout)
        done = super().run(argv, timeout_s=timeout_s)
        lines = done.stdout.splitlines(keepends=True)
        if fault == "drop":
            lines = lines[:1]
        elif fault == "truncate" and lines:
            lines[-1] = lines[-1][: len(lines[-1]) // 2]
        elif fault == "hostile":
            lines = [*HOSTILE.splitlines(keepends=True), *lines]
        if on_stdout is not None:
            for line in lines:
                on_stdout(line)
        if fault == "drop":
            raise DeviceError(f"{self.name}: the connection was lost while a command ran (a fake fault)")
        return Completed(done.argv, done.exit_status, b"".join(lines), done.stderr, done.wall_ns)

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        """See Device.put."""
        self._require_open()
        match self._fault("put"):
            case "full":
                raise NoSpaceError(f"{self.name}: no room left on the device for {remote} (a fake fault)")
            case "drop-put":
                raise DeviceError(f"{self.name}: the connection was lost while copying {local.name} (a fake fault)")
        super().put(local, remote, executable=executable, timeout_s=timeout_s)

    def _fault(self, method: str) -> str | None:
        """Counts the call and returns the fault that strikes at it."""
        self.calls[method] += 1
        for fault in self._faults:
            if FAULTS[fault[0]] == method and fault[1] == self.calls[method]:
                self._faults.remove(fault)
                return fault[0]
        return None
