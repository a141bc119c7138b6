"""Packed models that are cut, damaged or lie: one clear message, never a crash."""

from __future__ import annotations

import math
import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from klaus_runtime import pack
from klaus_runtime.model import Add, Convolution, GlobalPool, Layer, Model, Provenance, Softmax
from tests.kernels import nets
from tests.kernels.conftest import Klaus, Said, emulated, runner
from tests.kernels.library import FLAGS, LIBRARIES, library_sources
from tests.kernels.packed_image import PackedImage
from toolchains import commands, detect
from toolchains.target import load_targets

if TYPE_CHECKING:
    from toolchains.build import Build

HERE = Path(__file__).parent
Models = dict[str, Path]
Change = Callable[[PackedImage], object]


def fields(view: str, index: int | None = None, /, **values: object) -> Change:
    """Sets fields of the header, the network or a layer."""

    def change(image: PackedImage) -> None:
        view_of: Any = getattr(image, view) if index is None else image.layer(index)
        for name, value in values.items():
            setattr(view_of, name, value)

    return change


def section(kind: str, layer: int = -1, /, **values: object) -> Change:
    def change(image: PackedImage) -> None:
        found = image.section(kind, layer)
        for name, value in values.items():
            setattr(found, name, value)

    return change


HEADER = [
    (fields("header", magic=b"KLAUSBT\x1a"), "is no packed model"),
    (fields("header", version=2), "format version 2"),
    (fields("header", header_bytes=32), "header of 32 bytes"),
    (fields("header", file_bytes=1 << 40), "was cut or changed"),
    (fields("header", layer_count=0), "0 layers, but 1 to 4096"),
    (fields("header", layer_count=4097), "4097 layers"),
    (fields("header", layer_count=14), "section"),
    (fields("header", section_count=0), "a table of 0 sections"),
    (fields("header", section_count=0xFFFFFFFF), "a table of 4294967295 sections"),
    (fields("header", section_count=65537), "a table of 65537 sections"),
]
SECTIONS = [
    (section("NETWORK", kind=99), "unknown kind 99"),
    (section("NETWORK", kind=0), "unknown kind 0"),
    (section("NETWORK", layer=0), "belongs to layer 0, which cannot be"),
    (section("BIAS", 0, layer=15), "belongs to layer 15"),
    (section("BIAS", 0, layer=-2), "belongs to layer -2"),
    (section("BIAS", 0, layout=1), "has the layout 1"),
    (section("BIAS", 0, dtype=2), "has the data type 2"),
    (section("BIAS", 0, offset=0), "is misplaced"),
    (section("BIAS", 0, offset=(1 << 64) - 64), "is misplaced"),
    (section("BIAS", 0, bytes=(1 << 64) - 1), "is misplaced"),
    (section("BIAS", 0, bytes=0), "is misplaced"),
    (section("BIAS", 0, bytes=28), "fill 28 bytes, but its shape asks for 32"),
    (lambda i: setattr(i.section("BIAS", 0), "offset", i.section("BIAS", 0).offset + 4), "is misplaced"),
    (lambda i: setattr(i.section("BIAS", 0), "offset", i.section("SCALE", 0).offset), "two sections overlap"),
    (section("BIAS", 1, layer=0), "two sections of kind 9 for layer 0"),
    (section("META", kind=3, bytes=1), "no JSON object"),
    (section("LABELS", kind=5), "has the data type 0"),
    (section("SCALE", 0, kind=8, layer=2), "two sections of kind 8"),
    (section("BIAS", 0, kind=11, layout=7), "its biases is missing"),
    (lambda i: i.add("CORRECTION", bytes(28), 0, dtype=1), "its corrections for int8 fill 28 bytes"),
    (lambda i: i.add("CORRECTION", bytes(32), 0, dtype=2), "has the data type 2"),
    (lambda i: i.add("CORRECTION", bytes(32), 0, layout=1, dtype=1), "has the layout 1"),
    (lambda i: i.add("CORRECTION", bytes(32), 3, dtype=1), "a section of kind is 12"),
    (lambda i: i.add("CORRECTION", bytes(32), dtype=1), "belongs to layer -1"),
    (lambda i: [i.add("CORRECTION", bytes(32), 0, dtype=1) for _ in "ab"], "two sections of kind 12 for layer 0"),
    (section("WEIGHTS", 9, kind=11, layout=7), "its weights is missing"),
    (section("SCALE", 0, layer=3), "absent: the operation has no weights"),
]
NETWORK = [
    (fields("network", rows=0), "an input of 0 x 22 x 3"),
    (fields("network", rows=-1), "an input of -1"),
    (fields("network", rows=65536, cols=65536), "is not supported"),
    (fields("network", rows=26), "says its output is 12 x 11 x 8"),
    (fields("network", channels=4), "channels is 4"),
    (fields("network", outputs=8), "there are 7 labels for 8 outputs"),
    (fields("network", outputs=0), "outputs is 0"),
    (fields("network", flags=2), "flags is 2"),
    (fields("network", formation=3), "formation is 3"),
    (fields("network", formation=1, picture_rows=30, picture_cols=30), "mean picture is missing"),
    (fields("network", formation=1, picture_rows=3, picture_cols=30), "picture_rows is 3"),
    (fields("network", formation=1, picture_rows=65536, picture_cols=65536), "picture's size"),
    (fields("network", crop_padding=-1), "crop_padding is -1"),
    (fields("network", channel_order=2), "channel_order is 2"),
    (fields("network", channel_mean=[float("nan"), 0, 0, 0]), "mean or scale"),
    (fields("network", channel_scale=[0, float("inf"), 0, 0]), "mean or scale"),
    (fields("network", scan_layer=3), "-1 without ccv's picture formation"),
    (fields("network", scan_layer=-2), "scan_layer is -2"),
    (fields("network", scan_layer=14), "scan_layer is 14"),
    (fields("network", default_patches=2), "default_patches is 2"),
    (fields("network", default_patches=10), "default_patches is 10"),
    (fields("network", reserved=[0] * 11 + [1]), "reserved"),
]
LAYERS = [
    (fields("layer", 0, op=0), "its operation is 0"),
    (fields("layer", 0, op=12), "its operation is 12"),
    (fields("layer", 0, activation=3), "its activation is 3"),
    (fields("layer", 4, activation=1), "0 for this operation"),
    (fields("layer", 0, input_count=0), "the number of its inputs is 0"),
    (fields("layer", 0, input_count=2), "the number of its inputs is 2"),
    (fields("layer", 3, input_count=1), "the number of its inputs is 1"),
    (fields("layer", 7, input_count=9), "the number of its inputs is 9"),
    (fields("layer", 7, input_count=2), "says its output is 6 x 11 x 24"),
    (fields("layer", 0, inputs=[0]), "an input is 0"),
    (fields("layer", 1, inputs=[-2]), "an input is -2"),
    (fields("layer", 1, inputs=[1000]), "an input is 1000"),
    (fields("layer", 3, inputs=[-1, 2]), "its two inputs differ in shape"),
    (fields("layer", 7, inputs=[5, 4, 5]), "differ in rows or columns"),
    (fields("layer", 0, rows=13), "says its output is 13 x 11 x 8, but its inputs make it 12 x 11 x 8"),
    (fields("layer", 0, channels=0), "an output of 12 x 11 x 0"),
    (fields("layer", 0, channels=9), "its weights fill"),
    (fields("layer", 0, kernel_rows=0), "a kernel's side is 0"),
    (fields("layer", 0, kernel_cols=65537), "a kernel's side is 65537"),
    (fields("layer", 0, kernel_rows=60), "larger than its padded input"),
    (fields("layer", 0, stride_rows=0), "a stride is 0"),
    (fields("layer", 0, stride_cols=-1), "a stride is -1"),
    (fields("layer", 0, pad_top=-1), "a padding is -1"),
    (fields("layer", 0, pad_top=4), "a padding is 4"),
    (fields("layer", 5, pad_right=2), "a padding is 2"),
    (fields("layer", 0, pad_right=0x7FFFFFFF), "a padding is 2147483647"),
    (fields("layer", 0, groups=0), "its number of groups is 0"),
    (fields("layer", 0, groups=2), "its groups do not divide the input channels"),
    (fields("layer", 1, groups=3), "a divisor of its channels"),
    (fields("layer", 4, groups=5), "a divisor of its channels"),
    (fields("layer", 4, size=0), "its window is 0"),
    (fields("layer", 4, kappa=float("nan")), "finiteness"),
    (fields("layer", 4, kappa=0.0), "the sign of kappa"),
    (fields("layer", 8, begin=-1), "takes channels that its input does not have"),
    (fields("layer", 8, begin=0x7FFFFFFF), "takes channels that its input does not have"),
    (fields("layer", 8, begin=20), "takes channels that its input does not have"),
    (fields("layer", 0, weight_dtype=0), "its weights' data type is 0"),
    (fields("layer", 0, weight_dtype=6), "its weights' data type is 6"),
    (fields("layer", 0, weight_dtype=2), "data type 1, not 2 as the layer says"),
    (fields("layer", 0, codebook_entries=3), "0 beside float weights"),
    (fields("layer", 3, weight_dtype=1), "0 for an operation without weights"),
    (fields("layer", 2, codebook_dtype=3), "its codebook's data type is 3"),
    (fields("layer", 2, codebook_entries=0), "the size of its codebook is 0"),
    (fields("layer", 2, codebook_entries=17), "the size of its codebook is 17"),
    (fields("layer", 2, codebook_entries=15), "its codebook entries fill 32 bytes"),
    (fields("layer", 0, reserved=[1]), "a reserved word is 1"),
    (fields("layer", 0, name=b"x" * 64), "its name is not clean UTF-8"),
    (fields("layer", 0, name=b"\x1b[31m"), "its name is not clean UTF-8"),
    (fields("layer", 0, name=b"\xff"), "its name is not clean UTF-8"),
]
TEXTS = [
    (lambda i: i.grow("META", b"[]"), "no JSON object"),
    (lambda i: i.grow("META", b"{"), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":"x"}{}'), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":"x",}'), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":"\xff"}'), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":"\\ud800"}'), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":01}'), "no JSON object"),
    (lambda i: i.grow("META", b'{"name":"x","y":' + b"[" * 100 + b"]" * 100 + b"}"), "no JSON object"),
    (lambda i: i.grow("META", b"{" + b'"a":{' * 100000), "no JSON object"),
    (lambda i: i.grow("META", b"{}"), "has no name"),
    (lambda i: i.grow("META", b'{"name":7}'), "has no name"),
    (lambda i: i.grow("META", b'{"name":"\\u001b[31m"}'), "control characters"),
    (lambda i: i.grow("META", b'{"other":{"name":"x"}}'), "has no name"),
    (lambda i: i.grow("META", b" " * ((1 << 20) + 1)), "missing or over 1 MiB"),
    (lambda i: i.grow("LABELS", b"n1\tone\n" * 6), "there are 6 labels for 7 outputs"),
    (lambda i: i.grow("LABELS", b"n1\tone\n" * 8), "more labels than the 7 outputs"),
    (lambda i: i.grow("LABELS", b"n1\tone\n" * 6 + b"n1\tone"), "label 6 is not"),
    (lambda i: i.grow("LABELS", b"n1 one\n" * 7), "label 0 is not"),
    (lambda i: i.grow("LABELS", b"\tone\n" * 7), "label 0 is not"),
    (lambda i: i.grow("LABELS", b"n1\tone\ttwo\n" * 7), "label 0 is not"),
    (lambda i: i.grow("LABELS", b"n1\t\x1b[31m\n" * 7), "not clean UTF-8"),
    (lambda i: i.grow("LABELS", b"n1\t\x00\n" * 7), "not clean UTF-8"),
]


