"""What one pass of a network executes, layer by layer: the device program under the instruction counter, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from device_tests.devices.counting import Counts, Mark
from device_tests.devices.qemu_user import QemuUserDevice
from device_tests.errors import ProgramError
from device_tests.program import Bench, Program

JOBS: Mapping[str, Literal[1, 10]] = {"pass": 1, "10-patch": 10}
FULL_CONNECTS = "fc-10"  # the part of a 10-patch job that is a row of its own
PASSES = 1  # measured, after one to warm up: a second one would repeat it to the instruction
TIMEOUT_S = 1200.0  # `-cpu max` takes minutes
_FIRST_PASS, _LAYER = 10, 1000  # marks, see docs/device-program.md
_UNAVAILABLE = ("not available in this build", "this CPU has no")


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What was counted."""

    model: str
    scheme: str
    job: str  # pass, 10-patch, or a part of it: fc-10
    cpu: str
    precision: str
    isa: str
    memory: str

    def __str__(self) -> str:
        """For messages: what is not the default is named."""
        more = [word for word, usual in ((self.isa, "auto"), (self.memory, "default")) if word != usual]
        return " ".join([self.model, self.scheme, self.job, self.cpu, self.precision, *more])


@dataclass(frozen=True, slots=True)
class Part:
    """A layer's share of a pass; index None: what belongs to no layer, such as forming the input and softmax."""

    index: int | None
    name: str
    op: str
    counts: Counts
    multiplies: int  # multiply-adds of one pass at the nominal input


@dataclass(frozen=True, slots=True)
class Counted:
    """One pass or job. `unavailable`: why it could not be counted; parts are empty then."""

    setting: Setting
    parts: tuple[Part, ...] = ()
    session_bytes: int = 0
    unavailable: str = ""

    @property
    def counts(self) -> Counts:
        """All of the pass."""
        return Counts.total(part.counts for part in self.parts)


def measure(device: QemuUserDevice, program: Program, packed: PurePosixPath, setting: Setting) -> Counted:
    """One setting on an open device that counts. Raises DeviceError kinds and ProgramError."""
    try:
        bench = program.bench(
            packed,
            runs=PASSES,
            warmup=1,
            isa=setting.isa,
            precision=setting.precision,
            patches=JOBS[setting.job],
            profile=True,
            mark=True,
            options=["--memory", setting.memory],
            timeout_s=TIMEOUT_S,
        )
    except ProgramError as error:
        if any(words in str(error) for words in _UNAVAILABLE):
            return Counted(setting, unavailable=str(error).strip().splitlines()[-1])
        raise
    return Counted(setting, parts_of(device.marks(), bench), bench.memory.session_bytes)


def parts_of(marks: Sequence[Mark], bench: Bench) -> tuple[Part, ...]:
    """The last pass, layer by layer, what belongs to none first. Raises ProgramError where marks are missing."""
    last = len(bench.passes) - 1
    tags = [mark.tag for mark in marks]
    try:
        begin, end = tags.index(_FIRST_PASS + 2 * last), tags.index(_FIRST_PASS + 1 + 2 * last)
    except ValueError:
        raise ProgramError(f"klaus-run bench --mark marked no pass {last}: it made {len(marks)} marks") from None
    sums: dict[int | None, list[Counts]] = {None: []}
    for mark in marks[begin + 1 : end + 1]:
        number = mark.tag - _LAYER if mark.tag is not None and mark.tag >= _LAYER else None
        sums.setdefault(number, []).append(mark.counts)
    known = {layer.index: layer for layer in bench.layers}
    if len(sums) == 1 or not set(sums) - {None} <= set(known):
        raise ProgramError(f"klaus-run bench --mark marked {len(sums) - 1} layers; the model has {len(known)}")
    parts = [Part(None, "around the layers", "", Counts.total(sums.pop(None)), 0)]
    for index in sorted(known):
        layer = known[index]
        counts = Counts.total(sums.get(index, ()))  # nothing: fused into a later layer
        parts.append(Part(index, layer.name, layer.op, counts, layer.multiplies))
    return tuple(parts)


def full_connects(counted: Counted) -> Counted:
    """The fully connected layers of a 10-patch job as a row of its own: straight from indices, for ten rows at once."""
    parts = tuple(part for part in counted.parts if part.op == "full_connect")
    return replace(counted, setting=replace(counted.setting, job=FULL_CONNECTS), parts=parts)
