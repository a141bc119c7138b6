"""klaus-run's contract: commands, options, records and exit codes of docs/device-program.md."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from klaus_runtime import pack
from klaus_runtime.model import FullConnect, Weights
from tests.kernels import nets
from tests.kernels.conftest import Klaus, emulated, runner

if TYPE_CHECKING:
    from toolchains.build import Build

Models = dict[str, Path]


def test_info(klaus: Klaus) -> None:
    info = klaus("info").one("info")
    assert info["target"] == "host"
    assert "ref" in info["isa"]
    assert info["format_version"] == 1
    assert info["cpus"] >= 1
    assert info["memory_bytes"] > 1 << 20
    assert re.fullmatch(r"0x[0-9a-f]{8}", info["midr"])


@pytest.mark.parametrize(
    ("cpu", "core", "core_class", "isa"),
    [
        ("cortex-a53", "cortex-a53", "in-order", ["ref", "neon"]),
        ("cortex-a76", "cortex-a76", "out-of-order", ["ref", "neon", "neon_fp16", "neon_dotprod"]),
    ],
)
def test_info_on_arm(arm_build: Build, cpu: str, core: str, core_class: str, isa: list[str]) -> None:
    info = runner(emulated(arm_build.program, "linux-aarch64", cpu))("info").one("info")
    assert (info["target"], info["arch"]) == ("linux-aarch64", "aarch64")
    assert (info["core"], info["core_class"], info["isa"]) == (core, core_class, isa)


def test_no_command_shows_the_usage(klaus: Klaus) -> None:
    assert klaus(code=2).stderr.startswith("usage: klaus-run")
    assert "usage: klaus-run" in klaus("help").stderr
    assert "usage: klaus-run" in klaus("--help").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "'fly' is no command"),
        (["fl\x1b[31my\n"], "is no command"),
        (["info", "extra"], "'extra' was not expected"),
        (["info", "--plan"], "--plan and --model M belong together"),
        (["info", "--model", "x"], "--plan and --model M belong together"),
        (["verify"], "name one packed model"),
        (["verify", "a", "b"], "name one packed model"),
        (["hash"], "name files"),
        (["bench"], "--model is missing"),
        (["bench", "--model"], "--model: its value is missing"),
        (["bench", "--model", ""], "--model: its value is empty"),
        (["bench", "--modle", "x"], "--modle: no such option"),
        (["bench", "--profile=1"], "--profile takes no value"),
        (["bench", "--model", "x", "--runs", "2", "--runs", "3"], "--runs is given twice; it has one value"),
        (["bench", "--model", "x", "--model=x"], "--model is given twice"),
        (["classify", "--isa", "ref", "--model", "x", "--isa", "ref"], "--isa is given twice"),
        (["bench", "--model", "x", "--runs", "0"], "--runs: '0' is not a whole number from 1 to 1000000"),
        (["bench", "--model", "x", "--runs", "1e3"], "--runs: '1e3' is not"),
        (["bench", "--model", "x", "--runs", " 7"], "--runs: ' 7' is not"),
        (["bench", "--model", "x", "--runs", "99999999999999999999"], "is not a whole number"),
        (["bench", "--model", "x", "--runs=-1"], "--runs: '-1' is not"),
        (["bench", "--model", "x", "--threads", "65"], "--threads: '65' is not a whole number from 1 to 64"),
        (["bench", "--model", "x", "--isa", "avx"], "--isa: 'avx' is none of auto, ref, neon"),
        (["bench", "--model", "x", "--precision", "fp8"], "--precision: 'fp8' is none of fp32, fp16, int8"),
        (["bench", "--model", "x", "--patches", "5"], "--patches: 5 is neither 1 nor 10"),
        (["bench", "--model", "x", "--patches", "10", "--input", "y"], "belong to one pass"),
        (["bench", "--model", "x"], "x: cannot be opened: No such file"),
        (["bench", "--model", "."], ".: is not a regular file"),
        (["classify", "--model", "x"], "--images is missing"),
        (["classify", "--model", "x", "--images", "y", "--crop", "left"], "--crop: 'left' is none of none, center"),
        (["classify", "--model", "x", "--images", "y", "--top", "0"], "--top: '0' is not"),
        (["activations", "--model", "x", "--input", "y"], "--out is missing"),
        (["check", "--op", "fly"], "no kernel"),
        (["check", "--seed", "-1"], "--seed: '-1' is not"),
    ],
)
def test_bad_usage(klaus: Klaus, arguments: list[str], message: str) -> None:
    said = klaus(*arguments, code=2)
    assert message in said.stderr
    assert not said.records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp16"], "precision fp16 needs neon_fp16, which this CPU does not have; use fp32"),
        (["--precision", "int8"], "has no activation range of every layer, which int8 needs; `klaus calibrate"),
        (["--variant", "klaus_fly_f32_ref"], "no kernel variant is called klaus_fly_f32_ref"),
        (["--patches", "10"], "does not cut patches"),
        (["--input", "/dev/null"], "is not a regular file"),
    ],
)
def test_what_a_session_cannot_do(klaus: Klaus, models: Models, options: list[str], message: str) -> None:
    assert message in klaus("bench", "--model", models["every_op"], *options, code=2).stderr


def test_an_instruction_set_that_is_not_there(arm_build: Build, models: Models) -> None:
    klaus = runner(emulated(arm_build.program, "linux-aarch64", "cortex-a53"))
    said = klaus("bench", "--model", models["every_op"], "--isa", "neon_fp16", code=2)
    assert "this CPU has no neon_fp16" in said.stderr


def test_bench(klaus: Klaus, models: Models) -> None:
    said = klaus("bench", "--model", models["every_op"], "--runs", 3, "--warmup=2", "--profile", "--mark")
    kinds = [record["record"] for record in said.records]
    assert kinds == ["load", *["pass"] * 5, *["layer"] * 15, "memory", "bench"]
    assert [(p["index"], p["warmup"], p["job"]) for p in said.of("pass")] == [(i, i < 2, "pass") for i in range(5)]
    assert all(p["ns"] > 0 and p["preprocess_ns"] == 0 for p in said.of("pass"))
    assert said.one("load")["file_bytes"] == models["every_op"].stat().st_size
    layers = said.of("layer")
    assert [layer["name"] for layer in layers] == [layer.name for layer in nets.every_op().layers]
    assert layers[0]["multiplies"] == 12 * 11 * 8 * 27
    assert layers[1]["multiplies"] == 12 * 11 * 8 * 15
    assert layers[14]["multiplies"] == 7 * 13
    bench = said.one("bench")
    assert (bench["model"], bench["runs"], bench["warmup"], bench["threads"]) == ("every op", 3, 2, 1)
    assert (bench["isa"], bench["precision"], bench["job"], bench["seeded"]) == ("auto", "fp32", "pass", True)
    assert len(bench["top"]) == 5
    values = [entry["probability"] for entry in bench["top"]]
    assert values == sorted(values, reverse=True)
    names = {label.name for label in nets.every_op().labels}
    assert {entry["label"] for entry in bench["top"]} < names
    memory = said.one("memory")
    assert memory["peak_resident_bytes"] >= memory["resident_bytes"] > 0
    assert memory["session_bytes"] > 0


def test_bench_of_ten_patches(klaus: Klaus, models: Models) -> None:
    said = klaus("bench", "--model", models["scanned"], "--runs", 2, "--patches", 10, "--profile")
    assert {p["job"] for p in said.of("pass")} == {"10-patch"}
    assert all(0 < p["preprocess_ns"] < p["ns"] for p in said.of("pass"))
    assert all(layer["ns"] > 0 for layer in said.of("layer"))
    probabilities = [entry["probability"] for entry in said.one("bench")["top"]]
    assert 0 < sum(probabilities) <= 1.00001


def test_bench_is_the_same_everywhere(klaus: Klaus, models: Models, arm_build: Build) -> None:
    """Its pseudo-random input does not depend on the device; nor do the answers, but for rounding."""
    here = klaus("bench", "--model", models["scanned"], "--runs", 1).one("bench")["top"]
    there = runner(emulated(arm_build.program, "linux-aarch64"))("bench", "--model", models["scanned"], "--runs", 1)
    for a, b in zip(here, there.one("bench")["top"], strict=True):
        assert (a["id"], a["label"]) == (b["id"], b["label"])
        assert a["probability"] == pytest.approx(b["probability"], rel=1e-3)


def test_marks_are_made(arm_build: Build, models: Models) -> None:
    """qemu shows the system calls: getpriority(0x4b4c, 10 + 2k) before pass k, 11 + 2k after it, warm-ups counted.

    In between 999 before the layers and 1000 + n behind layer n.
    """
    argv = emulated(arm_build.program, "linux-aarch64")
    argv = [argv[0], "-strace", *argv[1:], "bench", "--model", str(models["softmax"]), "--runs", "2", "--mark"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=True)
    found = re.findall(r"getpriority\((\w+),(\w+)", done.stderr)
    assert {int(which, 0) for which, _ in found} == {0x4B4C}
    wanted = [[10 + 2 * k, 999, 1000, 1001, 11 + 2 * k] for k in range(3)]
    assert [int(tag, 0) for _, tag in found] == [tag for tags in wanted for tag in tags]


def test_verify(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    path = models["every_op"]
    record = klaus("verify", path).one("verify")
    data = path.read_bytes()
    assert record["ok"] is True
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert (record["file_bytes"], record["layers"], record["name"]) == (len(data), 15, "every op")
    damaged = tmp_path / "damaged.klaus"
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    said = klaus("verify", damaged, code=1)
    assert said.one("verify")["ok"] is False
    assert f"{damaged}: its SHA-256 is" in said.stderr


def test_hash(klaus: Klaus, tmp_path: Path) -> None:
    contents = [b"", b"a", b"abc", bytes(55), bytes(56), bytes(63), bytes(64), bytes(119), bytes(range(256)) * 999]
    paths = []
    for index, content in enumerate(contents):
        paths.append(tmp_path / f"file {index}")
        paths[-1].write_bytes(content)
    records = klaus("hash", *paths).records
    assert [r["sha256"] for r in records] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert [r["bytes"] for r in records] == [len(content) for content in contents]
    assert [r["file"] for r in records] == [str(path) for path in paths]


def test_hash_of_what_is_no_file(klaus: Klaus, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    said = klaus("hash", tmp_path / "absent", tmp_path / "there", tmp_path, tmp_path / "pipe", code=2)
    assert [record["file"] for record in said.records] == [str(tmp_path / "there")]
    assert "absent: cannot be opened" in said.stderr
    assert "is not a regular file" in klaus("hash", tmp_path / "pipe", code=2).stderr


def test_names_are_escaped(klaus: Klaus, tmp_path: Path) -> None:
    """Hostile file names come back exactly through JSON, and act on no terminal."""
    names = ['quote"back\\slash', "new\nline\ttab", "\x1b[31mred\x07", "ünïcode-🦊", "del\x7f\u0085", "\u2028"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    said = klaus("hash", *[tmp_path / name for name in names])
    assert [Path(record["file"]).name for record in said.records] == names
    for name in names:
        missing = klaus("hash", tmp_path / f"{name}?", code=2)
        assert "cannot be opened" in missing.stderr


def test_a_name_that_is_no_utf8(host_build: Build, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/bad-\xff-\xed\xa0\x80-name"
    Path(os.fsdecode(path)).write_bytes(b"x")
    done = subprocess.run([host_build.program, "hash", path], capture_output=True, timeout=60, check=True)
    assert b"bad-\\ufffd-\\ufffd\\ufffd\\ufffd-name" in done.stdout


def test_a_closed_stdout_is_an_error(host_build: Build) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [host_build.program, "info"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 5
    assert b"stdout cannot be written to" in done.stderr


def test_activations(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    given = tmp_path / "input.f32"
    np.zeros(nets.INPUT, "<f4").tofile(given)
    out = tmp_path / "out"
    said = klaus("activations", "--model", models["every_op"], "--input", given, "--out", out)
    assert [record["layer"] for record in said.records] == list(range(15))
    assert [record["name"] for record in said.records] == [layer.name for layer in nets.every_op().layers]
    assert sorted(path.name for path in out.iterdir()) == [f"layer-{layer:02d}.f32" for layer in range(15)]
    again = klaus("activations", "--model", models["every_op"], "--input", given, "--out", out)
    assert again.records == said.records
    refused = klaus("activations", "--model", models["every_op"], "--input", given, "--out", given, code=2)
    assert "cannot be written" in refused.stderr or "cannot be made" in refused.stderr
    assert "cannot be made" in klaus(
        "activations", "--model", models["every_op"], "--input", given, "--out", tmp_path / "no" / "way", code=2
    ).stderr  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(25 * 22 * 3 * 4 - 1), "has 6599 bytes, but an input of 25 x 22 x 3 float32 has 6600"),
        (bytes(25 * 22 * 3 * 4 + 4), "has 6604 bytes"),
        (np.full(25 * 22 * 3, np.nan, "<f4").tobytes(), "value 0 is infinite or not a number"),
        (np.append(np.zeros(25 * 22 * 3 - 1, "<f4"), np.float32(np.inf)).tobytes(), "value 1649 is infinite"),
    ],
)
def test_bad_inputs(klaus: Klaus, models: Models, tmp_path: Path, content: bytes, message: str) -> None:
    given = tmp_path / "input.f32"
    given.write_bytes(content)
    for command in (["bench"], ["activations", "--out", tmp_path / "out"]):
        said = klaus(*command, "--model", models["every_op"], "--input", given, code=2)
        assert message in said.stderr
        assert not (tmp_path / "out").exists()


def test_answers_that_are_no_numbers(klaus: Klaus, models: Models, tmp_path: Path) -> None:
    given = tmp_path / "input.f32"
    np.full(12, 3e38, "<f4").tofile(given)
    said = klaus("bench", "--model", models["softmax"], "--input", given, code=1)
    assert "infinite or not a number" in said.stderr


def test_check(klaus: Klaus) -> None:
    variants = klaus("check", "--list").of("variant")
    assert {v["op"] for v in variants} >= {"conv", "full_connect", "lrn", "softmax"}
    assert all(v["variant"].startswith("klaus_") for v in variants)
    said = klaus("check", "--op", "add", "--seed", 3)
    assert all(record["ok"] and record["failed"] == 0 for record in said.of("check"))
    assert said.records[-1]["record"] == "summary"
    assert said.one("summary")["failed"] == 0


def test_arm_kernels_on_arm(arm_build: Build) -> None:
    """The whole checker, on a CPU with everything this project has kernels for."""
    said = runner(emulated(arm_build.program, "linux-aarch64"))("check", "--op", "softmax")
    assert said.one("summary")["failed"] == 0


def test_labels_with_the_highest_probability_come_first(klaus: Klaus, tmp_path: Path) -> None:
    """Ties go to the lower id: all weights zero makes all classes equal."""
    model = nets.ends_in_softmax()
    full = model.layers[0]
    zero = np.zeros((4, 12), np.float32)
    assert isinstance(full, FullConnect)
    equal = replace(model, layers=(replace(full, weights=Weights(zero, zero[:, 0])), model.layers[1]))
    path = pack.pack(equal, tmp_path / "equal.klaus")
    top = klaus("bench", "--model", path, "--runs", 1).one("bench")["top"]
    assert [(entry["id"], entry["probability"]) for entry in top] == [(i, 0.25) for i in range(4)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_casts_in_a_row_and_layers_that_lead_nowhere(
    klaus: Klaus, arm_build: Build, tmp_path: Path, precision: str
) -> None:
    arm = runner(emulated(arm_build.program, "linux-aarch64"))
    model = pack.pack(nets.crossing(), tmp_path / "crossing.klaus")
    for run in (klaus, arm) if precision != "fp16" else (arm,):
        found = []
        for more in ((), ("--unfused",), ("--memory", "lean", "--profile")):
            out = tmp_path / "logits.f32"
            run("bench", "--model", model, "--runs", 3, "--precision", precision, "--logits", out, *more)
            found.append(np.fromfile(out, "<f4"))
        assert np.abs(found[1]).max() > 1
        largest = np.abs(found[1]).max()
        bound = {"fp32": 1e-6 * largest, "fp16": 1e-2 * largest, "int8": 3 * 16 / 255}[precision]  # three steps of int8
        assert all(np.abs(logits - found[1]).max() <= bound for logits in found)
