"""A net of three layers that takes photos and knows the demonstration photos' classes: quick under any engine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_tests.devices.spec import DeviceSpec
from device_tests.photos import DEMO, demo_photos
from device_tests.plan import BuildPlan, ModelPlan, RunPlan, plan_model
from klaus_runtime.calibrate import calibrate
from klaus_runtime.model import (
    Activation,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Label,
    Model,
    Provenance,
    Weights,
    Window,
)
from klaus_runtime.pack import pack

LABELS = tuple(
    Label(wnid, f"{name}, so to say")
    for wnid, name in [*((p.wnid, p.name) for p in DEMO), *((f"n0000000{n}", "[bold red]") for n in range(1, 4))]
)


def small_net(*, seeded: bool = False) -> Model:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> Weights:
        values = random.standard_normal(shape).astype(np.float32)
        return Weights(values, bias=random.standard_normal(shape[0]).astype(np.float32))

    return Model(
        name="small",
        input_shape=(16, 16, 3),
        layers=(
            Convolution("conv", (-1,), Window(3, 3, 2, 2, (1, 1, 1, 1)), weights(8, 3, 3, 3), 1, Activation.RELU6),
            GlobalPool("mean", (0,)),
            FullConnect("classes", (1,), weights(10, 8)),
        ),
        formation=CropFormation(2, (127.0,) * 3, (1 / 128,) * 3),
        labels=LABELS,
        provenance=Provenance("made here", "BSD-3-Clause", "the tests", seeded=seeded),
    )


def deep_plan(folder: Path, layers: int) -> ModelPlan:
    """The small net's plan with so many layers; those added pass on what they get."""
    net = small_net()
    first, *_, last = net.layers
    means = [GlobalPool(f"mean {number}", (number - 1,)) for number in range(1, layers - 1)]
    packed = folder / "deep.klaus"
    pack(replace(net, layers=(first, *means, replace(last, inputs=(layers - 2,)))), packed)
    return plan_model(packed, package_bytes=1000, name="deep")


def calibrated_plan(folder: Path) -> ModelPlan:
    """The small net's plan with the ranges that int8 needs."""
    packed = folder / "calibrated.klaus"
    pack(calibrate(small_net(), [photo.path for photo in demo_photos()]), packed)
    return plan_model(packed, package_bytes=1000)


def small_plan(folder: Path, *, seeded: bool = False) -> ModelPlan:
    packed = folder / ("seeded.klaus" if seeded else "small.klaus")
    if not packed.exists():
        pack(small_net(seeded=seeded), packed)
    return plan_model(packed, package_bytes=1000, name="seeded" if seeded else None)


def build_of(program: Path, target: str = "host") -> BuildPlan:
    return BuildPlan(target, program, hashlib.sha256(program.read_bytes()).hexdigest(), "0123abc", "cc 1", "-O2")


def fake_device(folder: Path, name: str = "one", faults: str = "", target: str = "host") -> DeviceSpec:
    return DeviceSpec(name, "fake", target, {"faults": faults} if faults else {}, folder / "cache")


def plan_of(folder: Path, program: Path, *devices: DeviceSpec, **changes: object) -> RunPlan:
    given: dict[str, object] = {
        "devices": devices or (fake_device(folder),),
        "builds": {"host": build_of(program)},
        "models": (small_plan(folder),),
        "results": folder / "results",
        "command": "the tests",
        "commit": "0123abc",
    }
    return RunPlan(**(given | changes))  # type: ignore[arg-type]
