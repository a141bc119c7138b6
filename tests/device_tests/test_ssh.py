"""Kind ssh against a real SSH server in this process: host keys, log-in, commands, copies, and all that fails."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_tests.devices import DeviceSpec
from device_tests.devices import ssh as ssh_kind
from device_tests.devices.ssh_login import fingerprint
from device_tests.errors import DeadlineError, DeviceError, HostKeyError, InventoryError, SetupError

from .ssh_server import LEGACY_KEX, Behaviour, Server

Open = Callable[..., ssh_kind.SshDevice]


def private_key_file(path: Path) -> paramiko.PKey:
    """A new ed25519 key in OpenSSH's format."""
    data = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.write_bytes(data)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


@pytest.fixture(scope="session")
def rsa() -> paramiko.PKey:
    """An RSA key: slow to make."""
    return paramiko.RSAKey.generate(2048)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serve(**behaviour) -> a running server with an ed25519 host key; the client's key is tmp_path/client."""
    servers: list[Server] = []
    client = private_key_file(tmp_path / "client")
    host = private_key_file(tmp_path / "host")

    def start(**behaviour: object) -> Server:
        settings: dict[str, object] = {"host_keys": [host], "client_key": client, **behaviour}
        servers.append(Server(Behaviour(**settings)))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Open]:
    """device(server, **keys of the inventory) -> closed device, pinned to the server's first host key."""
    made: list[ssh_kind.SshDevice] = []

    def make(server: Server, **options: str | int | float | bool) -> ssh_kind.SshDevice:
        key = server.behaviour.host_keys[0]
        table = {
            "host": "127.0.0.1",
            "port": server.port,
            "user": "tester",
            "root": str(tmp_path / "device"),
            "host_key": f"{key.get_name()} {key.get_base64()}",
            "key_file": str(tmp_path / "client"),
            "connect_timeout_s": 5.0,
            **options,
        }
        spec = DeviceSpec("phone", "ssh", "linux-aarch64", {k: v for k, v in table.items() if v != ""}, tmp_path)
        made.append(ssh_kind.make(spec))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- host keys ---


def test_a_pinned_key_or_fingerprint_is_accepted(serve: Callable[..., Server], device: Open) -> None:
    server = serve()
    device(server).open()
    device(server, host_key=fingerprint(server.behaviour.host_keys[0].asbytes())).open()


def test_an_unknown_key_is_refused_before_anything_is_said(serve: Callable[..., Server], device: Open) -> None:
    server = serve()
    shown = fingerprint(server.behaviour.host_keys[0].asbytes())
    with pytest.raises(HostKeyError) as caught:
        device(server, host_key="").open()
    assert f"pinned none, found {shown}" in str(caught.value)
    assert "./inv devices.enrol phone" in str(caught.value)
    assert server.behaviour.users == []  # not even the user's name was sent


def test_a_changed_key_is_refused_with_both_fingerprints(
    serve: Callable[..., Server], device: Open, tmp_path: Path
) -> None:
    server = serve()
    other = private_key_file(tmp_path / "other")
    for pin in (f"{other.get_name()} {other.get_base64()}", fingerprint(other.asbytes())):
        with pytest.raises(HostKeyError) as caught:
            device(server, host_key=pin).open()
        for key in (other, server.behaviour.host_keys[0]):
            assert fingerprint(key.asbytes()) in str(caught.value)
        assert "./inv devices.enrol phone" in str(caught.value)
    assert server.behaviour.users == []


def test_the_pinned_one_of_several_keys_is_asked_for(
    serve: Callable[..., Server], device: Open, tmp_path: Path, rsa: paramiko.PKey
) -> None:
    server = serve(host_keys=[rsa, private_key_file(tmp_path / "second")])
    device(server).open()  # the line names its type
    device(server, host_key=fingerprint(rsa.asbytes())).open()  # a fingerprint does not


