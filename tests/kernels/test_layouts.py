"""`klaus-run pack`: weights in kernels' layouts, carried by the file, used in place, equal to those packed at load."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from klaus_runtime import pack
from klaus_runtime.pack import carried, read_packed
from klaus_runtime.pack.structs import const
from tests.kernels import nets
from tests.kernels.conftest import Klaus, emulated, ranged, runner
from tests.kernels.packed_image import PackedImage
from tests.klaus_runtime.zoo import assert_same

if TYPE_CHECKING:
    from toolchains.build import Build

Models = dict[str, Path]
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def arm(arm_build: Build) -> Klaus:
    return runner(emulated(arm_build.program, "linux-aarch64", "cortex-a76"))


@pytest.fixture(scope="module")
def ranged_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A net of many kinds of layers, and one with patches, whose activations have ranges."""
    folder = tmp_path_factory.mktemp("ranged")
    scanned = nets.scanned()
    made = {"tall": ranged(nets.tall()), "scanned": replace(scanned, ranges=ranged(scanned).ranges)}
    return {name: pack.pack(model, folder / f"{name}.klaus") for name, model in made.items()}


def answers(run: Klaus, model: Path, patches: int, precision: str) -> list[object]:
    options = ("--patches", patches, "--precision", precision, "--runs", 1, "--warmup", 0)
    top: list[object] = run("bench", "--model", model, *options).one("bench")["top"]
    return top


