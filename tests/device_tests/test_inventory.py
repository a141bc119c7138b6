"""devices.toml: read strictly, hostile content refused, host keys pinned without touching the rest."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_tests import inventory
from device_tests.devices import DeviceSpec, kinds, make_device, offered_kinds
from device_tests.devices.spec import OfferedKey
from device_tests.errors import InventoryError

from .ssh_server import Behaviour, Server
from .test_ssh import private_key_file

NOBODY: dict[str, str] = {}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(text) -> the path of a devices.toml with it."""

    def make(text: str) -> Path:
        path = tmp_path / "devices.toml"
        path.write_text(text, "utf-8")
        return path

    return make


def load(path: Path, **environ: str) -> inventory.Inventory:
    return inventory.load(path, environ=environ)


def test_without_a_file_the_farm_is_the_board(root: Path) -> None:
    if (root / "devices.toml").exists():
        pytest.skip("this clone has a devices.toml")
    farm = inventory.load(environ=NOBODY)
    assert [(s.name, s.kind, s.target) for s in farm.select()] == [("board", "board", "linux-aarch64")]


def test_the_example_loads_and_every_device_of_it_can_be_made(root: Path) -> None:
    farm = inventory.load(root / "devices.example.toml", environ=NOBODY)
    assert {spec.kind for spec in farm.select()} == set(offered_kinds()) == set(kinds()) - {"fake"}
    for spec in farm.select():
        device = make_device(spec)
        assert (device.name, device.kind, device.target) == (spec.name, spec.kind, spec.target)
        assert device.root.is_absolute()


