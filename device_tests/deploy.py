"""Files go to a device once: stored under their SHA-256, verified there, never half.

    ROOT/store/<first 32 hex digits of sha256>/NAME

The device's own `klaus-run hash` says what is there. The program vouches for the others and is therefore first made
to hash itself: a damaged copy either fails to run or gives another digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from device_tests.devices.base import Device
from device_tests.devices.text import printable
from device_tests.errors import DeadlineError, DeviceError, InventoryError, ProgramError
from device_tests.program import Program
from device_tests.program_records import HashRecord

PROGRAM = "klaus-run"
_UNKNOWN = "SHA256"  # stands for a digest in plans
HASH_TIMEOUT_S = 600.0
# A slow phone takes about 1 MB/s, an emulated board 2-5 (facts of the transport), so this never ends a healthy copy.
_SLOWEST_BYTES_PER_S = 200_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")


@dataclass(frozen=True, slots=True)
class Deployed:
    """Where the files are on the device, and what it took."""

    paths: Mapping[str, PurePosixPath]  # by the names given to deploy()
    sent_bytes: int
    skipped_bytes: int  # already there, verified by hash

    @property
    def program(self) -> PurePosixPath:
        """The device program."""
        return self.paths[PROGRAM]


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    local: Path
    remote: PurePosixPath
    sha256: str
    size: int


def deploy(device: Device, files: Mapping[str, Path]) -> Deployed:
    """Brings files to an open device and verifies each there; what is there already is not sent.

    files: name on the device -> local file; "klaus-run" must be among them. Raises DeviceError kinds where the device
    fails or a file arrives damaged, InventoryError for a bad name or an unreadable file.
    """
    if PROGRAM not in files:
        raise InventoryError(f"deploy: {PROGRAM} is not among the files ({', '.join(map(printable, files))})")
    items = _items(device, files)
    sent = 0
    program_item = next(item for item in items if item.name == PROGRAM)
    program = Program(device, program_item.remote)
    present = {PROGRAM} if _vouches(program, program_item) else set()
    if not present:
        _put(device, program_item)
        sent += program_item.size
        _require_program(program, program_item)
    others = [item for item in items if item.name != PROGRAM]
    found = _hashes(program, others)
    missing = [item for item in others if not _matches(found.get(str(item.remote)), item)]
    for item in missing:
        _put(device, item)
        sent += item.size
    found = _hashes(program, missing)
    for item in missing:
        if not _matches(found.get(str(item.remote)), item):
            device.remove(item.remote, timeout_s=60)
            raise DeviceError(
                f"{device.name}: {item.name} arrived damaged (sha256 {item.sha256} was sent, the device has "
                f"{_digest(found.get(str(item.remote)))}); it was removed there; check the device's disk and try again"
            )
    total = sum(item.size for item in items)
    return Deployed({item.name: item.remote for item in items}, sent, total - sent)


@dataclass(frozen=True, slots=True)
class Planned:
    """What deploy() would do: command lines, and where the files would be."""

    lines: tuple[str, ...]
    paths: Mapping[str, PurePosixPath]


def planned(device: Device, files: Mapping[str, Path]) -> Planned:
    """For --dry-run: neither device nor files are touched. The folder of a file that is not made yet is SHA256."""
    made = {item.name: item for item in _items(device, {name: at for name, at in files.items() if at.is_file()})}
    paths = {name: made[name].remote if name in made else _stored(device, _UNKNOWN, name) for name in files}
    copies = [
        f"{device.describe_put(local, paths[name])}  # "
        + (f"{made[name].size} bytes, unless they are there" if name in made else "once it is made, unless it is there")
        for name, local in files.items()
    ]
    check = device.describe([str(paths[PROGRAM]), "hash", *map(str, paths.values())])
    return Planned((*copies, check), paths)


def _stored(device: Device, sha256: str, name: str) -> PurePosixPath:
    return device.root / "store" / sha256[:32] / name


def _items(device: Device, files: Mapping[str, Path]) -> list[_Item]:
    items = []
    for name, local in files.items():
        if _NAME.fullmatch(name) is None:
            raise InventoryError(
                f"deploy: the name '{printable(name, 120)}' may only hold letters, digits and . _ + = -"
            )
        try:
            size = local.stat().st_size
            with local.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InventoryError(f"deploy: cannot read {local}: {error.strerror}; was it built?") from error
        items.append(_Item(name, local, _stored(device, sha256, name), sha256, size))
    return items


def _put(device: Device, item: _Item) -> None:
    timeout_s = 60 + item.size / _SLOWEST_BYTES_PER_S
    device.put(item.local, item.remote, executable=item.name == PROGRAM, timeout_s=timeout_s)


def _vouches(program: Program, item: _Item) -> bool:
    """Whether the program is there, runs, and hashes itself to what it should be."""
    try:
        return _matches(_hashes(program, [item]).get(str(item.remote)), item)
    except (ProgramError, DeadlineError):
        return False  # absent or damaged: sent again, and then it has to work


def _require_program(program: Program, item: _Item) -> None:
    found = _hashes(program, [item]).get(str(item.remote))
    if not _matches(found, item):
        raise DeviceError(
            f"{program.device.name}: {PROGRAM} arrived damaged (sha256 {item.sha256} was sent, the device has "
            f"{_digest(found)}); check the device's disk and try again"
        )


def _hashes(program: Program, items: Iterable[_Item]) -> Mapping[str, HashRecord]:
    """What the device has, by path; files that are not there are left out."""
    paths = [str(item.remote) for item in items]
    if not paths:
        return {}
    return {record.file: record for record in program.hash(paths, missing_ok=True, timeout_s=HASH_TIMEOUT_S)}


def _matches(found: HashRecord | None, item: _Item) -> bool:
    return found is not None and found.sha256 == item.sha256 and found.bytes == item.size


def _digest(found: HashRecord | None) -> str:
    return "nothing" if found is None else f"{found.sha256}, {found.bytes} bytes"
