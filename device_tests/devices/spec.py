"""A device as the inventory describes it, and the keys that a kind understands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from device_tests.devices.text import printable
from device_tests.errors import InventoryError

_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+=-]{0,99}")
_PATH = re.compile(r"/[A-Za-z0-9._+@=,/-]{1,250}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key that a device's table may have. `check` returns what is wrong with a value, or None."""

    type: type[str] | type[int] | type[bool] | type[float]
    help: str
    check: Callable[[str], str | None] | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, in a few words, or None."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:  # bool is an int to isinstance
            return f"must be {_TYPE_NAMES[self.type]}, not {printable(repr(value), 60)}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and not value >= self.minimum:
                return f"must be at least {self.minimum:g}, not {value}"
            if self.maximum is not None and not value <= self.maximum:
                return f"must be at most {self.maximum:g}, not {value}"
        if isinstance(value, str) and self.check is not None:
            return self.check(value)
        return None


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device of the farm: checked, not yet reached."""

    name: str
    kind: str
    target: str
    options: Mapping[str, str | int | float | bool]
    cache: Path  # a folder on this computer for images, logs and emulated file systems
    source: str = "the built-in inventory"  # where the description stands, for messages

    def text(self, key: str, default: str) -> str:
        """The text under a key."""
        value = self.options.get(key, default)
        assert isinstance(value, str)
        return value

    def number(self, key: str, default: int) -> int:
        """The whole number under a key."""
        value = self.options.get(key, default)
        assert isinstance(value, int)
        return value

    def seconds(self, key: str, default: float) -> float:
        """The number under a key, as a float."""
        value = self.options.get(key, default)
        assert isinstance(value, int | float)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """The truth value under a key."""
        value = self.options.get(key, default)
        assert isinstance(value, bool)
        return value


def check_name(name: str) -> str | None:
    """What is wrong with a device's name: it becomes part of file names and reports."""
    if NAME.fullmatch(name) is None or ".." in name:
        return "a name is 1 to 40 of a-z 0-9 . _ - and begins and ends with a letter or digit"
    return None


def check_word(value: str) -> str | None:
    """Target names, CPU names: what stands in command lines."""
    return None if _WORD.fullmatch(value) else "may only hold letters, digits and . _ , + = -"


def check_remote_path(value: str) -> str | None:
    """An absolute POSIX path without .. and without anything a shell or a log could trip over."""
    if _PATH.fullmatch(value) is None or any(part in ("", ".", "..", "-") for part in value.split("/")[1:]):
        return "must be an absolute path below / of letters, digits and . _ + @ = , - without empty, . or .. parts"
    return None


def remote_below(root: PurePosixPath, path: PurePosixPath) -> PurePosixPath:
    """The path itself, once it is known to be a plain path strictly below root; else an InventoryError."""
    if not path.is_relative_to(root) or path == root:
        problem: str | None = f"must lie below the device's folder {root}"
    else:
        problem = check_remote_path(f"/{path.relative_to(root)}")
    if problem is not None:
        raise InventoryError(f"remote path '{printable(str(path), 120)}': {problem}")
    return path


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """A host key as a device showed it."""

    line: str  # "ssh-ed25519 AAAA...": what is pinned
    fingerprint: str  # "SHA256:...": what a person compares