def ranges(low: float, high: float, method: int = 1) -> Change:
    """Activation ranges of 0 to 1, that of layer 4 as given."""

    def change(image: PackedImage) -> None:
        table = [struct.pack("<ffII", 0, 1, 1, 0)] * (1 + image.header.layer_count)
        table[5] = struct.pack("<ffII", low, high, method, 0)
        image.add("RANGES", b"".join(table))

    return change


RANGES = [
    (ranges(0, math.nan), "the activation range of layer 4 is not one"),
    (ranges(-math.inf, 1), "the activation range of layer 4 is not one"),
    (ranges(1, 0.5), "the activation range of layer 4 is not one"),
    (ranges(0, 1, 3), "the activation range of layer 4 is not one"),
    (lambda i: i.add("RANGES", bytes(32)), "the activation ranges have 32 bytes instead of"),
]
LATE: list[tuple[Change, str]] = [  # what only `verify` sees
    (
        lambda i: i.add("CORRECTION", np.array([0, np.inf, 0, 0, 0, 0, 0, 0], "<f4").tobytes(), 0, dtype=1),
        "number 1 of its corrections for int8 is not finite",
    ),
    (lambda i: i.put("BIAS", np.float32(np.nan).tobytes(), 0), "number 0 of its biases is not finite"),
    (lambda i: i.put("SCALE", np.float32(np.inf).tobytes(), 0), "number 0 of its scales is not finite"),
    (lambda i: i.put("WEIGHTS", np.array([0, np.nan], "<f4").tobytes(), 0), "number 1 of its weights is not finite"),
    (lambda i: i.put("WEIGHTS", np.array([0, 0, np.inf], "<f2").tobytes(), 1), "number 2 of its weights is not finite"),
    (lambda i: i.put("CODEBOOK", np.full(16, np.nan, "<f2").tobytes(), 2), "of its codebook is not finite"),
    (lambda i: i.put("WEIGHTS", b"\x00\xc9", 12), "has index 201, but the codebook has 200 entries"),
    (lambda i: i.put("WEIGHTS", b"\x03", 14), "weight 0 of output 0 has index 3, but the codebook has 3 entries"),
    (lambda i: i.data.__setitem__(i.section("META").offset + i.section("META").bytes, 1), "belongs to no section"),
]


