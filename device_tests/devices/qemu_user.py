"""Kind `qemu-user`: the program runs on this computer under qemu's user mode. Fast to start, right for CI."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_tests.devices import counting
from device_tests.devices.local import LocalDevice
from device_tests.devices.spec import DeviceSpec, Key, check_word
from device_tests.errors import InventoryError, SetupError

TARGET: str | None = "linux-aarch64"
KEYS: Mapping[str, Key] = {
    "cpu": Key(str, "the core to emulate (default cortex-a76; cortex-a7 for linux-armv7)", check=check_word),
    "count": Key(bool, "count executed instructions by class (64-bit only; slower by half)"),
}

# The emulator and the core for each target that user mode can run.
_EMULATORS = {"linux-aarch64": ("aarch64", "cortex-a76"), "linux-armv7": ("arm", "cortex-a7")}


def find_emulator(target: str) -> Path | None:
    """Debian calls it qemu-aarch64-static or qemu-aarch64; either will do."""
    arch = _EMULATORS[target][0]
    found = shutil.which(f"qemu-{arch}-static") or shutil.which(f"qemu-{arch}")
    return Path(found) if found else None


def missing_packages() -> list[str]:
    """Debian packages that this kind needs and this computer lacks."""
    return [] if all(find_emulator(target) for target in _EMULATORS) else ["qemu-user-static"]


def make(spec: DeviceSpec) -> QemuUserDevice:
    """A closed device."""
    if spec.target not in _EMULATORS:
        raise InventoryError(
            f"{spec.source}: device {spec.name}: qemu's user mode runs {' or '.join(_EMULATORS)}, not {spec.target}"
        )
    if spec.flag("count") and spec.target != "linux-aarch64":
        raise InventoryError(f"{spec.source}: device {spec.name}: instructions of linux-aarch64 alone can be counted")
    return QemuUserDevice(spec)


class QemuUserDevice(LocalDevice):
    """Programs of a local folder, run by qemu-aarch64 or qemu-arm."""

    def __init__(self, spec: DeviceSpec) -> None:
        super().__init__(spec, emulated=True)
        self.cpu = spec.text("cpu", _EMULATORS[spec.target][1])
        self._emulator: Path | None = None
        self.counts = spec.flag("count")
        self._plugin = counting.plugin_path(spec.cache) if self.counts else None
        self._counts_file = Path(self.root) / "instructions.tsv"

    def open(self) -> None:
        """Finds the emulator and makes the folder, and the instruction counter where one is wanted."""
        if self.counts:
            self._make_counter()
        self._emulator = counting.find_emulator() if self.counts else find_emulator(self.target)
        if self._emulator is None:
            raise SetupError(
                f"{self.name}: no qemu-{_EMULATORS[self.target][0]}(-static) on this computer; "
                "install it: sudo apt-get install qemu-user-static"
            )
        super().open()

    def marks(self) -> tuple[counting.Mark, ...]:
        """What the last program executed, mark by mark; the device must count. Raises DeviceError."""
        return counting.read_marks(self._counts_file)

    def _make_counter(self) -> None:
        problem = counting.why_not()
        if problem:
            raise SetupError(f"{self.name}: instructions cannot be counted here: {problem}")
        if "," in f"{self._counts_file}{self._plugin}":
            raise SetupError(f"{self.name}: qemu takes no plugin in a folder with a comma in its name: {self._plugin}")
        counting.build_plugin(self._spec.cache)

    def _command(self, argv: Sequence[str]) -> list[str]:
        emulator = [str(self._emulator or f"qemu-{_EMULATORS[self.target][0]}"), "-cpu", self.cpu]
        if self.counts:
            # Addresses and the stack's random bytes are fixed, so that each run executes exactly the same.
            plugin = f"{self._plugin},out={self._counts_file}"
            emulator = ["setarch", "-R", *emulator, "-seed", "1", "-plugin", plugin]
        return [*emulator, *argv]
