"""The farm: devices.toml, read strictly; host keys are pinned in it by enrol().

    [devices.NAME]
    kind = "ssh"        # a module of device_tests/devices
    ...                 # the keys of that kind: KEYS in its module

Without a file the farm is the emulated board. THEOS_DEVICE_IP, THEOS_DEVICE_PORT and THEOS_DEVICE_USER, which people
who build for jailbroken phones have set already, fill in an ssh device that names no host; where there is none, they
add the device `theos`.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.devices import kinds, offered_kinds
from device_tests.devices.spec import DeviceSpec, Key, OfferedKey, check_name, check_word
from device_tests.devices.text import printable
from device_tests.errors import InventoryError
from toolchains.target import load_targets

FILE_NAME = "devices.toml"
MAX_BYTES = 1 << 20
THEOS = "theos"
_PROJECT = Path(__file__).resolve().parents[1]
_COMMON = {
    "kind": Key(str, "how the device is reached"),
    "target": Key(str, "what its program is compiled for", check=check_word),
}

_Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All devices by name, checked but not reached."""

    devices: Mapping[str, DeviceSpec]
    path: Path  # where devices.toml is or would be

    def select(self, names: Sequence[str] = ()) -> list[DeviceSpec]:
        """The named devices, or all; an unknown name is an error that lists the known ones."""
        for name in names:
            if name not in self.devices:
                near = difflib.get_close_matches(name, self.devices, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise InventoryError(
                    f"no device '{printable(name, 60)}' in {self.path}{hint}; known: {', '.join(self.devices)}"
                )
        return [self.devices[name] for name in dict.fromkeys(names)] if names else list(self.devices.values())


def load(path: Path | None = None, *, cache: Path | None = None, environ: Mapping[str, str] = os.environ) -> Inventory:
    """Reads devices.toml (by default the project's, if it is there; a path that is given must exist).

    cache: a folder for images and emulated disks, by default the project's .cache.
    Raises InventoryError naming file, table and key.
    """
    place = path or _PROJECT / FILE_NAME
    cache = cache or _PROJECT / ".cache"
    if path is None and not place.exists():
        tables: Mapping[str, _Table] = {"board": {"kind": "board"}}
        source = "the built-in inventory"
    else:
        tables, source = _read(place), str(place)
    return Inventory({spec.name: spec for spec in _specs(_with_theos(tables, environ), cache, source)}, place)


def enrol(
    name: str,
    confirm: Callable[[DeviceSpec, OfferedKey], bool],
    *,
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> OfferedKey | None:
    """Asks a device for its host key, shows it to `confirm` and pins it in devices.toml if that says yes.

    The pin is one line `host_key = "..."` below the device's header; everything else in the file stays as it is.
    Returns the pinned key, or None where `confirm` said no. The device is not logged in to.
    """
    inventory = load(path, environ=environ)
    [spec] = inventory.select([name])
    fetch: Callable[[DeviceSpec], OfferedKey] | None = getattr(kinds()[spec.kind], "fetch_host_key", None)
    if fetch is None:
        raise InventoryError(f"device {name} is of kind {spec.kind}: it has no host key that could be enrolled")
    offered = fetch(spec)
    if not confirm(spec, offered):
        return None
    _pin(inventory.path, spec, offered.line)
    return offered


def _read(path: Path) -> Mapping[str, _Table]:
    """The [devices.*] tables of a file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InventoryError(f"{path}: more than {MAX_BYTES} bytes; this is no inventory")
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InventoryError(
            f"{path}: cannot read the inventory: {error.strerror}; devices.example.toml shows one"
        ) from error
    except UnicodeDecodeError as error:
        raise InventoryError(f"{path}: not UTF-8 at byte {error.start}; an inventory is a TOML text") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InventoryError(f"{path}: not TOML: {printable(str(error), 200)}") from error
    for key in document:
        if key != "devices":
            raise InventoryError(f"{path}: unknown table or key '{printable(key, 60)}'; the file holds [devices.NAME]")
    tables = document.get("devices", {})
    if not isinstance(tables, dict) or not tables:
        raise InventoryError(f"{path}: no devices; add a table [devices.NAME] (devices.example.toml shows some)")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InventoryError(f"{path}: devices.{printable(name, 60)} must be a table [devices.NAME]")
    return tables


def _with_theos(tables: Mapping[str, _Table], environ: Mapping[str, str]) -> Mapping[str, _Table]:
    """Fills the first ssh device without a host from the THEOS variables, or adds one."""
    host = environ.get("THEOS_DEVICE_IP", "")
    if not host:
        return tables
    given: dict[str, object] = {"host": host}
    if port := environ.get("THEOS_DEVICE_PORT", ""):
        if not port.isdecimal():
            raise InventoryError(f"THEOS_DEVICE_PORT must be a port number, not '{printable(port, 40)}'")
        given["port"] = int(port)
    if user := environ.get("THEOS_DEVICE_USER", ""):
        given["user"] = user
    hostless = [name for name, table in tables.items() if table.get("kind") == "ssh" and "host" not in table]
    if hostless:
        name = THEOS if THEOS in hostless else hostless[0]
        return {**tables, name: {**tables[name], **given}}
    if THEOS in tables:
        return tables
    return {**tables, THEOS: {"kind": "ssh", "target": "ios", "user": "root", **given}}


def _specs(tables: Mapping[str, _Table], cache: Path, source: str) -> list[DeviceSpec]:
    return [_spec(name, table, cache, source) for name, table in tables.items()]


def _spec(name: str, table: _Table, cache: Path, source: str) -> DeviceSpec:
    """One checked table."""
    where = f"{source}: [devices.{printable(name, 60)}]"
    if problem := check_name(name):
        raise InventoryError(f"{where}: {problem}")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in kinds():
        found = "is missing" if kind is None else f"{printable(repr(kind), 60)} is unknown"
        raise InventoryError(f"{where}: kind {found}; kinds: {', '.join(offered_kinds())}")
    module = kinds()[kind]
    known = {**_COMMON, **module.KEYS}
    if "password" in table:
        raise InventoryError(
            f"{where}: a password never stands in the file; put it into an environment variable and name that: "
            'password_env = "KLAUS_PASSWORD"'
        )
    options: dict[str, str | int | float | bool] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InventoryError(
                f"{where}: unknown key '{printable(key, 60)}'{hint}; keys of kind {kind}: {', '.join(known)}"
            )
        if problem := known[key].problem(value):
            raise InventoryError(f"{where}: {key} {problem}")
        assert isinstance(value, str | int | float | bool)
        options[key] = value
    for key, rule in known.items():
        if rule.required and key not in table:
            raise InventoryError(f"{where}: {key} is missing: {rule.help}")
    target = options.pop("target", module.TARGET)
    if target is None:
        raise InventoryError(f'{where}: target is missing: {_COMMON["target"].help}, e.g. target = "linux-aarch64"')
    if target not in load_targets():
        raise InventoryError(
            f"{where}: target '{printable(str(target), 60)}' is unknown; targets: {', '.join(load_targets())}"
        )
    del options["kind"]
    return DeviceSpec(name, kind, str(target), options, cache, source)


def _pin(path: Path, spec: DeviceSpec, line: str) -> None:
    """Writes host_key = "line" under the device's header, atomically; the rest of the file is untouched."""
    pin = f'host_key = "{line}"'
    old = path.read_bytes().decode("utf-8") if path.exists() else ""  # line endings as they are
    before = _devices(tomllib.loads(old))
    if spec.name in before:
        new = _with_pin(old, spec.name, pin)
        expected = {**before, spec.name: {**before[spec.name], "host_key": line}}
        if new is None or not _holds(new, expected):
            raise InventoryError(
                f"{path}: no place for the pin of {spec.name}; write it yourself below [devices.{spec.name}]: {pin}"
            )
    else:  # it came from the environment: host, port and user stay there, but the pin needs a table
        new = f"{old.rstrip()}\n\n" if old.strip() else '[devices.board]\nkind = "board"\n\n'
        new += f"[devices.{spec.name}] # host, port and user come from THEOS_DEVICE_*\n"
        new += f'kind = "{spec.kind}"\ntarget = "{spec.target}"\n{pin}\n'
    _write_atomically(path, new)


def _devices(document: Mapping[str, object]) -> dict[str, dict[str, object]]:
    tables = document.get("devices", {})
    return tables if isinstance(tables, dict) else {}


def _with_pin(text: str, name: str, pin: str) -> str | None:
    """The text with the pin replaced or inserted in the table of `name`; None where its header is not found."""
    quoted = re.escape(name)
    header = re.compile(rf"""\s*\[\s*devices\s*\.\s*(?:{quoted}|"{quoted}"|'{quoted}')\s*\]\s*(?:\#.*)?$""")
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if header.match(line.rstrip("\r\n"))), None)
    if start is None:
        return None
    end = next((i for i in range(start + 1, len(lines)) if lines[i].lstrip().startswith("[")), len(lines))
    ending = "\r\n" if lines[start].endswith("\r\n") else "\n"
    if not lines[start].endswith("\n"):
        lines[start] += ending
    for i in range(start + 1, end):
        if re.match(r"\s*host_key\s*=", lines[i]):
            lines[i] = pin + ending
            return "".join(lines)
    lines.insert(start + 1, pin + ending)
    return "".join(lines)


def _holds(text: str, expected: Mapping[str, object]) -> bool:
    """Whether the text parses and holds just these devices: an edit of text must not have hit a comment or string."""
    try:
        return _devices(tomllib.loads(text)) == expected
    except tomllib.TOMLDecodeError:
        return False


def _write_atomically(path: Path, text: str) -> None:
    """Whole or not at all, links followed, permissions kept."""
    path = path.resolve()
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        part.replace(path)
    except OSError as error:
        raise InventoryError(f"{path}: cannot write the inventory: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