@pytest.mark.parametrize(("change", "message"), HEADER + SECTIONS + NETWORK + LAYERS + TEXTS + RANGES)
def test_fields_that_cannot_be(klaus: Klaus, models: Models, tmp_path: Path, change: Change, message: str) -> None:
    image = PackedImage(models["every_op"].read_bytes())
    change(image)
    path = tmp_path / "damaged.klaus"
    path.write_bytes(image.sign().data)
    for command in (["verify", path], ["info", "--plan", "--model", path]):
        said = klaus(*command, code=2)
        assert message in said.stderr
        assert str(path) in said.stderr


@pytest.mark.parametrize(("change", "message"), LATE)
def test_bytes_that_only_verify_reads(
    klaus: Klaus, models: Models, tmp_path: Path, change: Change, message: str
) -> None:
    image = PackedImage(models["every_op"].read_bytes())
    change(image)
    path = tmp_path / "damaged.klaus"
    path.write_bytes(image.sign().data)
    said = klaus("verify", path, code=1)
    assert said.one("verify")["ok"] is False
    assert message in said.stderr
    klaus("info", "--plan", "--model", path)
    done = klaus("bench", "--model", path, "--runs", 1, code=None)  # the answers may be finite for all that
    assert done.of("load")
    assert done.code in (0, 1)


