"""A small C project with every kind of file that the build tells apart, and its builds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from toolchains import detect
from toolchains.build import Build, build
from toolchains.target import load_targets

PROJECT = Path(__file__).parent / "project"


@pytest.fixture(scope="session", autouse=True)
def _one_zig_cache() -> None:
    """Copies of the project share the clone's cache, so that musl is compiled once."""
    for key in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        os.environ.setdefault(key, str(ROOT / ".cache" / "zig"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy to change, in a folder whose name has a space."""
    return Path(shutil.copytree(PROJECT, tmp_path / "a project"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Build]:
    """small(target) -> Build of the unchanged small project; skips where this computer has no compiler for it."""
    folder = tmp_path_factory.mktemp("small")
    done: dict[str, Build] = {}

    def build_once(name: str) -> Build:
        reason = detect.why_not(load_targets()[name])
        if reason:
            pytest.skip(reason)
        if name not in done:
            (done[name],) = build([name], root=PROJECT, out=folder)
        return done[name]

    return build_once