def load(run: Klaus, model: Path, patches: int, precision: str) -> int:
    options = ("--patches", patches, "--precision", precision, "--runs", 1, "--warmup", 0)
    held: int = run("bench", "--model", model, *options).one("memory")["session_bytes"]
    return held


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tall", "scanned"])
def test_a_packed_file_answers_the_same_from_less_memory(
    klaus: Klaus, arm: Klaus, ranged_models: Models, tmp_path: Path, name: str, precision: str
) -> None:
    plain, laid = ranged_models[name], tmp_path / "laid.klaus"
    said = arm("pack", "--model", plain, "--out", laid, "--precision", precision).one("pack")
    assert said["file"] == str(laid)
    assert said["bytes"] == laid.stat().st_size > plain.stat().st_size
    assert said["sections"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["laid.klaus"]
    for run, unchecked in ((arm, 0), (klaus, said["sections"])):  # the second CPU's kernels know none of these layouts
        checked = run("verify", laid).one("verify")
        assert (checked["ok"], checked["unchecked"]) == (True, unchecked)
    steps = arm("info", "--plan", "--model", laid, "--precision", precision).of("step")
    packing = [step for step in steps if step["packed_bytes"]]
    assert packing
    assert all(step["packed_in_file"] for step in packing)
    assert_same(read_packed(laid), read_packed(plain))
    assert carried(laid).sections > 0
    assert carried(plain).sections == 0
    for patches in (1, 10) if name == "scanned" else (1,):
        assert answers(arm, laid, patches, precision) == answers(arm, plain, patches, precision)
        assert load(arm, laid, patches, precision) < load(arm, plain, patches, precision)
    if precision != "fp16":  # this computer's CPU has no halves
        assert answers(klaus, laid, 1, precision) == answers(klaus, plain, 1, precision)


def test_layouts_gather_in_one_file(arm: Klaus, ranged_models: Models, tmp_path: Path) -> None:
    """Each precision adds its own once; packing in place keeps what is there."""
    path = tmp_path / "all.klaus"
    path.write_bytes(ranged_models["scanned"].read_bytes())
    added = [
        arm("pack", "--model", path, "--out", path, "--precision", precision).one("pack")["sections"]
        for precision in (*PRECISIONS, *PRECISIONS)
    ]
    assert min(added[:3]) > 0
    assert added[3:] == [0, 0, 0]
    assert PackedImage(path.read_bytes()).header.section_count == (
        PackedImage(ranged_models["scanned"].read_bytes()).header.section_count + sum(added)
    )
    for precision in PRECISIONS:
        assert answers(arm, path, 10, precision) == answers(arm, ranged_models["scanned"], 10, precision)
    assert arm("verify", path).one("verify")["ok"]


def test_a_wrong_number_is_found(arm: Klaus, ranged_models: Models, tmp_path: Path) -> None:
    """In each precision's layouts, a layer at a time: verify names the layer; nothing else is asked of it."""
    for precision in PRECISIONS:
        laid = tmp_path / f"{precision}.klaus"
        arm("pack", "--model", ranged_models["scanned"], "--out", laid, "--precision", precision)
        data = laid.read_bytes()
        for layer in {section.layer for section in _packed(PackedImage(data))}:
            image = PackedImage(data)
            section = next(section for section in _packed(image) if section.layer == layer)
            image.data[section.offset + section.bytes // 2] ^= 0x55
            laid.write_bytes(image.sign().data)
            said = arm("verify", laid, code=1)
            assert f"layer {layer}: its packed weights in layout" in said.stderr


def _packed(image: PackedImage) -> list[Any]:
    return [section for section in image.sections() if section.layout != 0]


def test_what_indices_need_to_be_followed_is_left_out(arm_build: Build, ranged_models: Models, tmp_path: Path) -> None:
    """Without dot products, int8 convolutions hold places that a file is not trusted with: they are packed at load."""
    run = runner(emulated(arm_build.program, "linux-aarch64", "cortex-a53"))
    laid = tmp_path / "laid.klaus"
    run("pack", "--model", ranged_models["tall"], "--out", laid, "--precision", "int8")
    steps = run("info", "--plan", "--model", laid, "--precision", "int8").of("step")
    apart = {step["variant"] for step in steps if step["packed_bytes"] and not step["packed_in_file"]}
    assert apart <= {"klaus_conv_i8_neon_4x16"}
    assert answers(run, laid, 1, "int8") == answers(run, ranged_models["tall"], 1, "int8")


def test_nothing_is_left_of_what_cannot_be_written(arm: Klaus, ranged_models: Models, tmp_path: Path) -> None:
    source = tmp_path / "source.klaus"
    source.write_bytes(ranged_models["scanned"].read_bytes())
    assert "cannot be written" in arm("pack", "--model", source, "--out", tmp_path / "none" / "x", code=2).stderr
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in arm("pack", "--model", source, "--out", tmp_path / "folder", code=2).stderr
    assert "--out is missing" in arm("pack", "--model", source, code=2).stderr
    damaged = bytearray(source.read_bytes())
    damaged[-1] ^= 1  # the last number of the last section
    source.write_bytes(damaged)
    said = arm("pack", "--model", source, "--out", source, code=1)
    assert "its SHA-256 is" in said.stderr
    assert source.read_bytes() == damaged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source.klaus"]


def test_the_place_may_be_taken_by_anything(klaus: Klaus, ranged_models: Models, tmp_path: Path) -> None:
    """The model under the name of a part, a link, a pipe, another mode: only a regular file is replaced, and whole."""
    source = ranged_models["scanned"].read_bytes()
    model = tmp_path / "a.klaus.part"
    model.write_bytes(source)
    out = tmp_path / "a.klaus"
    klaus("pack", "--model", model, "--out", out)
    assert model.read_bytes() == source == out.read_bytes()  # this CPU's kernels have no layouts of their own
    link = tmp_path / "b.klaus.part"
    link.symlink_to(model)
    klaus("pack", "--model", model, "--out", tmp_path / "b.klaus")
    assert model.read_bytes() == source
    out.chmod(0o600)
    klaus("pack", "--model", out, "--out", out)
    assert out.stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    said = klaus("pack", "--model", out, "--out", tmp_path / "pipe", code=2)
    assert "it is there and no regular file" in said.stderr
    assert (tmp_path / "pipe").is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"a.klaus", "a.klaus.part", "b.klaus", "b.klaus.part", "pipe"}


def test_many_sections_take_no_long_time(klaus: Klaus, ranged_models: Models, tmp_path: Path) -> None:
    """All layouts that a table has room for, of one layer: opening looks at each but once."""
    image = PackedImage(ranged_models["scanned"].read_bytes())
    count, entry, have = 60_000, 32, image.header.section_count
    table_end, shift = 64 + entry * have, entry * count
    rest = bytes(image.data[table_end:])
    image.data = image.data[:table_end] + bytes(shift) + rest + bytes(64 * count)
    for section in image.sections():
        section.offset += shift
    image.header.section_count = have + count
    image.header.file_bytes = len(image.data)
    first = table_end + shift + len(rest)
    first += -first % 64
    image.data += bytes(64)
    image.header.file_bytes = len(image.data)
    for number, section in enumerate(image.sections()[have:]):
        section.kind, section.layer, section.layout = const("SECTION_PACKED"), 0, 1000 + number
        section.offset, section.bytes = first + 64 * number, 1
    path = tmp_path / "many.klaus"
    path.write_bytes(image.sign().data)
    before = os.times()  # of processes that ended: a busy computer makes no difference
    said = klaus("verify", path).one("verify")
    assert said["unchecked"] == count
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 3


def test_a_full_disk_leaves_nothing(arm_build: Build, ranged_models: Models, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    command = ["sh", "-c", 'ulimit -f 16; trap "" XFSZ; exec "$@"', "sh"]
    run = runner([*command, *emulated(arm_build.program, "linux-aarch64", "cortex-a76")])
    said = run("pack", "--model", ranged_models["tall"], "--out", tmp_path / "x.klaus", code=2)
    assert "x.klaus: cannot be written" in said.stderr
    assert not list(tmp_path.iterdir())


def test_sections_of_one_layer_have_one_content_whatever_session_packs_them(
    arm: Klaus, ranged_models: Models, tmp_path: Path
) -> None:
    """A layout's content depends on no fusion, no memory mode and no number of threads: any session may take it."""
    contents: dict[tuple[int, int], bytes] = {}
    for number, options in enumerate(
        [(), ("--unfused",), ("--memory", "lean"), ("--threads", 3), ("--isa", "neon"), ("--isa", "neon_fp16")]
    ):
        for precision in ("fp32", "int8"):
            laid = tmp_path / f"{number}-{precision}.klaus"
            arm("pack", "--model", ranged_models["scanned"], "--out", laid, "--precision", precision, *options)
            image = PackedImage(laid.read_bytes())
            for section in image.sections():
                if section.layout:
                    content = bytes(image.data[section.offset : section.offset + section.bytes])
                    key = (section.layer, section.layout)
                    assert contents.setdefault(key, content) == content, key
    assert len(contents) > 3
