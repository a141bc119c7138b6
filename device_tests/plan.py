"""What a run is to do: devices, what is built for them, models, suites. Values only; run.py does it.

A Job is the part of a plan that one device's subprocess needs; it travels as a JSON file in the run's folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from device_tests.devices.spec import DeviceSpec
from device_tests.errors import InventoryError
from klaus_runtime.pack import read_packed
from klaus_runtime.shapes import weight_count

SUITE_FOLDER = Path(__file__).resolve().parent / "suites"
_ORDER = ("conformance", "agreement", "timing", "accuracy")  # others after them
_FOUND = {path.stem for path in SUITE_FOLDER.glob("*.py")} - {"__init__", "conftest", "context"}
SUITES = (*(name for name in _ORDER if name in _FOUND), *sorted(_FOUND.difference(_ORDER)))
Profile = Literal["quick", "normal"]
Crop = Literal["center", "none"]
Precision = Literal["fp32", "fp16", "int8"]
Memory = Literal["default", "lean"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MEMORIES: tuple[Memory, ...] = get_args(Memory)
JOB_TIMEOUT_S = 3600.0  # all suites of one device


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """One target's build, as far as a run needs it."""

    target: str
    program: Path
    program_sha256: str
    commit: str = ""
    compiler: str = ""
    flags: str = ""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One packed model under test, with what its report says of it."""

    name: str
    scheme: str
    packed: Path
    sha256: str
    packed_bytes: int
    package_bytes: int  # 0 where there is no package
    weights: int
    patches: Literal[1, 10]
    seeded: bool
    source: str
    licence: str
    attribution: str
    calibrated: bool = False  # it holds activation ranges, so int8 can run

    @property
    def id(self) -> str:
        """One word for test names and files."""
        return f"{self.name}-{self.scheme}"

    @property
    def effective_bits(self) -> float:
        """Bits of the package a weight."""
        return 8 * self.package_bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A model in one arithmetic and one use of memory: what a row of a report is about."""

    model: ModelPlan
    precision: Precision = "fp32"
    memory: Memory = "default"

    @property
    def id(self) -> str:
        """One word for test names and files."""
        more = [word for word, usual in ((self.precision, "fp32"), (self.memory, "default")) if word != usual]
        return "-".join([self.model.id, *more])

    @property
    def options(self) -> tuple[str, ...]:
        """The program's, for commands that run a model."""
        return ("--precision", self.precision, "--memory", self.memory)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A whole run. `builds` by target; `profile` None: quick where a device is emulated, else normal.

    Every model runs in each of `precisions`.
    """

    devices: tuple[DeviceSpec, ...]
    builds: Mapping[str, BuildPlan]
    models: tuple[ModelPlan, ...]
    results: Path
    suites: tuple[str, ...] = SUITES
    profile: Profile | None = None
    photos: Path | None = None  # None: the demonstration photos
    crop: Crop = "center"
    precisions: tuple[Precision, ...] = ("fp32",)
    memory: Memory = "default"
    command: str = ""
    commit: str = ""
    job_timeout_s: float = JOB_TIMEOUT_S
    reports: bool = True  # report.md, junit.xml

    def __post_init__(self) -> None:
        unknown = [suite for suite in self.suites if suite not in SUITES]
        if unknown or not self.suites:
            raise InventoryError(f"suites {', '.join(unknown) or '(none)'}: not known; there are {', '.join(SUITES)}")
        if not self.devices:
            raise InventoryError("a run needs a device; `invoke devices` lists them")
        names = [device.name for device in self.devices]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InventoryError(
                f"device {', '.join(sorted(twice))} is asked for twice; a device does one job at a time"
            )
        if not self.models and set(self.suites) != {"conformance"}:
            raise InventoryError("a run needs a model, but for the suite conformance alone; `invoke models` lists them")
        clashes = [model.id for model in self.models]
        if len(set(clashes)) != len(clashes):
            raise InventoryError(f"models {', '.join(clashes)}: two have one name and scheme: give them in two runs")
        if not self.precisions:
            raise InventoryError(f"a run needs a precision: {', '.join(PRECISIONS)}")
        unmeasured = [model.name for model in self.models if not model.calibrated]
        if "int8" in self.precisions and unmeasured:
            raise InventoryError(
                f"model {', '.join(unmeasured)}: int8 needs the activation range of every layer; "
                "`klaus calibrate SOURCE --images DIR -o OUT` measures them: then give the package it makes as --model"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One device's part of a run."""

    run: str
    device: DeviceSpec
    build: BuildPlan
    models: tuple[ModelPlan, ...]
    suites: tuple[str, ...]
    profile: Profile | None
    photos: Path | None
    crop: Crop
    precisions: tuple[Precision, ...]
    memory: Memory
    emulated: bool
    work: Path  # a folder on this computer for inputs and answers

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Model by model, each in every precision."""
        return tuple(Trial(model, precision, self.memory) for model in self.models for precision in self.precisions)

    def to_json(self) -> str:
        """For the subprocess."""
        return json.dumps(dataclasses.asdict(self), default=_plain, indent=1)

    @staticmethod
    def from_json(text: str) -> Job:
        """What to_json wrote."""
        given: dict[str, Any] = json.loads(text)
        device, build = given["device"], given["build"]
        return Job(
            **{
                **given,
                "device": DeviceSpec(**{**device, "cache": Path(device["cache"])}),
                "build": BuildPlan(**{**build, "program": Path(build["program"])}),
                "models": tuple(ModelPlan(**{**model, "packed": Path(model["packed"])}) for model in given["models"]),
                "suites": tuple(given["suites"]),
                "precisions": tuple(given["precisions"]),
                "photos": None if given["photos"] is None else Path(given["photos"]),
                "work": Path(given["work"]),
            }
        )


def plan_model(packed: Path, *, package_bytes: int, name: str | None = None, scheme: str | None = None) -> ModelPlan:
    """Reads what a run says of a packed model from the file itself. Raises InputError for a malformed one.

    package_bytes: of the package that it was packed from, 0 where there is none. scheme: as the user calls it.
    """
    model = read_packed(packed)
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told = model.provenance
    word, _, how = told.scheme.partition(" ")  # "q4 (calibrated on 256 photos, seed 0)": names of files take the word
    return ModelPlan(
        name=name or model.name,
        scheme=scheme or word,
        packed=packed,
        sha256=digest,
        packed_bytes=packed.stat().st_size,
        package_bytes=package_bytes,
        weights=weight_count(model),
        patches=model.patches,
        seeded=told.seeded,
        source=f"{told.source}; {word} {how}" if how else told.source,
        licence=told.licence,
        attribution=told.attribution,
        calibrated=bool(model.ranges) and all(model.ranges),
    )


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a job")