def test_the_key_that_enrolling_shows_is_the_servers(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    spec = DeviceSpec("phone", "ssh", "ios", {"host": "127.0.0.1", "port": server.port}, tmp_path)
    offered = ssh_kind.fetch_host_key(spec)
    key = server.behaviour.host_keys[0]
    assert offered.line == f"ssh-ed25519 {key.get_base64()}"
    assert offered.fingerprint == fingerprint(key.asbytes()) == key.fingerprint
    assert server.behaviour.users == []


# --- old phones ---


def test_an_old_phone_needs_legacy_ssh_and_is_told_so(
    serve: Callable[..., Server], device: Open, rsa: paramiko.PKey, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(host_keys=[rsa], key_types=("ssh-rsa",), kex=LEGACY_KEX)
    with pytest.raises(DeviceError, match=r"legacy_ssh = true below \[devices.phone\]"):
        device(server).open()
    with caplog.at_level(logging.WARNING):
        device(server, legacy_ssh=True).open()
    assert "legacy_ssh allows ssh-rsa" in caplog.text


def test_sha1_is_refused_one_algorithm_at_a_time(
    serve: Callable[..., Server], device: Open, rsa: paramiko.PKey
) -> None:
    with pytest.raises(DeviceError, match="legacy_ssh"):
        device(serve(kex=LEGACY_KEX)).open()
    with pytest.raises(DeviceError, match="legacy_ssh"):
        device(serve(host_keys=[rsa], key_types=("ssh-rsa",))).open()


# --- log-in ---


def test_a_refused_key(serve: Callable[..., Server], device: Open, tmp_path: Path) -> None:
    server = serve(client_key=None)
    with pytest.raises(DeviceError, match=rf"refused the key {tmp_path}/client.*authorized_keys"):
        device(server).open()


def test_a_password_from_the_environment(
    serve: Callable[..., Server], device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(client_key=None, password="open sesame")
    phone = device(server, key_file="", password_env="KLAUS_TEST_PASSWORD")
    monkeypatch.delenv("KLAUS_TEST_PASSWORD", raising=False)
    with pytest.raises(InventoryError, match="KLAUS_TEST_PASSWORD, which is not set"):
        phone.open()
    monkeypatch.setenv("KLAUS_TEST_PASSWORD", "wrong-secret")
    with pytest.raises(DeviceError, match="refused the password in KLAUS_TEST_PASSWORD") as caught:
        phone.open()
    assert "wrong-secret" not in str(caught.value)
    monkeypatch.setenv("KLAUS_TEST_PASSWORD", "open sesame")
    phone.open()


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="this computer has no ssh-agent (openssh-client)")
def test_the_agents_keys_are_tried(
    serve: Callable[..., Server], device: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(DeviceError, match=r"nothing to log in with.*ssh-add"):
        device(server, key_file="").open()
    agent = tmp_path / "agent"
    (tmp_path / "client").chmod(0o600)
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as process:
        try:
            while not agent.exists():
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            subprocess.run(["ssh-add", "-q", str(tmp_path / "client")], check=True, timeout=10)
            device(server, key_file="").open()
        finally:
            process.terminate()


def test_unreadable_and_encrypted_keys(serve: Callable[..., Server], device: Open, tmp_path: Path) -> None:
    server = serve()
    with pytest.raises(InventoryError, match=r"cannot read the key .*/none"):
        device(server, key_file=str(tmp_path / "none")).open()
    (tmp_path / "rubbish").write_bytes(os.urandom(300))
    with pytest.raises(InventoryError, match=r"cannot read the key .*/rubbish"):
        device(server, key_file=str(tmp_path / "rubbish")).open()
    (tmp_path / "locked").write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(InventoryError, match="is encrypted; load it with ssh-add"):
        device(server, key_file=str(tmp_path / "locked")).open()


# --- nobody there ---


def test_nobody_listens(serve: Callable[..., Server], device: Open) -> None:
    server = serve()
    server.close()
    with pytest.raises(DeviceError, match=r"phone \(127.0.0.1:\d+\): cannot connect: Connection refused") as caught:
        device(server).open()
    assert caught.value.exit_code == 4


def test_a_server_that_says_nothing(serve: Callable[..., Server], device: Open) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceError, match="not as an SSH server should"):
        device(serve(silent=True), connect_timeout_s=1.0).open()
    assert time.monotonic() - start < 8


def test_a_host_that_does_not_exist(serve: Callable[..., Server], device: Open) -> None:
    with pytest.raises(DeviceError, match="cannot connect"):
        device(serve(), host="nowhere.invalid").open()


# --- commands ---

groups = pytest.mark.parametrize("own_group", [True, False], ids=["as OpenSSH", "as dropbear"])


@groups
def test_words_arrive_as_they_are(serve: Callable[..., Server], device: Open, own_group: bool) -> None:
    phone = device(serve(own_group=own_group))
    phone.open()
    odd = ["a b", "$HOME", "`id`", "$(id)", "'", '"', "*", "; id", "\\", "-n", "", "ü", "a\nb", "!"]
    done = phone.run(["printf", "%s\\0", *odd], timeout_s=10)
    assert done.exit_status == 0
    assert done.stdout.decode().split("\0")[:-1] == odd
    assert done.stderr == b""


@groups
def test_status_signal_and_stderr(serve: Callable[..., Server], device: Open, own_group: bool) -> None:
    phone = device(serve(own_group=own_group))
    phone.open()
    done = phone.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=10)
    assert (done.exit_status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert phone.run(["sh", "-c", "kill -9 $$"], timeout_s=10).exit_status == 137
    assert phone.run(["/no/such/program"], timeout_s=10).exit_status == 127


@groups
def test_the_deadline_ends_the_remote_processes(
    serve: Callable[..., Server], device: Open, own_group: bool, tmp_path: Path
) -> None:
    phone = device(serve(own_group=own_group))
    phone.open()
    trace = tmp_path / "touched"
    start = time.monotonic()
    with pytest.raises(DeadlineError, match="no end after 1 s, so it was killed"):
        phone.run(["sh", "-c", f"(sleep 3; touch {trace}) & sleep 60"], timeout_s=1)
    assert time.monotonic() - start < 8
    time.sleep(3.5)
    assert not trace.exists()
    assert phone.run(["true"], timeout_s=10).exit_status == 0  # the connection lives on


def test_a_server_that_does_not_answer_is_left(
    serve: Callable[..., Server], device: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_tests.devices.ssh_session._HARD_S", 1.0)
    server = serve()
    phone = device(server)
    phone.open()
    server.behaviour.deaf = True
    with pytest.raises(DeadlineError, match="no answer within 2 s; the connection was closed"):
        phone.run(["true"], timeout_s=1)
    with pytest.raises(DeviceError, match="open"):
        phone.run(["true"], timeout_s=1)


def test_lines_come_while_it_runs(serve: Callable[..., Server], device: Open) -> None:
    phone = device(serve())
    phone.open()
    seen: list[tuple[bytes, float]] = []
    phone.run(
        ["sh", "-c", "echo a; sleep 0.6; echo b; printf torn"],
        timeout_s=10,
        on_stdout=lambda line: seen.append((line, time.monotonic())),
    )
    assert [line for line, _ in seen] == [b"a\n", b"b\n", b"torn"]
    assert seen[1][1] - seen[0][1] > 0.3


def test_a_connection_cut_in_the_middle(serve: Callable[..., Server], device: Open) -> None:
    server = serve()
    phone = device(server)
    phone.open()
    server.behaviour.drop_after_bytes = 10
    lines: list[bytes] = []
    with pytest.raises(DeviceError, match="the connection was lost while this ran"):
        phone.run(["sh", "-c", "echo first; sleep 0.3; echo second; sleep 5"], timeout_s=20, on_stdout=lines.append)
    assert lines == [b"first\n"]
    server.behaviour.drop_after_bytes = None
    phone.open()  # and it can be opened again
    assert phone.run(["true"], timeout_s=10).exit_status == 0


def test_endless_output_is_stopped(serve: Callable[..., Server], device: Open) -> None:
    phone = device(serve())
    phone.open()
    with pytest.raises(DeviceError, match="line of more than"):
        phone.run(["sh", "-c", "cat /dev/zero"], timeout_s=30)
    assert phone.run(["true"], timeout_s=10).exit_status == 0


def test_a_command_too_long_for_dropbear_is_refused_here(serve: Callable[..., Server], device: Open) -> None:
    phone = device(serve())
    phone.open()
    with pytest.raises(DeviceError, match="more than 8000 bytes"):
        phone.run(["echo", "x" * 9000], timeout_s=10)


# --- copies ---

transfers = pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])


@transfers
def test_files_go_and_come_back(serve: Callable[..., Server], device: Open, sftp: bool, tmp_path: Path) -> None:
    phone = device(serve(sftp=sftp))
    phone.open()
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(3_000_001))
    target = phone.root / "deep" / "a.bin"
    phone.put(source, target, executable=True, timeout_s=30)
    assert Path(target).read_bytes() == source.read_bytes()
    assert Path(target).stat().st_mode & 0o777 == 0o755
    phone.get(target, tmp_path / "back", timeout_s=30)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    source.write_bytes(b"")
    phone.put(source, target, timeout_s=30)
    assert Path(target).read_bytes() == b""
    assert [p.name for p in Path(target.parent).iterdir()] == ["a.bin"]
    phone.remove(phone.root / "deep", timeout_s=10)
    with pytest.raises(DeviceError, match="no"):
        phone.get(target, tmp_path / "none", timeout_s=10)
    assert not (tmp_path / "none").exists()
    assert not list(tmp_path.glob(".none*"))


