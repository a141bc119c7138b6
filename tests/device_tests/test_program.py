"""klaus-run seen from here: the real one under qemu, and programs that lie."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_tests.devices import Device
from device_tests.errors import ProgramError
from device_tests.program import Program
from device_tests.program_records import HashRecord, Record, SummaryRecord, parse_record
from toolchains.build import Build

Liar = Callable[..., Program]
HASH = {"record": "hash", "file": "/x", "sha256": "0" * 64, "bytes": 3}


@pytest.fixture
def liar(make: Callable[..., Device], tmp_path: Path) -> Liar:
    """liar(stdout, status, stderr) -> a Program that says just that."""
    device = make("fake", "host", name="liar")

    def make_program(stdout: bytes | list[object], status: int = 0, stderr: bytes = b"") -> Program:
        text = stdout if isinstance(stdout, bytes) else b"".join(json.dumps(x).encode() + b"\n" for x in stdout)
        (tmp_path / "out").write_bytes(text)
        (tmp_path / "err").write_bytes(stderr)
        script = f"#!/bin/sh\ncat {shlex.quote(str(tmp_path / 'out'))}\ncat {shlex.quote(str(tmp_path / 'err'))} >&2\n"
        (tmp_path / "script").write_text(f"{script}exit {status}\n")
        device.put(tmp_path / "script", device.root / "klaus-run", executable=True, timeout_s=10)
        return Program(device, device.root / "klaus-run")

    return make_program


# --- the real program ---


@pytest.fixture(scope="session")
def program_file(arm_build: Build) -> Path:
    return arm_build.program


@pytest.fixture
def real(make: Callable[..., Device], program_file: Path) -> Program:
    device = make("qemu-user")
    remote = device.root / "klaus-run"
    device.put(program_file, remote, executable=True, timeout_s=30)
    return Program(device, remote)


def test_info(real: Program) -> None:
    told = real.info()
    assert (told.target, told.arch, told.core, told.core_class) == (
        "linux-aarch64",
        "aarch64",
        "cortex-a76",
        "out-of-order",
    )
    assert {"ref", "neon", "neon_fp16", "neon_dotprod"} <= set(told.isa)


def test_hash_many_and_missing(real: Program, tmp_path: Path) -> None:
    names = []
    for i in range(120):  # more than fits one command line
        (tmp_path / "f").write_bytes(b"x" * i)
        names.append(real.device.root / "many" / f"a-rather-long-file-name-{i:03}")
        if i % 40 != 7:
            real.device.put(tmp_path / "f", names[-1], timeout_s=10)
    found = real.hash(names, missing_ok=True)
    assert [(r.file, r.bytes) for r in found] == [(str(n), i) for i, n in enumerate(names) if i % 40 != 7]
    with pytest.raises(ProgramError, match="No such file"):
        real.hash(names)


def test_variants_and_a_check(real: Program) -> None:
    variants = real.variants()
    seen: list[Record] = []
    answer = real.check(op="softmax", on_record=seen.append)
    assert {v.variant for v in answer.variants} == {v.variant for v in variants if v.op == "softmax" and v.available}
    assert answer.summary == SummaryRecord(len(answer.variants), 0)
    assert len(seen) == len(answer.variants) + 1


def test_what_the_program_refuses_is_shown(real: Program, tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"\x1b[31mno model" * 100)
    remote = real.device.root / "rubbish.klaus"
    real.device.put(tmp_path / "rubbish", remote, timeout_s=10)
    with pytest.raises(
        ProgramError, match=r"qemu-user-test: klaus-run verify .*rubbish.klaus: exit status 2:\n  klaus-run: "
    ):
        real.verify(remote)
    with pytest.raises(ProgramError, match="exit status 2"):
        real.bench(remote, runs=1, warmup=0, timeout_s=20)


def test_a_program_that_is_not_there(make: Callable[..., Device]) -> None:
    device = make("qemu-user")
    with pytest.raises(ProgramError, match="is not there; was it deployed, and built for linux-aarch64"):
        Program(device, device.root / "klaus-run").info()


# --- programs that lie ---


@pytest.mark.parametrize(
    ("stdout", "message"),
    [
        (b"", "exit status 0, but no record"),
        (b"hello\n", "not JSON .*: hello"),
        (b"[1]\n", 'no JSON object with "record"'),
        (b'{"record": 3}\n', 'no JSON object with "record"'),
        (b'{"record": "owned"}\n', "unknown record 'owned'"),
        (b'{"record": "summary", "passed": 1, "failed": 0}\n', "an unexpected record"),
        (b'{"record": "hash", "file": "/x"}\n', "hash has no 'sha256'"),
        (json.dumps({**HASH, "bytes": "3"}).encode() + b"\n", "hash.bytes is '3', not what the contract says"),
        (json.dumps({**HASH, "bytes": -3}).encode() + b"\n", "hash.bytes is -3"),
        (json.dumps({**HASH, "bytes": 1 << 70}).encode() + b"\n", "hash.bytes is 1180"),
        (json.dumps({**HASH, "bytes": True}).encode() + b"\n", "hash.bytes is True"),
        (json.dumps({**HASH, "bytes": None}).encode() + b"\n", "hash.bytes is None"),
        (json.dumps({**HASH, "file": "y" * 5000}).encode() + b"\n", "hash.file is 'yyy"),
        (json.dumps({**HASH, "file": "/etc/passwd"}).encode() + b"\n", "a hash of '/etc/passwd'"),
        (json.dumps({**HASH, "sha256": "Z" * 64}).encode() + b"\n", "a hash of '/x' is 'ZZZ"),
        (b'{"record": "hash", "record": "hash"}\n', "a key stands twice"),
        (b'{"record": "hash", "bytes": NaN}\n', "NaN is no JSON number"),
        (b"[" * 200_000 + b"\n", "nested too deeply|not JSON"),
        (b'{"record": "hash", "bytes": ' + b"9" * 6000 + b"}\n", "broke its contract"),
        (b'\xff\xfe{"record": "hash"}\n', "not UTF-8"),
        (json.dumps(HASH).encode(), "ends in the middle of a line"),
        (b'\x1b]0;owned\x07\x1b[2J{"record"\n', r"not JSON .*\\x1b\]0;owned\\x07\\x1b\[2J"),
        ("{'\u202e\u2066'}\n".encode(), r"not JSON .*\\u202e\\u2066"),
    ],
)
def test_lies_are_named_and_shown_escaped(liar: Liar, stdout: bytes, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        liar(stdout).hash(["/x"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    assert caught.value.exit_code == 1


def test_stderr_is_escaped_and_short(liar: Liar) -> None:
    with pytest.raises(ProgramError, match=r"exit status 4:\n") as caught:
        liar(b"", 4, b"\x1b[31mred\nline 2\n" + b"z" * 20_000 + b"\n\xff\xfe\n").info()
    lines = str(caught.value).splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(map(len, lines)) < 1500
    assert r"\x1b[31mred" in lines[1]


@pytest.mark.parametrize(
    ("signal", "words"), [("SEGV", "ended by SIGSEGV"), ("KILL", r"ended by SIGKILL; out of memory\?")]
)
def test_a_crash_is_named(liar: Liar, signal: str, words: str) -> None:
    program = liar(b"")
    path = Path(program.path)
    path.write_text(f"#!/bin/sh\nkill -{signal} $$\n")
    with pytest.raises(ProgramError, match=words):
        program.info()


def test_a_torn_line_of_a_program_that_failed_is_not_the_news(liar: Liar) -> None:
    with pytest.raises(ProgramError, match="exit status 5"):
        liar(b'{"record": "inf', 5).info()


def bench_records(**changes: object) -> list[object]:
    """What a bench of one warm-up and two runs says."""
    passes = [
        {"record": "pass", "index": i, "warmup": i == 0, "job": "pass", "ns": 5, "preprocess_ns": 0} for i in range(3)
    ]
    top = [{"id": 1, "label": "a\u001b[31m goldfish", "probability": 0.5}]
    last = {"model": "m", "runs": 2, "warmup": 1, "threads": 1, "isa": "auto", "precision": "fp32", "job": "pass"}
    return [
        {"record": "load", "open_ns": 1, "session_ns": 2, "file_bytes": 3, "session_bytes": 4},
        *passes,
        {"record": "layer", "index": 0, "name": "l", "op": "conv", "ns": 1, "multiplies": 2, "more": {"later": 1}},
        {"record": "memory", "peak_resident_bytes": 9, "resident_bytes": 8, "session_bytes": 7},
        {"record": "bench", **last, "fused": True, "seeded": False, "top": top, **changes},
    ]


MODEL = PurePosixPath("/m.klaus")


def test_a_whole_bench(liar: Liar) -> None:
    seen: list[Record] = []
    bench = liar(bench_records()).bench(MODEL, runs=2, warmup=1, timeout_s=10, on_record=seen.append)
    assert len(seen) == 7
    assert [p.warmup for p in bench.passes] == [True, False, False]
    assert bench.layers[0].multiplies == 2
    assert bench.memory.anonymous_bytes == 0  # not asked for
    assert bench.result.top[0].label == r"a\x1b[31m goldfish"  # safe to print anywhere


@pytest.mark.parametrize("left_out", range(7))
def test_a_bench_that_leaves_something_out(liar: Liar, left_out: int) -> None:
    records = bench_records()
    what = records.pop(left_out)
    program = liar(records)
    if isinstance(what, dict) and what["record"] == "layer":
        assert program.bench(MODEL, runs=2, warmup=1, timeout_s=10).layers == ()
    else:
        with pytest.raises(ProgramError, match="broke its contract"):
            program.bench(MODEL, runs=2, warmup=1, timeout_s=10)


def test_a_summary_that_contradicts_its_records(liar: Liar) -> None:
    check = {"record": "check", "variant": "v", "op": "add", "isa": "ref", "cases": 1, "failed": 1, "worst_error": None}
    records = [{**check, "bound": 0, "ok": False, "message": ""}, {"record": "summary", "passed": 1, "failed": 0}]
    with pytest.raises(ProgramError, match="does not fit the records before"):
        liar(records, 1).check()
    records[1] = {"record": "summary", "passed": 0, "failed": 1}
    answer = liar(records, 1).check()
    assert (answer.summary.failed, answer.variants[0].worst_error, answer.variants[0].bound) == (1, None, 0.0)


@pytest.mark.parametrize("file", ["../../etc/passwd", "layer-0.f32", "/etc/layer-00.f32.", "layer-00.f32\n", ""])
def test_a_hostile_activation_file(liar: Liar, file: str) -> None:
    record = {"record": "activation", "layer": 0, "name": "l", "file": file, "rows": 1, "cols": 1, "channels": 1}
    program = liar([record])
    with pytest.raises(ProgramError, match=r"is no layer-NN.f32"):
        program.activations(MODEL, MODEL, program.device.root / "out", timeout_s=10)


def test_an_activation_file_lies_in_our_folder(liar: Liar) -> None:
    record = {"record": "activation", "layer": 0, "name": "l", "file": "/etc/layer-00.f32", "rows": 1, "cols": 1}
    program = liar([{**record, "channels": 1}])
    [(_, path)] = program.activations(MODEL, MODEL, program.device.root / "out", timeout_s=10)
    assert path == program.device.root / "out" / "layer-00.f32"


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["record", "file", "sha256", "bytes", "top"]),
                    inner | st.sampled_from(["hash", "bench"]),
                )
            ),
            max_leaves=8,
        ).map(lambda x: json.dumps(x).encode()),
    )
)
def test_any_line_is_a_record_or_a_value_error(line: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_record(line), Record)


def test_a_good_line() -> None:
    assert parse_record(json.dumps(HASH).encode() + b"\n") == HashRecord("/x", "0" * 64, 3)
