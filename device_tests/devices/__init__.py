"""Device kinds: one file each, all behind the Device protocol of base.py.

The module NAME.py (NAME with - for _) is the kind NAME where it has `KEYS`, the keys of its table in devices.toml,
and `make(spec)`. Adding a kind adds a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Protocol, cast

from device_tests.devices.base import Completed, Device
from device_tests.devices.spec import DeviceSpec, Key
from device_tests.errors import InventoryError

__all__ = ["Completed", "Device", "DeviceSpec", "KindModule", "kinds", "make_device", "offered_kinds", "open_device"]


class KindModule(Protocol):
    """What a kind's module offers."""

    KEYS: Mapping[str, Key]
    TARGET: str | None  # the target where the inventory names none; None: it must name one
    FOR_TESTS: bool  # absent: false. A kind for the harness' own tests, which no message offers to users

    def make(self, spec: DeviceSpec) -> Device:
        """A closed device."""


@cache
def kinds() -> Mapping[str, KindModule]:
    """Every kind by its name in devices.toml."""
    found: dict[str, KindModule] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "KEYS") and hasattr(module, "make"):
            found[info.name.replace("_", "-")] = cast(KindModule, module)
    return found


def offered_kinds() -> list[str]:
    """The kinds that a user's inventory may want."""
    return [name for name, module in kinds().items() if not getattr(module, "FOR_TESTS", False)]


def make_device(spec: DeviceSpec) -> Device:
    """The device of a description, closed."""
    module = kinds().get(spec.kind)
    if module is None:
        raise InventoryError(
            f"{spec.source}: device {spec.name}: no kind {spec.kind!r}; kinds: {', '.join(offered_kinds())}"
        )
    return module.make(spec)


@contextmanager
def open_device(spec: DeviceSpec) -> Iterator[Device]:
    """The device of a description, open within the `with` block."""
    device = make_device(spec)
    device.open()
    try:
        yield device
    finally:
        device.close()
