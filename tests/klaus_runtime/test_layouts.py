"""`klaus pack --layout`: the kernels' own packing under an emulator, and what stands in its way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from klaus_runtime.errors import InputError, KlausError, SetupError
from klaus_runtime.pack import Layout, add_layouts, carried, pack, read_packed
from klaus_runtime.readers import ccv
from toolchains.build import Build

from .golden import TINY
from .zoo import assert_same

TINY_MODEL = TINY / "model-fp16.sqlite3"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(ccv.read(TINY_MODEL), tmp_path_factory.mktemp("packed") / "tiny.klaus")


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("a76-fp32", Layout("a76", "fp32")),
        ("Cortex-A53-int8", Layout("a53", "int8")),
        ("neoverse-n1-fp16", Layout("n1", "fp16")),
    ],
)
def test_names(text: str, layout: Layout) -> None:
    assert Layout.named(text) == layout
    assert Layout.named(str(layout)) == layout


@pytest.mark.parametrize("text", ["", "a76", "a76-", "-fp32", "a54-fp32", "a76-fp64", "a76-fp32-fp32", "a76\x1b-fp32"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="it is CORE-PRECISION, as in a76-fp32; cores are a7, a15"):
        Layout.named(text)


def test_layouts_are_added(arm_build: Build, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "tiny.klaus"
    layouts = [Layout("a76", "fp32"), Layout("a76", "fp16"), Layout("a53", "fp32")]
    added = add_layouts(packed, layouts, out)
    assert added[0] > 0
    assert added[1] > 0
    assert added[2] == 0  # 64-bit cores share the layouts of a precision
    assert carried(out).sections > 0
    assert_same(read_packed(out), read_packed(packed))
    assert [path.name for path in out.parent.iterdir()] == ["tiny.klaus"]
    add_layouts(packed, [], tmp_path / "copy.klaus")
    assert (tmp_path / "copy.klaus").read_bytes() == packed.read_bytes()
    add_layouts(out, [], out)
    assert carried(out).sections > 0


def test_what_a_core_or_a_model_cannot(arm_build: Build, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.klaus"
    out.write_bytes(b"here before")
    with pytest.raises(InputError, match=r"^layout a53-fp16: precision fp16 needs neon_fp16"):
        add_layouts(packed, [Layout("a76", "fp32"), Layout("a53", "fp16")], out)
    with pytest.raises(InputError, match=r"^layout a76-int8: model model-fp16 has no activation range.*calibrate"):
        add_layouts(packed, [Layout("a76", "int8")], out)
    damaged = tmp_path / "damaged.klaus"
    damaged.write_bytes(packed.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InputError, match=r"^layout a76-fp32: .*its SHA-256 is"):
        add_layouts(damaged, [Layout("a76", "fp32")], out)
    assert out.read_bytes() == b"here before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.klaus", "tiny.klaus"]


def test_what_is_missing_is_named(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = [Layout("a7", "fp32")]
    with pytest.raises(SetupError, match=r"klaus-run is not built: `./inv build --target linux-armv7` makes it"):
        add_layouts(packed, layout, tmp_path / "out.klaus", builds=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"run under qemu-arm here, which is not installed: .*or run `klaus-run pack`"):
        add_layouts(packed, layout, tmp_path / "out.klaus", builds=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_program_that_fails_is_no_success(packed: Path, tmp_path: Path) -> None:
    """Whatever stands in the place of the device program."""
    program = tmp_path / "linux-aarch64" / "klaus-run"
    program.parent.mkdir()
    shutil.copyfile(sys.executable, program)  # an executable of this computer, none of the emulated one
    with pytest.raises(KlausError):
        add_layouts(packed, [Layout("a76", "fp32")], tmp_path / "out.klaus", builds=tmp_path)
    assert not (tmp_path / "out.klaus").exists()


def test_what_has_no_layouts(tmp_path: Path, packed: Path) -> None:
    assert carried(packed).sections == 0
    assert carried(TINY_MODEL).sections == 0
    for size in (0, 10, 64, 70):
        cut = tmp_path / "cut"
        cut.write_bytes(packed.read_bytes()[:size])
        assert carried(cut).sections == 0


def test_the_command(arm_build: Build, tmp_path: Path) -> None:
    def klaus(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "klaus_runtime.cli", "pack", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    out = tmp_path / "tiny.klaus"
    done = klaus(TINY_MODEL, "-o", out, "--layout", "a76-fp32", "--layout", "a76-fp16", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bytes"] == out.stat().st_size
    assert list(said["layouts"]) == ["a76-fp32", "a76-fp16"]
    assert min(said["layouts"].values()) > 0
    before = out.read_bytes()
    twice = json.loads(
        klaus(TINY_MODEL, "-o", out, *["--layout", "a76-fp32", "--layout", "cortex-a76-fp32"], "--json").stdout
    )
    assert twice["layouts"] == {"a76-fp32": said["layouts"]["a76-fp32"]}
    out.write_bytes(before)
    for word, code in (("a53-fp16", 2), ("a77-fp32", 2)):
        done = klaus(TINY_MODEL, "-o", out, "--layout", "a76-fp32", "--layout", word)
        assert done.returncode == code
        assert done.stderr.count("\n") == 1
        assert out.read_bytes() == before
    for folder in (".", tmp_path):
        for more in ((), ("--layout", "a76-fp32")):
            refused = klaus(TINY_MODEL, "-o", folder, *more)
            assert (refused.returncode, refused.stderr) == (
                2,
                f"klaus: {folder}: cannot be written (it is a folder): name a file\n",
            )
    long = tmp_path / ("x" * 240 + ".klaus")
    assert klaus(TINY_MODEL, "-o", long, "--layout", "a76-fp32").returncode == 0
    long.unlink()
    done = klaus(out, "-o", out)
    assert done.returncode == 0
    assert f"{sum(said['layouts'].values())} sections in kernels' layouts are left out" in done.stderr
    assert carried(out).sections == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.klaus"]
