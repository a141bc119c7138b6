"""The pipe between a device's subprocess and the run: what is written is read, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_tests import wire
from device_tests.wire import Begin, Doing, Finished, Message, Planned, Reader, TestName, WireError, decode, encode
from tests.reports.report_samples import HOSTILE, record

TEST = TestName("timing", "lite0", "test_passes[lite0-q8-fp16]", "fp16")
MESSAGES: list[Message] = [
    Planned((TEST, TestName("conformance", None, "test_kernels"))),
    Begin(TEST),
    Doing(HOSTILE),
    record("run", message=HOSTILE),
    Finished(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_come_back(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.isascii()
    assert decode(line) == message


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_any_pieces_make_the_same_messages(size: int) -> None:
    stream = b"".join(map(encode, MESSAGES))
    found: list[Message] = []
    reader = Reader(found.append)
    for begin in range(0, len(stream), size):
        reader.feed(stream[begin : begin + size])
    assert found == MESSAGES


@pytest.mark.parametrize(
    "line",
    [
        b"", b"hello", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000,
        b'{"message":"planned","tests":7}', b'{"message":"planned","tests":[["a","b","c"]]}',
        b'{"message":"planned","tests":[[1,2,3,4]]}', b'{"message":"begin"}', b'{"message":"doing","text":7}',
        b'{"message":"record","record":{}}', b'{"message":"record","record":null}', b'{"message":"reboot"}',
        json.dumps({"message": "planned", "tests": [["a", None, None, "b"]] * 10_001}).encode(),
    ],
    ids=lambda line: repr(line[:40]),
)  # fmt: skip
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        decode(line)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    reader = Reader(lambda _: None)
    try:
        reader.feed(data)
    except WireError:
        return
    assert b"\n" not in data


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LINE_BYTES", 1000)
    with pytest.raises(WireError, match="more than 1000"):
        Reader(lambda _: None).feed(b"x" * 1001)
