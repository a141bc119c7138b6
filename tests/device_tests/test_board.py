"""Kind board: a real Debian kernel and SSH server under qemu. One boot serves most tests."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from device_tests.devices import DeviceSpec, board_image, debian
from device_tests.devices.board import BoardDevice
from device_tests.devices.cpio import archive, character_device, file, folder, link
from device_tests.errors import DeadlineError, DeviceError, HostKeyError, NoSpaceError, SetupError

NEEDS = pytest.mark.skipif(
    "qemu-system-arm" in board_image.missing_packages(), reason="needs qemu-system-aarch64 (./inv test installs it)"
)


@pytest.fixture(scope="module")
def spec(root: Path) -> DeviceSpec:
    """Small, with the project's own image."""
    options: dict[str, str | int | float | bool] = {"cpu": "cortex-a53", "cpus": 1, "memory_mb": 512, "disk_mb": 8}
    return DeviceSpec("board-test", "board", "linux-aarch64", options, root / ".cache")


@pytest.fixture(scope="module")
def board(spec: DeviceSpec) -> Iterator[BoardDevice]:
    """A running board."""
    device = BoardDevice(spec)
    device.open()
    yield device
    device.close()


@NEEDS
def test_it_is_a_debian_kernel_on_the_chosen_core(board: BoardDevice) -> None:
    said = board.run(["uname", "-srm"], timeout_s=30).stdout.decode()
    assert board.image is not None
    assert said == f"Linux {board.image.kernel_version} aarch64\n"
    assert "0xd03" in board.run(["cat", "/proc/cpuinfo"], timeout_s=30).stdout.decode()  # Cortex-A53
    assert board.run(["nproc"], timeout_s=30).stdout == b"1\n"


@NEEDS
def test_programs_run_there(board: BoardDevice, probe: Path) -> None:
    remote = board.root / "bin" / "probe"
    board.put(probe, remote, executable=True, timeout_s=60)
    odd = ["a b", "$HOME", "`id`", "'", '"', "*", "; id", "\\", "-x", "", "ü"]
    assert board.run([str(remote), "args", *odd], timeout_s=30).stdout.decode().splitlines() == odd
    assert board.run([str(remote), "exit", "5"], timeout_s=30).exit_status == 5
    assert board.run([str(remote), "signal", "11"], timeout_s=30).exit_status == 139


@NEEDS
def test_the_deadline_ends_children_too(board: BoardDevice) -> None:
    with pytest.raises(DeadlineError):
        board.run(["sh", "-c", "sleep 4711 & sleep 4712"], timeout_s=2)
    processes = board.run(["ps"], timeout_s=30).stdout
    assert b"4711" not in processes
    assert b"4712" not in processes


@NEEDS
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_a_full_disk(board: BoardDevice, tmp_path: Path, sftp: bool) -> None:
    assert board._ssh is not None
    assert board._ssh._session is not None
    if not sftp:
        board._ssh._session.without_sftp()
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 << 20))
    board.run(["sh", "-c", f"head -c 7000000 /dev/zero >{board.root}/ballast"], timeout_s=60)
    try:
        with pytest.raises(NoSpaceError, match=rf"board-test: no room left on the device below {board.root}"):
            board.put(big, board.root / "big", timeout_s=60)
        assert board.run(["ls", "-A", str(board.root)], timeout_s=30).stdout.split() in (
            [b"ballast"],
            [b"ballast", b"bin"],
        )
    finally:
        board.remove(board.root / "ballast", timeout_s=30)
    board.put(big, board.root / "big", timeout_s=60)
    board.get(board.root / "big", tmp_path / "back", timeout_s=60)
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    board.remove(board.root / "big", timeout_s=30)


@NEEDS
def test_its_key_is_pinned_and_passwords_are_not_taken(board: BoardDevice) -> None:
    assert board._ssh is not None
    port = board._ssh.endpoint.port
    other = DeviceSpec(
        "stranger",
        "ssh",
        "linux-aarch64",
        {"host": "127.0.0.1", "port": port, "host_key": "SHA256:" + "A" * 43},
        Path(),
    )
    from device_tests.devices.ssh import make  # noqa: PLC0415 - the only use

    with pytest.raises(HostKeyError):
        make(other).open()
    with paramiko.Transport(("127.0.0.1", port)) as transport:
        transport.start_client(timeout=20)
        with pytest.raises(paramiko.BadAuthenticationType):
            transport.auth_password("root", "", fallback=False)


@NEEDS
def test_the_world_cannot_be_reached_from_it(board: BoardDevice) -> None:
    done = board.run(["sh", "-c", "timeout 3 nc -w 2 10.0.2.2 22 </dev/null; echo $?"], timeout_s=30)
    assert done.stdout != b"0\n"


@NEEDS
def test_two_at_once_and_death_in_the_middle(spec: DeviceSpec, board: BoardDevice) -> None:
    second = BoardDevice(spec)
    second.open()
    try:
        assert second.run(["true"], timeout_s=30).exit_status == board.run(["true"], timeout_s=30).exit_status == 0
        assert second._qemu is not None
        group = second._qemu.pid
        lines: list[bytes] = []

        def kill(line: bytes) -> None:
            lines.append(line)
            os.killpg(group, signal.SIGKILL)

        start = time.monotonic()
        with pytest.raises(DeviceError, match="the emulator has ended") as caught:
            second.run(["sh", "-c", "echo up; sleep 60"], timeout_s=60, on_stdout=kill)
        assert lines == [b"up\n"]
        assert time.monotonic() - start < 20
        assert "BOARD-UP" in str(caught.value)
    finally:
        second.close()
    assert board.run(["true"], timeout_s=30).exit_status == 0


