"""Kind qemu-user: real ARM programs under qemu's user mode; and what LocalDevice gives every local kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from device_tests.devices import Device, DeviceSpec, make_device
from device_tests.errors import DeadlineError, DeviceError, InventoryError, SetupError

Probe = tuple[Device, PurePosixPath]


def test_arguments_arrive_as_they_are(qemu: Probe) -> None:
    device, probe = qemu
    odd = ["a b", "$HOME", "`id`", "'", '"', "*", "; rm -rf /", "\\", "-x", "", "ü"]
    done = device.run([str(probe), "args", *odd], timeout_s=20)
    assert done.exit_status == 0
    assert done.stdout.decode().splitlines() == odd
    assert done.wall_ns > 0


def test_exit_status_and_stderr(qemu: Probe) -> None:
    device, probe = qemu
    done = device.run([str(probe), "exit", "5"], timeout_s=20)
    assert (done.exit_status, done.stderr) == (5, b"probe: leaving\n")


def test_a_signal_is_128_and_its_number(qemu: Probe) -> None:
    device, probe = qemu
    assert device.run([str(probe), "signal", "11"], timeout_s=20).exit_status == 139


def test_a_program_that_is_not_there(qemu: Probe) -> None:
    device, _ = qemu
    assert device.run([str(device.root / "none"), "x"], timeout_s=20).exit_status == 127


def test_lines_come_while_it_runs(qemu: Probe) -> None:
    device, probe = qemu
    seen: list[tuple[bytes, float]] = []
    device.run([str(probe), "lines", "3", "0.3"], timeout_s=20, on_stdout=lambda x: seen.append((x, time.monotonic())))
    assert [line for line, _ in seen] == [b"line 0\n", b"line 1\n", b"line 2\n"]
    assert seen[2][1] - seen[0][1] > 0.3


def test_a_torn_last_line_has_no_newline(qemu: Probe) -> None:
    device, probe = qemu
    lines: list[bytes] = []
    device.run([str(probe), "torn"], timeout_s=20, on_stdout=lines.append)
    assert lines == [b"whole\n", b"torn"]


def test_the_deadline_ends_the_whole_process_group(qemu: Probe) -> None:
    device, probe = qemu
    trace = device.root / "touched"
    start = time.monotonic()
    with pytest.raises(DeadlineError, match=r"qemu-user-test: no end after 1 s"):
        device.run([str(probe), "child", str(trace)], timeout_s=1)
    assert time.monotonic() - start < 10
    time.sleep(2.5)
    assert not Path(trace).exists()  # the child would have touched it after 2 s


def test_a_child_that_holds_stdout_does_not_hold_us(qemu: Probe) -> None:
    device, probe = qemu
    start = time.monotonic()
    done = device.run([str(probe), "daemon"], timeout_s=30)
    assert done.stdout == b"done\n"
    assert time.monotonic() - start < 10


def test_endless_output_is_stopped(qemu: Probe) -> None:
    device, probe = qemu
    with pytest.raises(DeviceError, match="line of more than 1048576 bytes"):
        device.run([str(probe), "spam", "2000000"], timeout_s=60)


def test_what_the_line_reader_raises_ends_the_command(qemu: Probe) -> None:
    device, probe = qemu

    def refuse(line: bytes) -> None:
        raise ValueError(line.decode())

    start = time.monotonic()
    with pytest.raises(ValueError, match="line 0"):
        device.run([str(probe), "lines", "100", "0.5"], timeout_s=60, on_stdout=refuse)
    assert time.monotonic() - start < 10


def test_put_and_get_are_whole_or_absent(
    make: Callable[..., Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make("qemu-user")
    source = tmp_path / "a.bin"
    source.write_bytes(bytes(range(256)) * 5000)
    device.put(source, device.root / "deep" / "er" / "a.bin", timeout_s=10)
    device.get(device.root / "deep" / "er" / "a.bin", tmp_path / "back.bin", timeout_s=10)
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
    with pytest.raises(DeviceError, match="No such file"):
        device.get(device.root / "nothing", tmp_path / "none.bin", timeout_s=10)
    assert not (tmp_path / "none.bin").exists()
    with monkeypatch.context() as patch:
        patch.setattr("secrets.token_hex", lambda _: "x")
        (tmp_path / ".full.bin.x.part").symlink_to("/dev/full")
        with pytest.raises(SetupError, match=r"full.bin on this computer: No space left on device"):
            device.get(device.root / "deep" / "er" / "a.bin", tmp_path / "full.bin", timeout_s=10)
    assert not list(tmp_path.glob("*full.bin*"))
    assert [p.name for p in Path(device.root, "deep", "er").iterdir()] == ["a.bin"]
    device.remove(device.root / "deep", timeout_s=10)
    device.remove(device.root / "deep", timeout_s=10)
    assert not Path(device.root, "deep").exists()


@pytest.mark.parametrize("bad", ["../x", "a/../../x", "/etc/passwd", "", "a b", "x\n", "a;b"])
def test_paths_that_leave_the_root_or_need_a_shell_are_refused(
    make: Callable[..., Device], tmp_path: Path, bad: str
) -> None:
    device = make("qemu-user")
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(InventoryError, match="remote path"):
        device.put(tmp_path / "f", device.root / bad, timeout_s=10)
    with pytest.raises(InventoryError, match="remote path"):
        device.remove(device.root / bad, timeout_s=10)


def test_a_target_that_user_mode_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="linux-aarch64 or linux-armv7, not ios"):
        make_device(DeviceSpec("x", "qemu-user", "ios", {}, tmp_path))


def test_closed_devices_say_so(tmp_path: Path) -> None:
    device = make_device(DeviceSpec("x", "qemu-user", "linux-aarch64", {}, tmp_path))
    with pytest.raises(DeviceError, match="not open"):
        device.run(["/x"], timeout_s=1)
    assert "-cpu cortex-a76 /x a" in device.describe(["/x", "a"])