@transfers
@pytest.mark.parametrize("kilobytes", [1, 1000])
def test_a_full_disk_here_is_not_the_devices_fault(
    serve: Callable[..., Server],
    device: Open,
    sftp: bool,
    kilobytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phone = device(serve(sftp=sftp))
    phone.open()
    stored = Path(phone.root) / "a.bin"
    stored.write_bytes(bytes(1000 * kilobytes))
    monkeypatch.setattr("secrets.token_hex", lambda _: "x")
    (tmp_path / ".back.x.part").symlink_to("/dev/full")
    with pytest.raises(SetupError, match=r"cannot write .*/back on this computer: No space left on device") as caught:
        phone.get(phone.root / "a.bin", tmp_path / "back", timeout_s=30)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.glob("*back*"))
    with pytest.raises(SetupError, match=r"cannot write .* on this computer: No such file"):
        phone.get(phone.root / "a.bin", tmp_path / "absent" / "back", timeout_s=30)
    phone.get(phone.root / "a.bin", tmp_path / "back", timeout_s=30)  # the connection is as good as before
    assert (tmp_path / "back").read_bytes() == stored.read_bytes()


def test_a_copy_that_is_cut_leaves_nothing_half_and_its_rest_goes_with_the_next(
    serve: Callable[..., Server], device: Open, tmp_path: Path
) -> None:
    server = serve(drop_upload_after_bytes=100_000)
    phone = device(server)
    phone.open()
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(1_000_000))
    target = phone.root / "a.bin"
    with pytest.raises(DeviceError, match="the connection was lost"):
        phone.put(source, target, timeout_s=30)
    assert not Path(target).exists()
    assert list(Path(phone.root).glob(".*.part"))
    server.behaviour.drop_upload_after_bytes = None
    phone.open()
    phone.put(source, target, timeout_s=30)
    assert [p.name for p in Path(phone.root).iterdir()] == ["a.bin"]