def test_select_by_name_keeps_order_and_knows_typos(write: Write) -> None:
    farm = load(write('[devices.a]\nkind="board"\n[devices.pi5]\nkind="qemu-user"\n'))
    assert [s.name for s in farm.select(["pi5", "a", "pi5"])] == ["pi5", "a"]
    with pytest.raises(
        InventoryError, match=r"no device 'pi6' in .*devices.toml \(did you mean pi5\?\); known: a, pi5"
    ):
        farm.select(["pi6"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[devices.a]\nkind="board"\ncpuu="x"', r"\[devices.a\]: unknown key 'cpuu' \(did you mean cpu\?\).*cpu, cpus"),
        ('[devices.a]\nkind="boat"', r"\[devices.a\]: kind 'boat' is unknown; kinds: board, qemu-user, ssh"),
        ("[devices.a]\n", r"\[devices.a\]: kind is missing"),
        ("[device.a]\n", "unknown table or key 'device'"),
        ("devices = 3", "no devices"),
        ("", "no devices"),
        ("[devices]\na = 3", r"devices.a must be a table"),
        ('[devices.a]\nkind="board"\ncpus="2"', "cpus must be a whole number, not '2'"),
        ('[devices.a]\nkind="board"\ncpus=true', "cpus must be a whole number"),
        ('[devices.a]\nkind="board"\ncpus=99', "cpus must be at most 8, not 99"),
        ('[devices.a]\nkind="board"\ncpu="a76 -s"', "cpu may only hold"),
        ('[devices.a]\nkind="board"\nboot_timeout_s=nan', "boot_timeout_s must be at least 1"),
        ('[devices.a]\nkind="board"\ntarget="amiga"', "target 'amiga' is unknown; targets: host, ios"),
        ('[devices.a]\nkind="ssh"\nhost="x"', "target is missing"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="-oProxyCommand=x"', "no host name"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x y"', "no host name"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nuser="$(id)"', "no user name"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nport=0', "port must be at least 1"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nroot="/"', "root must be an absolute path"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nroot="/a/../b"', "root must be an absolute path"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nroot="/a;b"', "root must be an absolute path"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\npassword="geheim"', "password_env"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\npassword_env="a b"', "name of an environment variable"),
        ('[devices.a]\nkind="ssh"\ntarget="ios"\nhost="x"\nhost_key="MD5:aa:bb"', "host_key must be a fingerprint"),
        ('[devices."a b"]\nkind="board"', "a name is 1 to 40 of"),
        ('[devices."../../etc"]\nkind="board"', "a name is 1 to 40 of"),
        ('[devices."a\\u001b[31m"]\nkind="board"', r"devices.a\\x1b\[31m\]: a name is"),
        ('[devices.a]\nkind="board"\n"c\\u202epu"=1', r"unknown key 'c\\u202epu'"),
        ("[devices.a\nkind", "not TOML: .*line 1"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)
def test_what_is_wrong_is_named(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(InventoryError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 2


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match=r"cannot read the inventory: No such file.*devices.example.toml"):
        load(tmp_path / "none.toml")
    with pytest.raises(InventoryError, match="cannot read the inventory"):
        load(tmp_path)
    (tmp_path / "latin").write_bytes(b'[devices.a]\nkind="\xe4"')
    with pytest.raises(InventoryError, match="not UTF-8 at byte 18"):
        load(tmp_path / "latin")
    (tmp_path / "big").write_bytes(b"#" * (inventory.MAX_BYTES + 1))
    with pytest.raises(InventoryError, match="this is no inventory"):
        load(tmp_path / "big")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda b: b'[devices.a]\nkind="board"\n' + b))
)
def test_any_bytes_load_or_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_bytes(data)
    try:
        load(path)
    except InventoryError as error:
        if not str(error).isprintable():
            pytest.fail(repr(str(error)))


# --- THEOS_DEVICE_* ---


def test_theos_variables_add_a_device(write: Write) -> None:
    environ = {"THEOS_DEVICE_IP": "192.0.2.7", "THEOS_DEVICE_PORT": "2222", "THEOS_DEVICE_USER": "mobile"}
    farm = load(write('[devices.a]\nkind="board"\n'), **environ)
    assert [s.name for s in farm.select()] == ["a", "theos"]
    assert farm.devices["theos"].target == "ios"
    assert farm.devices["theos"].options == {"host": "192.0.2.7", "port": 2222, "user": "mobile"}


def test_theos_variables_fill_the_ssh_device_without_a_host(write: Write) -> None:
    path = write('[devices.x]\nkind="ssh"\ntarget="ios"\n[devices.y]\nkind="ssh"\ntarget="ios"\nhost="h"\n')
    farm = load(path, THEOS_DEVICE_IP="192.0.2.7")
    assert list(farm.devices) == ["x", "y"]
    assert (farm.devices["x"].options["host"], farm.devices["y"].options["host"]) == ("192.0.2.7", "h")
    with pytest.raises(InventoryError, match=r"host is missing.*THEOS_DEVICE_IP"):
        make_device(load(path).devices["x"])


@pytest.mark.parametrize("environ", [{"THEOS_DEVICE_IP": "-x"}, {"THEOS_DEVICE_IP": "h", "THEOS_DEVICE_PORT": "x"}])
def test_hostile_theos_variables(write: Write, environ: dict[str, str]) -> None:
    with pytest.raises(InventoryError):
        load(write('[devices.a]\nkind="board"\n'), **environ)


# --- enrol ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An SSH server with a new key."""
    running = Server(Behaviour(host_keys=[private_key_file(tmp_path / "host")]))
    yield running
    running.close()


def yes(spec: DeviceSpec, offered: OfferedKey) -> bool:
    assert offered.fingerprint.startswith("SHA256:")
    assert spec.name
    return True


FILE = """# my farm
[devices.board]
kind = "board" # stays

  [ devices . "pi.5" ]   # the one in the kitchen
kind = "ssh"
target = "linux-aarch64"
note = false
host = "127.0.0.1"
port = PORT

[devices.last]
kind = "qemu-user"
"""


def test_enrol_pins_one_line_and_changes_nothing_else(write: Write, server: Server) -> None:
    text = FILE.replace("PORT", str(server.port)).replace("note = false\n", "")
    path = write(text)
    path.chmod(0o640)
    key: paramiko.PKey = server.behaviour.host_keys[0]
    offered = inventory.enrol("pi.5", yes, path=path, environ=NOBODY)
    pin = f'host_key = "ssh-ed25519 {key.get_base64()}"\n'
    assert offered is not None
    assert path.read_text() == text.replace("kitchen\n", "kitchen\n" + pin)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    server.behaviour.host_keys[0] = private_key_file(path.with_name("other"))
    inventory.enrol("pi.5", yes, path=path, environ=NOBODY)  # a new key takes the old one's line
    assert path.read_text().count("host_key") == 1
    assert server.behaviour.host_keys[0].get_base64() in path.read_text()
    assert sorted(p.name for p in path.parent.glob("*devices*")) == ["devices.toml"]


def test_enrol_changes_nothing_where_the_person_says_no(write: Write, server: Server) -> None:
    text = FILE.replace("PORT", str(server.port)).replace("note = false\n", "")
    path = write(text)
    assert inventory.enrol("pi.5", lambda *_: False, path=path, environ=NOBODY) is None
    assert path.read_text() == text


def test_enrol_follows_links_and_keeps_line_endings(write: Write, server: Server, tmp_path: Path) -> None:
    text = FILE.replace("PORT", str(server.port)).replace("note = false\n", "").replace("\n", "\r\n")
    real = tmp_path / "real.toml"
    real.write_bytes(text.encode())
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    inventory.enrol("pi.5", yes, path=link, environ=NOBODY)
    assert link.is_symlink()
    assert b"\n" not in real.read_bytes().replace(b"\r\n", b"")


def test_enrol_where_the_table_cannot_be_edited(write: Write, server: Server) -> None:
    text = f'devices = {{ p = {{ kind = "ssh", target = "ios", host = "127.0.0.1", port = {server.port} }} }}\n'
    path = write(text)
    with pytest.raises(InventoryError, match=r"write it yourself below \[devices.p\]: host_key = "):
        inventory.enrol("p", yes, path=path, environ=NOBODY)
    assert path.read_text() == text


def test_a_header_in_a_text_is_no_header(write: Write, server: Server) -> None:
    text = (
        '[devices.a]\nkind = "ssh"\ntarget = "ios"\nhost = "h"\nkey_file = """\n[devices.p]\n"""\n'
        f'[devices.p]\nkind = "ssh"\ntarget = "ios"\nhost = "127.0.0.1"\nport = {server.port}\n'
    )
    path = write(text)
    with pytest.raises(InventoryError, match="write it yourself"):
        inventory.enrol("p", yes, path=path, environ=NOBODY)
    assert path.read_text() == text


def test_the_board_has_nothing_to_enrol(write: Write) -> None:
    with pytest.raises(InventoryError, match="no host key that could be enrolled"):
        inventory.enrol("board", yes, path=write('[devices.board]\nkind="board"\n'), environ=NOBODY)


def test_enrolling_the_theos_phone_makes_its_table(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_PROJECT", tmp_path)  # a clone without a devices.toml
    environ = {"THEOS_DEVICE_IP": "127.0.0.1", "THEOS_DEVICE_PORT": str(server.port)}
    assert inventory.enrol("theos", yes, environ=environ) is not None
    made = tomllib.loads((tmp_path / "devices.toml").read_text())["devices"]
    assert list(made) == ["board", "theos"]
    assert made["theos"]["host_key"].startswith("ssh-ed25519 ")
    assert "host" not in made["theos"]
    assert inventory.load(environ=environ).devices["theos"].options["port"] == server.port
