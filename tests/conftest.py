"""What all host tests share: where the project stands, ../shared, and one build of each target a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from toolchains.build import Build

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data and photos beside the project ($KLAUS_SHARED names another); skips where absent."""
    folder = Path(os.environ.get("KLAUS_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the golden data of ../shared, and {folder} has none ($KLAUS_SHARED names another folder)")
    return folder


@pytest.fixture(scope="session")
def built() -> Callable[[str], Build]:
    """built(target) -> Build of build/TARGET; each target is built at most once a session, by toolchains.build."""
    done: dict[str, Build] = {}

    def build_once(target: str) -> Build:
        if target not in done:
            from toolchains.build import build  # noqa: PLC0415 - a test that builds nothing stays quick

            (done[target],) = build([target], root=ROOT, out=ROOT / "build")
        return done[target]

    return build_once


@pytest.fixture(scope="session")
def host_build(built: Callable[[str], Build]) -> Build:
    """The build for this computer: its klaus-run, libklaus.a and shared library."""
    return built("host")


@pytest.fixture(scope="session")
def arm_build(built: Callable[[str], Build]) -> Build:
    """The build for 64-bit ARM Linux, which qemu's user mode and the board run."""
    return built("linux-aarch64")