@transfers
def test_a_folder_that_cannot_be_written(
    serve: Callable[..., Server], device: Open, sftp: bool, tmp_path: Path
) -> None:
    phone = device(serve(sftp=sftp))
    phone.open()
    (Path(phone.root) / "file").write_bytes(b"")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(DeviceError, match="cannot make the folder"):
        phone.put(tmp_path / "x", phone.root / "file" / "x", timeout_s=10)


def test_a_root_that_is_not_ours(serve: Callable[..., Server], device: Open) -> None:
    with pytest.raises(DeviceError, match=r"cannot use the folder /proc/klaus.*\[devices.phone\]"):
        device(serve(), root="/proc/klaus").open()


@pytest.mark.parametrize("bad", ["../x", "a/../../x", "/etc/passwd", "", "a b", "x\n", "a;b", "$(id)"])
def test_paths_that_leave_the_root_are_refused(
    serve: Callable[..., Server], device: Open, bad: str, tmp_path: Path
) -> None:
    phone = device(serve())
    calls: list[Callable[[], None]] = [
        lambda: phone.put(tmp_path / "client", phone.root / bad, timeout_s=10),
        lambda: phone.get(phone.root / bad, tmp_path / "y", timeout_s=10),
        lambda: phone.make_folder(phone.root / bad, timeout_s=10),
        lambda: phone.remove(phone.root / bad, timeout_s=10),
    ]
    for call in calls:
        with pytest.raises(InventoryError, match="remote path"):
            call()


def test_describe_is_a_command_a_person_could_type(serve: Callable[..., Server], device: Open) -> None:
    phone = device(serve(), key_file="/k", host="h", port=2200)
    assert (
        phone.describe(["klaus-run", "hash", "a b"]) == "ssh -p 2200 -i /k tester@h 'klaus-run hash '\"'\"'a b'\"'\"''"
    )
    copy = phone.describe_put(Path("/a b"), PurePosixPath("/r/x/y"))
    assert copy == "ssh -p 2200 -i /k tester@h 'mkdir -p /r/x' && scp -P 2200 -i /k '/a b' tester@h:/r/x/y"
    six = device(serve(), key_file="", host="::1", port=22)
    assert six.describe_put(Path("/a"), PurePosixPath("/r/y")).endswith("scp -P 22 /a 'tester@[::1]:/r/y'")