@NEEDS
def test_it_ends_with_the_process_that_booted_it(root: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from device_tests.devices import DeviceSpec, make_device
from device_tests.devices.board import BoardDevice
device = BoardDevice(DeviceSpec("orphan", "board", "linux-aarch64", {"memory_mb": 256, "cpus": 1}, Path(sys.argv[1])))
device._wait_up = lambda *a, **k: (print(device._qemu.pid, flush=True), time.sleep(60))
device.open()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root / ".cache")], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        time.sleep(0.5)
        os.killpg(group, 0)  # it runs
        process.kill()
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("qemu outlived its owner")


@NEEDS
def test_a_board_that_cannot_boot_shows_why(spec: DeviceSpec, root: Path) -> None:
    bad = DeviceSpec("bad", "board", "linux-aarch64", {**spec.options, "cpu": "cortex-x99"}, root / ".cache")
    with pytest.raises(DeviceError, match=r"ended while it booted \(exit code 1\):\n.*cortex-x99"):
        BoardDevice(bad).open()
    slow = DeviceSpec("slow", "board", "linux-aarch64", {**spec.options, "boot_timeout_s": 1}, root / ".cache")
    device = BoardDevice(slow)
    with pytest.raises(DeviceError, match=r"did not come up within 1 s.*console:\n"):
        device.open()
    assert device._qemu is None


@NEEDS
def test_the_image_is_made_once(spec: DeviceSpec) -> None:
    start = time.monotonic()
    image = board_image.build_image(spec.cache / "board")
    assert time.monotonic() - start < 3
    assert image == board_image.build_image(spec.cache / "board")
    assert image.client_key.stat().st_mode & 0o77 == 0
    assert re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/=]+", image.host_key)
    assert any(name.startswith("linux-image-") for name in image.packages)


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    entries = {
        "init": file(b"#!/bin/sh\n", 0o755),
        "usr/bin/a": file(b"abc"),
        "bin": link("usr/bin"),
        "tmp": folder(0o1777),
        "dev/null": character_device(1, 3, 0o666),
    }
    data = archive(entries)
    assert data == archive(dict(reversed(entries.items())))
    assert len(data) % 512 == 0
    assert data[:6] == b"070701"
    names = [data[m.start() + 110 :].split(b"\0")[0].decode() for m in re.finditer(b"070701", data)]
    assert names == ["bin", "dev", "dev/null", "init", "tmp", "usr", "usr/bin", "usr/bin/a", "TRAILER!!!"]
    with pytest.raises(ValueError, match="relative and plain"):
        archive({"../x": file(b"")})


# --- the private apt ---

APT = pytest.mark.skipif(bool(debian.missing_tools()), reason="needs apt-get, apt-cache and dpkg-deb")


@APT
@pytest.mark.parametrize("signed", [False, True], ids=["no signature", "a stranger's signature"])
def test_lists_that_debian_did_not_sign_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    suite = tmp_path / "mirror" / "dists" / "bookworm"
    lists = suite / "main" / "binary-arm64"
    lists.mkdir(parents=True)
    packages = b"Package: linux-image-cloud-arm64\nVersion: 1\nArchitecture: arm64\nFilename: x.deb\n"
    (lists / "Packages").write_bytes(packages)
    digest = hashlib.sha256(packages).hexdigest()
    release = (
        "Suite: bookworm\nCodename: bookworm\nArchitectures: arm64\nComponents: main\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(packages)} main/binary-arm64/Packages\n"
    )
    if signed:
        signature = "-----BEGIN PGP SIGNATURE-----\n\niHUEABYKAB0WIQ==\n=AAAA\n-----END PGP SIGNATURE-----\n"
        text = f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{release}\n{signature}"
        (suite / "InRelease").write_text(text)
    (suite / "Release").write_text(release)
    monkeypatch.setenv(debian.MIRROR_ENV, f"file:{tmp_path / 'mirror'} bookworm")
    cache = tmp_path / "cache"
    with pytest.raises(SetupError, match="apt-get update failed") as caught:
        board_image.build_image(cache)
    assert "sign" in str(caught.value).lower()
    assert caught.value.exit_code == 3
    assert not (cache / "image.json").exists()
    assert not (cache / "vmlinuz").exists()


@APT
@pytest.mark.parametrize("mirror", ["file:/nowhere bookworm", "https://one-word", "ftp://x bookworm"])
def test_a_mirror_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv(debian.MIRROR_ENV, mirror)
    with pytest.raises(SetupError):
        board_image.build_image(tmp_path)


def test_without_apt_the_error_says_what_else_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no apt-get on this computer"):
        board_image.build_image(tmp_path / "cache")
    assert board_image.missing_packages() == ["qemu-system-arm", "apt", "dpkg"]
    device = BoardDevice(DeviceSpec("b", "board", "linux-aarch64", {}, tmp_path))
    with pytest.raises(SetupError, match="sudo apt-get install qemu-system-arm"):
        device.open()
