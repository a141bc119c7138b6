"""Devices for tests, and a small program that does what a test asks of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from device_tests.devices import Device, DeviceSpec, make_device
from toolchains.target import load_targets

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """tests/device_tests/probe.c for 64-bit ARM Linux. Same triple and CPU as the target: zig builds musl once."""
    out = tmp_path_factory.mktemp("probe") / "probe"
    target = load_targets()["linux-aarch64"]
    cache = str(root / ".cache" / "zig")
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, f"-mcpu={target.cpu}", "-O1", "-g0"]
    subprocess.run(
        [*argv, "-o", str(out), str(HERE / "probe.c")],
        check=True,
        timeout=300,
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
    )
    return out


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    """make(kind, target, **options) -> open device whose files live in tmp_path; closed at the end."""
    devices: list[Device] = []

    def make_open(kind: str, target: str = "linux-aarch64", *, name: str = "", **options: str | int | float) -> Device:
        device = make_device(DeviceSpec(name or f"{kind}-test", kind, target, options, tmp_path / "cache"))
        device.open()
        devices.append(device)
        return device

    yield make_open
    for device in devices:
        device.close()


@pytest.fixture
def qemu(make: Callable[..., Device], probe: Path) -> tuple[Device, PurePosixPath]:
    """A qemu-user device and the path of the probe on it."""
    device = make("qemu-user")
    remote = device.root / "bin" / "probe"
    device.put(probe, remote, executable=True, timeout_s=10)
    return device, remote
