"""Deployment: sent once, verified there, damaged copies noticed. With the real klaus-run under qemu's user mode."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from device_tests.deploy import PROGRAM, deploy, planned
from device_tests.devices import Device
from device_tests.devices.fake import FakeDevice
from device_tests.errors import DeviceError, InventoryError, NoSpaceError, ProgramError
from toolchains.build import Build


@pytest.fixture
def files(arm_build: Build, tmp_path: Path) -> dict[str, Path]:
    """The program and two files."""
    (tmp_path / "a.bin").write_bytes(b"a" * 100_000)
    (tmp_path / "b.bin").write_bytes(b"")
    return {PROGRAM: arm_build.program, "lite0.klaus": tmp_path / "a.bin", "empty": tmp_path / "b.bin"}


@pytest.fixture
def host_files(host_build: Build, tmp_path: Path) -> dict[str, Path]:
    """The same for devices of target host."""
    (tmp_path / "a.bin").write_bytes(b"a" * 100_000)
    return {PROGRAM: host_build.program, "lite0.klaus": tmp_path / "a.bin"}


def total(files: dict[str, Path]) -> int:
    return sum(path.stat().st_size for path in files.values())


def test_everything_is_sent_once(make: Callable[..., Device], files: dict[str, Path]) -> None:
    device = make("qemu-user")
    first = deploy(device, files)
    assert (first.sent_bytes, first.skipped_bytes) == (total(files), 0)
    assert all(Path(path).read_bytes() == files[name].read_bytes() for name, path in first.paths.items())
    assert first.program.name == PROGRAM
    again = deploy(device, files)
    assert (again.sent_bytes, again.skipped_bytes) == (0, total(files))
    assert again.paths == first.paths


def test_only_what_changed_is_sent(make: Callable[..., Device], files: dict[str, Path]) -> None:
    device = make("qemu-user")
    first = deploy(device, files)
    files["lite0.klaus"].write_bytes(b"b" * 100_000)
    second = deploy(device, files)
    assert second.sent_bytes == 100_000
    assert second.paths["lite0.klaus"] != first.paths["lite0.klaus"]
    assert Path(first.paths["lite0.klaus"]).read_bytes()[:1] == b"a"  # what runs elsewhere is not pulled away


@pytest.mark.parametrize("damage", [b"", b"x" * 100_000, b"a" * 99_999])
def test_a_file_damaged_there_is_sent_anew(make: Callable[..., Device], files: dict[str, Path], damage: bytes) -> None:
    device = make("qemu-user")
    path = Path(deploy(device, files).paths["lite0.klaus"])
    path.write_bytes(damage)
    assert deploy(device, files).sent_bytes == 100_000
    assert path.read_bytes() == b"a" * 100_000


def test_a_program_damaged_there_is_sent_anew(make: Callable[..., Device], files: dict[str, Path]) -> None:
    device = make("qemu-user")
    path = Path(deploy(device, files).program)
    whole = path.read_bytes()
    for damaged in (b"", whole[:5000], whole + b"\0", b"#!/bin/sh\nexit 0\n"):
        path.write_bytes(damaged)
        assert deploy(device, files).sent_bytes == len(whole)
        assert path.read_bytes() == whole


class _Damaging(FakeDevice):
    """A device whose disk flips bits."""

    def put(self, local: Path, remote: PurePosixPath, *, executable: bool = False, timeout_s: float) -> None:
        super().put(local, remote, executable=executable, timeout_s=timeout_s)
        if not executable:
            Path(remote).write_bytes(b"A" + Path(remote).read_bytes()[1:])


def test_a_copy_that_arrives_damaged_is_removed(make: Callable[..., Device], host_files: dict[str, Path]) -> None:
    device = make("fake", "host")
    assert isinstance(device, FakeDevice)
    device.__class__ = _Damaging
    with pytest.raises(DeviceError, match=r"lite0.klaus arrived damaged \(sha256 [0-9a-f]{64} was sent"):
        deploy(device, host_files)
    assert [p.name for p in Path(device.root).rglob("*") if p.is_file()] == [PROGRAM]


def test_a_full_disk_and_a_cut_copy(make: Callable[..., Device], host_files: dict[str, Path]) -> None:
    device = make("fake", "host", faults="full@2 drop-put@3")
    with pytest.raises(NoSpaceError, match=r"fake-test: no room left on the device for .*lite0.klaus"):
        deploy(device, host_files)
    with pytest.raises(DeviceError, match="connection was lost"):
        deploy(device, host_files)
    assert deploy(device, host_files).sent_bytes == 100_000  # the program was there already


def test_a_program_for_another_machine(make: Callable[..., Device], host_files: dict[str, Path]) -> None:
    with pytest.raises((ProgramError, DeviceError)) as caught:
        deploy(make("qemu-user"), host_files)
    assert "klaus-run" in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x;y", "$(id)", "ü", "a\n", "-x", "a" * 121])
def test_hostile_names(make: Callable[..., Device], files: dict[str, Path], name: str) -> None:
    with pytest.raises(InventoryError, match="may only hold letters"):
        deploy(make("qemu-user"), {**files, name: files["empty"]})


def test_what_is_missing_here(make: Callable[..., Device], files: dict[str, Path], tmp_path: Path) -> None:
    device = make("qemu-user")
    with pytest.raises(InventoryError, match="klaus-run is not among the files"):
        deploy(device, {"a": files["empty"]})
    with pytest.raises(InventoryError, match=r"cannot read .*none: No such file"):
        deploy(device, {**files, "x": tmp_path / "none"})


def test_the_plan_touches_nothing_and_is_what_deploy_does(
    make: Callable[..., Device], files: dict[str, Path], tmp_path: Path
) -> None:
    device = make("qemu-user")
    plan = planned(device, {**files, "absent": tmp_path / "absent"})
    assert list(Path(device.root).iterdir()) == []
    assert len(plan.lines) == 5
    assert plan.lines[0].endswith(f"# {files[PROGRAM].stat().st_size} bytes, unless they are there")
    assert plan.paths["absent"] == device.root / "store" / "SHA256" / "absent"
    assert f"{plan.paths['absent']}  # once it is made" in plan.lines[3]
    assert plan.lines[4].endswith(f"klaus-run hash {' '.join(map(str, plan.paths.values()))}")
    for line in plan.lines[:3]:  # what it says is what a shell does, and deploy() finds nothing left to send
        subprocess.run(["sh", "-euc", line], check=True)
    done = deploy(device, files)
    assert done.sent_bytes == 0
    assert dict(plan.paths) == {**done.paths, "absent": plan.paths["absent"]}
