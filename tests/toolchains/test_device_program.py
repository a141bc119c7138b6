"""The real device program on every target that this computer can build and run."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable

import pytest

from tests.toolchains.test_build import runner
from toolchains import detect, macho, sign
from toolchains.build import Build
from toolchains.manifest import read_manifest, sha256_of
from toolchains.target import load_targets

ARCHITECTURES = {"linux-aarch64": "aarch64", "linux-armv7": "armv7"}


@pytest.fixture
def real(built: Callable[[str], Build]) -> Callable[[str], Build]:
    """built(), skipping where this computer has no compiler for the target."""

    def build_or_skip(name: str) -> Build:
        reason = detect.why_not(load_targets()[name])
        if reason:
            pytest.skip(reason)
        return built(name)

    return build_or_skip


def records(argv: list[str], *, seconds: int = 300) -> list[dict[str, object]]:
    """The JSON Lines of a command that must end well and say nothing on stderr."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("target", ["host", "linux-aarch64", "linux-armv7"])
def test_info(target: str, real: Callable[[str], Build]) -> None:
    (info,) = records([*runner(target), str(real(target).program), "info"])
    assert info["record"] == "info"
    assert info["target"] == target
    if target != "host":
        assert info["arch"] == ARCHITECTURES[target]
        assert info["isa"] == ["ref", "neon"]


@pytest.mark.parametrize("target", ["host", "linux-armv7"])
def test_every_kernel_passes_its_check(target: str, real: Callable[[str], Build]) -> None:
    *checks, summary = records([*runner(target), str(real(target).program), "check"])
    assert summary["record"] == "summary"
    assert summary["failed"] == 0
    assert summary["passed"] == len([check for check in checks if check["record"] == "check"])
    assert checks


def test_the_shared_library_loads_into_this_process(real: Callable[[str], Build]) -> None:
    library = ctypes.CDLL(str(real("host").shared))
    library.klaus_version.restype = ctypes.c_char_p
    assert library.klaus_version().decode()[0].isdigit()


@pytest.mark.parametrize("name", ["klaus-run", "libklaus.dylib"])
def test_the_ios_build_is_signed_and_complete(name: str, real: Callable[[str], Build]) -> None:
    build = real("ios")
    image = macho.read(build.folder / name)
    sign.check_signature(image)
    assert (image.platform, image.minimum_os) == (macho.PLATFORM_IOS, "12.0")
    assert read_manifest(build.manifest).files[name].sha256 == sha256_of(build.folder / name)
