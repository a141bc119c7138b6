"""Targets are data: what their files may say, and what every mistake in one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchains.errors import InputError, ToolchainError
from toolchains.target import load_targets, parse_target, select_targets

CROSS = """
description = "a board"
toolchain = "zig"
platform = "linux"
arch = "armv7"
triple = "arm-linux-musleabihf"
cpu = "cortex_a7"
"""


def test_the_four_targets() -> None:
    targets = load_targets()
    assert list(targets) == ["host", "ios", "linux-aarch64", "linux-armv7"]
    assert all(target.name == name and target.description for name, target in targets.items())
    assert targets["ios"].minimum_os == "12.0"
    assert targets["linux-aarch64"].isa["neon_fp16"].endswith("+fullfp16")


def test_a_target_is_frozen() -> None:
    target = load_targets()["host"]
    with pytest.raises(AttributeError):
        target.cpu = "z80"  # type: ignore[misc]
    with pytest.raises(TypeError):
        load_targets()["ios"].isa["neon_fp16"] = "x"  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("colour = 'red'", "unknown key 'colour'"),
        ("cpu = 7", "should be a string"),
        ("platform = 'plan9'", "choose one of linux, apple, host"),
        ("triple = '-Xclang'", "should be one word"),
        ("cpu = 'a b'", "should be one word"),
        ("minimum_os = '12.0'", "belongs to Apple's targets"),
        ("isa = 1", "should be a table"),
        ("isa = {neon = 'x'}", "known are neon_fp16"),
        ("arch = 'aarch64'", "[isa] has nothing"),
        ("toolchain = 'host'", "takes no triple"),
        ("cpu = [", "not TOML"),
    ],
)
def test_mistakes_are_named(change: str, says: str) -> None:
    key = change.split(" ", maxsplit=1)[0]
    lines = [line for line in CROSS.splitlines() if not line.startswith(key)]
    with pytest.raises(InputError) as caught:
        parse_target("board", "\n".join([*lines, change]))
    assert says in str(caught.value)
    assert "target board" in str(caught.value)


@pytest.mark.parametrize("key", ["description", "toolchain", "platform", "arch", "triple", "cpu"])
def test_missing_lines_are_named(key: str) -> None:
    text = "\n".join(line for line in CROSS.splitlines() if not line.startswith(key))
    with pytest.raises(InputError, match=key):
        parse_target("board", text)


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(InputError, match="rename its file"):
        parse_target("My Board", CROSS)


def test_unreadable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no targets in"):
        load_targets(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        load_targets(tmp_path)


def test_selecting_by_name() -> None:
    targets = load_targets()
    assert [t.name for t in select_targets(("ios", "host", "ios"), targets)] == ["ios", "host"]
    with pytest.raises(ToolchainError, match=r"no target 'android'; known are host, ios") as caught:
        select_targets(("android",), targets)
    assert caught.value.exit_code == 2
