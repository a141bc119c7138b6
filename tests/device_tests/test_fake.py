"""The fake device's faults strike when they should, once, and look like real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from device_tests.devices import Device, DeviceSpec, make_device
from device_tests.errors import DeadlineError, DeviceError, HostKeyError, InventoryError, NoSpaceError
from device_tests.inventory import load


@pytest.fixture
def device(make: Callable[..., Device], tmp_path: Path) -> Callable[[str], tuple[Device, list[str]]]:
    def with_faults(faults: str) -> tuple[Device, list[str]]:
        made = make("fake", "host", name=f"fake{abs(hash(faults)) % 1000}", faults=faults)
        (tmp_path / "say").write_text("#!/bin/sh\nfor w; do echo $w; done\n")
        made.put(tmp_path / "say", made.root / "say", executable=True, timeout_s=10)
        return made, [str(made.root / "say"), "one", "two", "three"]

    return with_faults


Faulty = Callable[[str], tuple[Device, list[str]]]


def test_without_faults(device: Faulty) -> None:
    fake, say = device("")
    assert fake.run(say, timeout_s=10).stdout == b"one\ntwo\nthree\n"


def test_a_fault_strikes_once_at_its_call(device: Faulty) -> None:
    fake, say = device("hang@2")
    assert fake.run(say, timeout_s=10).exit_status == 0
    with pytest.raises(DeadlineError):
        fake.run(say, timeout_s=10)
    assert fake.run(say, timeout_s=10).exit_status == 0


def test_drop_gives_the_first_line(device: Faulty) -> None:
    fake, say = device("drop")
    lines: list[bytes] = []
    with pytest.raises(DeviceError, match="connection was lost"):
        fake.run(say, timeout_s=10, on_stdout=lines.append)
    assert lines == [b"one\n"]


def test_truncate_tears_the_last_line(device: Faulty) -> None:
    fake, say = device("truncate")
    lines: list[bytes] = []
    assert fake.run(say, timeout_s=10, on_stdout=lines.append).exit_status == 0
    assert lines == [b"one\n", b"two\n", b"thr"]


def test_hostile_output_comes_first(device: Faulty) -> None:
    fake, say = device("hostile")
    assert fake.run(say, timeout_s=10).stdout.startswith(b"\x1b]0;owned")


def test_reboot_needs_a_new_open(device: Faulty) -> None:
    fake, say = device("reboot")
    with pytest.raises(DeviceError, match="went away"):
        fake.run(say, timeout_s=10)
    with pytest.raises(DeviceError, match="not open"):
        fake.run(say, timeout_s=10)
    fake.open()
    assert fake.run(say, timeout_s=10).exit_status == 0


def test_put_faults(device: Faulty, tmp_path: Path) -> None:
    fake, _ = device("full@2 drop-put@3")
    for kind in (NoSpaceError, DeviceError):
        with pytest.raises(kind):
            fake.put(tmp_path / "say", fake.root / "x", timeout_s=10)
    assert not Path(fake.root, "x").exists()


def test_open_faults(tmp_path: Path) -> None:
    fake = make_device(DeviceSpec("f", "fake", "host", {"faults": "refuse hostkey@2"}, tmp_path))
    with pytest.raises(DeviceError, match="refused"):
        fake.open()
    with pytest.raises(HostKeyError):
        fake.open()
    fake.open()


def test_faults_are_checked_by_the_inventory(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text('[devices.f]\nkind = "fake"\nfaults = "drop@3 sneeze"\n')
    with pytest.raises(InventoryError, match="faults has 'sneeze'; faults: refuse, "):
        load(path, environ={})