def test_int8_needs_the_range_of_every_layer(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    for method, code in ((1, 0), (0, 2)):
        image = PackedImage(models["every_op"].read_bytes())
        ranges(-1, 6, method)(image)
        path = tmp_path / f"{method}.klaus"
        path.write_bytes(image.sign().data)
        said = klaus("bench", "--model", path, "--runs", 1, "--precision", "int8", code=code)
        assert ("has no activation range of every layer" in said.stderr) == (code != 0)


def test_scan_layers_that_cannot_be(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    for change, message in (
        (fields("layer", 2, inputs=[0]), "must be the scan layer or one behind it"),
        (fields("layer", 1, inputs=[-1], kernel_rows=1), "must be the layer before it, up to the scan layer"),
        (fields("network", scan_layer=4), "conv, pool, LRN or activation up to the scan layer"),
        (section("MEAN", bytes=12), "the mean picture has 12 bytes"),
        (fields("network", formation=0), "-1 without ccv's picture formation"),
    ):
        image = PackedImage(models["scanned"].read_bytes())
        change(image)
        path = tmp_path / "damaged.klaus"
        path.write_bytes(image.sign().data)
        said = klaus("verify", path, code=2)
        assert message in said.stderr or "says its output is" in said.stderr, said.stderr


def test_packed_sections_of_another_layout_are_left_alone(
    klaus: Klaus, arm_build: Build, models: Models, tmp_path: Path
) -> None:
    """A layout that no kernel knows, and known ones of a size that cannot be: weights are packed as without them."""
    path = tmp_path / "packed.klaus"
    arm = runner(emulated(arm_build.program, "linux-aarch64"))
    known = (2, 12, 20)  # kernels/ops/layouts.h: convolution's panels, depthwise; 1 and 3 are retired
    for layout in (1, 3, *known, 77, 0xFFFFFFFF):
        image = PackedImage(models["scanned"].read_bytes())
        image.add("PACKED", b"\xff" * 100, layer=0, layout=layout, dtype=1)
        path.write_bytes(image.sign().data)
        for run in (klaus, arm):
            answers = [
                run("bench", "--model", model, "--runs", 1, "--warmup", 0).one("bench")["top"]
                for model in (path, models["scanned"])
            ]
            assert answers[0] == answers[1]
        klaus("verify", path)  # this computer knows none of them
        said = arm("verify", path, code=1 if layout in known else 0)
        assert layout not in known or f"100 bytes in layout {layout}, are none that a kernel makes of it" in said.stderr
    image.add("PACKED", b"\xff" * 100, layer=0, layout=0xFFFFFFFF, dtype=1)
    path.write_bytes(image.sign().data)
    assert "two packed sections of layer 0" in klaus("verify", path, code=2).stderr


def _panels(convolution: Convolution, width: int) -> bytes:
    """kernels/ops/conv/conv_gemm.h: per panel the scales, the biases, the weights by input, then by output."""
    filters = convolution.weights.values
    panels = b""
    for first in range(0, len(filters), width):
        some = filters[first : first + width]
        panel = np.zeros((2 + some[0].size, min(width, -(-len(some) // 4) * 4)), "<f4")
        panel[0, : len(some)] = 1
        panel[1, : len(some)] = convolution.weights.bias[first : first + width]
        panel[2:, : len(some)] = some.reshape(len(some), -1).T
        panels += panel.tobytes()
    return panels


def test_packed_sections_are_used_and_verified(arm_build: Build, models: Models, tmp_path: Path) -> None:
    run = runner(emulated(arm_build.program, "linux-aarch64"))
    forced = ("--variant", "klaus_conv_f32_neon_4x8")
    (layout,) = {
        step["layout"]
        for step in run("info", "--plan", "--model", models["scanned"], *forced).of("step")
        if step["variant"] == forced[1]
    }
    convolution = nets.scanned().layers[1]
    assert isinstance(convolution, Convolution)
    right = _panels(convolution, 8)
    path = tmp_path / "packed.klaus"
    answers = []
    for content in (right, right[:-4] + np.float32(7).tobytes()):
        image = PackedImage(models["scanned"].read_bytes())
        image.add("PACKED", content, layer=1, layout=layout, dtype=1)
        path.write_bytes(image.sign().data)
        steps = run("info", "--plan", "--model", path, *forced).of("step")
        assert [step["packed_in_file"] for step in steps][:2] == [False, True]
        answers.append(run("bench", "--model", path, "--runs", 1, *forced).one("bench")["top"])
        said = run("verify", path, code=0 if content is right else 1)
    assert f"layer 1: its packed weights in layout {layout} are not those of its canonical weights" in said.stderr
    plain = run("bench", "--model", models["scanned"], "--runs", 1, *forced).one("bench")["top"]
    assert answers[0] == plain


def test_cut_files(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    data = models["every_op"].read_bytes()
    path = tmp_path / "cut.klaus"
    for length in (0, 1, 7, 8, 63, 64, 65, 95, 96, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert str(path) in klaus("verify", path, code=2).stderr
        if length >= 64:  # with a header that fits
            image = PackedImage(data[:length])
            image.header.file_bytes = length
            path.write_bytes(image.sign().data)
            klaus("verify", path, code=2)
    path.write_bytes(data + b"\0")
    assert "was cut or changed" in klaus("verify", path, code=2).stderr
    path.write_bytes(data + bytes(1 << 20))
    assert "was cut or changed" in klaus("verify", path, code=2).stderr


def test_a_model_larger_than_memory(klaus: Klaus, tmp_path: Path) -> None:
    """Activations of 1 GiB each that are all needed at once, a few more than this computer holds."""
    side = 16384
    count = klaus("info").one("info")["memory_bytes"] // (4 * side * side) + 2
    layers: list[Layer] = [Softmax(f"softmax {index}", (-1,)) for index in range(count)]
    layers.append(Add("sum", (0, 1)))
    layers += [Add(f"sum {index}", (count + index - 2, index)) for index in range(2, count)]
    layers.append(GlobalPool("pool", (len(layers) - 1,)))
    model = Model("huge", (side, side, 1), tuple(layers), None, (), Provenance("none", "none", "none"))
    path = pack.pack(model, tmp_path / "huge.klaus")
    assert path.stat().st_size < 1 << 20
    klaus("verify", path)
    said = klaus("bench", "--model", path, code=2)
    assert re.search(r"\d+ MB of memory are needed, \d+ MB are available", said.stderr)


def _grown_groups(path: Path) -> Path:
    """nets.many_groups() with kernels of 46 x 89: 65536 panels of 4 * (2 + 4094) floats."""
    image = PackedImage(pack.pack(nets.many_groups(), path).read_bytes())
    image.network.rows, image.network.cols = 46, 89
    layer = image.layer(0)
    layer.kernel_rows, layer.kernel_cols = 46, 89
    image.grow("WEIGHTS", bytes(65536 * -(-46 * 89 // 4)), 0)
    path.write_bytes(image.sign().data)
    return path


@pytest.fixture(scope="session")
def armv7(built: Callable[[str], Build]) -> Klaus:
    """klaus-run of 32-bit ARM, where sizes end at 2^32."""
    return runner(emulated(built("linux-armv7").program, "linux-armv7"))


TOO_MUCH = re.compile(r"(\d+) MB of memory are needed, (\d+) MB are available")


def _refused_for_memory(said: Said) -> None:
    found = TOO_MUCH.search(said.stderr)
    assert found, said.stderr
    assert int(found[1]) >= 4294
    assert int(found[2]) < 2148


def test_scratch_beyond_32_bits(armv7: Klaus, tmp_path: Path) -> None:
    path = pack.pack(nets.wide_padding(), tmp_path / "wide.klaus")
    assert path.stat().st_size < 10_000
    armv7("verify", path)
    for command in (["bench", "--runs", 1, "--warmup", 0], ["info", "--plan"]):
        _refused_for_memory(armv7(*command, "--model", path, code=2))


def test_packed_weights_beyond_32_bits(armv7: Klaus, tmp_path: Path) -> None:
    _refused_for_memory(armv7("info", "--plan", "--model", _grown_groups(tmp_path / "groups.klaus"), code=2))


def test_pictures_beyond_32_bits(armv7: Klaus, tmp_path: Path) -> None:
    path = pack.pack(nets.wide_crop(), tmp_path / "crop.klaus")
    batch = pack.write_batch(tmp_path / "batch", [("thin", np.zeros((21846, 1, 3), np.uint8))])
    _refused_for_memory(armv7("classify", "--model", path, "--images", batch, "--crop", "none", code=2))


def _fuzzer(root: Path, out: Path, target_name: str) -> list[str]:
    """loader_fuzz.c and the library's sources as one program, with the sanitizers that the compiler has."""
    target = load_targets()[target_name]
    toolchain = detect.toolchain_for(target)
    sources = library_sources(root, toolchain)
    flags = [*FLAGS, *commands.machine_flags(target, toolchain, None)]
    trap = [
        "-fsanitize=undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
        "-fsanitize-trap=undefined,float-cast-overflow",
    ]
    address = [
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
        "-DKLAUS_ADDRESS_SANITIZER",
    ]
    program = out / "loader_fuzz"
    run = [str(program)] if target_name == "host" else emulated(program, target_name)
    cache = str(root / ".cache" / "zig")
    for sanitizers in (address, trap, []) if target_name == "host" else (trap,):
        argv = [*toolchain.compiler, *flags, *sanitizers, *map(str, sources), str(HERE / "loader_fuzz.c")]
        done = subprocess.run(
            [*argv, "-o", str(program), *LIBRARIES],
            cwd=root,
            capture_output=True,
            timeout=600,
            check=False,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        )
        # A compiler may accept the flags and lack the library, which shows when the program starts.
        if done.returncode == 0 and subprocess.run(run, check=False, capture_output=True).returncode == 2:
            return run
    pytest.fail(done.stderr.decode())


@pytest.fixture(scope="session")
def fuzzer(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return _fuzzer(root, tmp_path_factory.mktemp("fuzz"), "host")


@pytest.fixture(scope="session")
def armv7_fuzzer(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return _fuzzer(root, tmp_path_factory.mktemp("fuzz"), "linux-armv7")


def _damage(fuzzer: list[str], model: Path, cases: int) -> dict[str, int]:
    done = subprocess.run(
        [*fuzzer, model, str(cases), "1"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    words = done.stdout.split()
    return {word: int(count) for word, count in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.parametrize(
    ("name", "cases"), [("every_op", 1500), ("scanned", 700), ("softmax", 1500), ("a-depth8-index", 200)]
)
def test_random_damage(fuzzer: list[str], models: Models, name: str, cases: int) -> None:
    """Flipped bits, hostile words, swapped sections, cut ends: refused, or run without touching foreign memory."""
    counts = _damage(fuzzer, models[name], cases)
    assert counts["cases"] == cases
    assert cases // 20 < counts["opened"] < cases // 2  # neither all refused nor all harmless
    assert counts["ran"] > cases // 40


@pytest.mark.parametrize("number", range(len(LATE)))
def test_what_only_verify_sees_harms_no_precision(
    fuzzer: list[str], models: Models, tmp_path: Path, number: int
) -> None:
    """Weights that are no numbers (found by libFuzzer: a cast of one to int8), with ranges, so that int8 runs too."""
    image = PackedImage(models["every_op"].read_bytes())
    LATE[number][0](image)
    ranges(-1, 6)(image)
    path = tmp_path / "damaged.klaus"
    path.write_bytes(image.sign().data)
    done = subprocess.run([*fuzzer, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "cases 1 opened 1 verified 0 ran 1\n"), done.stderr[-4000:]


@pytest.mark.slow
def test_random_damage_where_sizes_end_at_32_bits(armv7_fuzzer: list[str], models: Models, tmp_path: Path) -> None:
    wide = pack.pack(nets.wide_padding(), tmp_path / "wide.klaus")
    for path, cases in ((wide, 200), (models["every_op"], 300), (models["scanned"], 100)):
        counts = _damage(armv7_fuzzer, path, cases)
        assert counts["cases"] == cases
        assert counts["opened"] > cases // 20
