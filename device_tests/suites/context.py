"""What a suite works with: its job, its device once open, and the way records go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from device_tests import wire
from device_tests.deploy import PROGRAM, Deployed, deploy
from device_tests.devices.base import Device
from device_tests.photos import Photo, demo_photos, folder_photos
from device_tests.plan import Job, ModelPlan, Profile, Trial
from device_tests.program import Program
from device_tests.program_records import InfoRecord
from klaus_runtime.accuracy import CLAIM_FROM
from klaus_runtime.model import Model
from klaus_runtime.pack import read_packed
from reports.record import MAX_NAME, Attribute, Record, Status, clip, now


@dataclass
class Context:
    """One job while it runs. `descriptor` is the pipe to the run."""

    job: Job
    descriptor: int
    suite: str = ""
    models: dict[str, Model] = field(default_factory=dict)

    def emit(
        self,
        metric: str,
        status: Status = Status.DONE,
        *,
        model: ModelPlan | None = None,
        trial: Trial | None = None,
        subject: str = "",
        value: float | None = None,
        samples: Sequence[int | float] = (),
        message: str = "",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Sends one record of this device to the run: of a trial, or of a model however it runs, or of neither."""
        model = trial.model if trial else model
        how: Mapping[str, Attribute] = {"precision": trial.precision, "memory": trial.memory} if trial else {}
        record = Record(
            run=self.job.run,
            time=now(),
            metric=metric,
            status=status,
            device=self.job.device.name,
            kind=self.job.device.kind,
            target=self.job.device.target,
            emulated=self.job.emulated,
            suite=self.suite,
            model=model.name if model else None,
            model_sha256=model.sha256 if model else None,
            scheme=model.scheme if model else None,
            subject=clip(subject, MAX_NAME),
            value=value,
            samples=tuple(samples),
            message=clip(message),
            attributes={**how, **(attributes or {})},
        )
        self.tell(record)

    def doing(self, text: str) -> None:
        """Says what takes time now."""
        self.tell(wire.Doing(text))

    def tell(self, message: wire.Message) -> None:
        """Sends a message; no-op where no run listens, or none does any more: then the job is about to be ended."""
        if self.descriptor >= 0:
            try:
                wire.write(self.descriptor, message)
            except BrokenPipeError:
                self.descriptor = -1

    @property
    def profile(self) -> Profile:
        """quick where the device is emulated, unless the plan says otherwise."""
        return self.job.profile or ("quick" if self.job.emulated else "normal")

    def model(self, plan: ModelPlan) -> Model:
        """The packed model as the host reads it, once a job."""
        if plan.id not in self.models:
            self.models[plan.id] = read_packed(plan.packed)
        return self.models[plan.id]

    @cached_property
    def photos(self) -> list[Photo]:
        """The user's photos, or the demonstration ones."""
        return demo_photos() if self.job.photos is None else folder_photos(self.job.photos)

    @property
    def claims_accuracy(self) -> bool:
        """Whether there are enough photos, and not ones selected for being named right."""
        return self.job.photos is not None and len(self.photos) >= CLAIM_FROM

    @cached_property
    def photos_sha256(self) -> str:
        """Of all photos and their classes: accuracies over other photos are not comparable."""
        digest = hashlib.sha256()
        for photo in self.photos:
            digest.update(f"{photo.wnid} {hashlib.sha256(photo.path.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Remote:
    """The open device with what was deployed to it."""

    device: Device
    deployed: Deployed
    names: Mapping[str, str]  # model id -> name on the device
    build: Path
    info: InfoRecord

    @property
    def program(self) -> Program:
        """klaus-run there."""
        return Program(self.device, self.deployed.program)

    def obstacle(self, trial: Trial) -> str:
        """Why this device cannot do what a trial asks, "" where it can."""
        if trial.precision == "fp16" and "neon_fp16" not in self.info.isa:
            return f"the CPU has no arithmetic in fp16 ({self.info.core}: {' '.join(self.info.isa)})"
        return ""

    def packed(self, model: ModelPlan) -> PurePosixPath:
        """The packed model's path there."""
        return self.deployed.paths[self.names[model.id]]

    def send(self, name: str, local: Path) -> PurePosixPath:
        """Brings an input there, once, and returns its path there."""
        return deploy(self.device, {PROGRAM: self.build, name: local}).paths[name]

    def folder(self, name: str) -> PurePosixPath:
        """A scratch folder there, empty."""
        path = self.device.root / "work" / name
        self.device.remove(path, timeout_s=120)
        self.device.make_folder(path, timeout_s=60)
        return path
