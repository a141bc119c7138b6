"""What a device's subprocess tells the run: JSON Lines over a pipe, one message a line.

{"message":"planned","tests":[[suite, model or null, precision or null, test], ...]}   once, after collecting
{"message":"begin","test":[suite, ...]}                             before each test
{"message":"doing","text":...}                                      for the progress display
{"message":"record","record":{...}}                                 one record
{"message":"finished"}                                              last
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reports.record import Record, ReportError, clip, from_fields

MAX_LINE_BYTES = 4 << 20
MAX_TESTS = 10_000


class WireError(Exception):
    """A line that no subprocess of ours writes."""


@dataclass(frozen=True, slots=True)
class TestName:
    """One test of a job."""

    __test__ = False  # not for pytest

    suite: str
    model: str | None
    test: str
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """All tests that should run."""

    tests: tuple[TestName, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A test starts."""

    test: TestName


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done, for people."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The subprocess came to its regular end."""


Message = Planned | Begin | Doing | Record | Finished


def encode(message: Message) -> bytes:
    """One line, its end included."""
    match message:
        case Record():
            return b'{"message":"record","record":' + message.to_json().encode("ascii") + b"}\n"
        case Planned():
            value: dict[str, Any] = {"message": "planned", "tests": [_words(test) for test in message.tests]}
        case Begin():
            value = {"message": "begin", "test": _words(message.test)}
        case Doing():
            value = {"message": "doing", "text": clip(message.text, 200)}
        case Finished():
            value = {"message": "finished"}
    return json.dumps(value).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line. Raises WireError."""
    try:
        value = json.loads(line)
        match value:
            case {"message": "record", "record": fields}:
                return from_fields(fields)
            case {"message": "planned", "tests": list(tests)} if len(tests) <= MAX_TESTS:
                return Planned(tuple(_test(test) for test in tests))
            case {"message": "begin", "test": test}:
                return Begin(_test(test))
            case {"message": "doing", "text": str(text)}:
                return Doing(clip(text, 200))
            case {"message": "finished"}:
                return Finished()
    except (ValueError, RecursionError, ReportError) as error:
        raise WireError(f"{clip(str(error), 300)}: {clip(repr(line[:200]), 300)}") from error
    raise WireError(f"no message is {clip(repr(line[:200]), 300)}")


def _words(test: TestName) -> list[str | None]:
    return [test.suite, test.model, test.precision, test.test]


def _test(value: object) -> TestName:
    match value:
        case [str(suite), None | str() as model, None | str() as precision, str(test)]:
            return TestName(clip(suite, 200), model and clip(model, 200), clip(test, 200), precision)
    raise ValueError("a test is [suite, model, precision, test]")


class Reader:
    """Pieces of a stream in, messages out. Raises WireError for what is no message or a line without end."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self._take = take
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            self._take(decode(line))
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"a line of more than {MAX_LINE_BYTES} bytes")


def write(descriptor: int, message: Message) -> None:
    """Writes a message whole; raises BrokenPipeError where the run is gone."""
    line = encode(message)
    while line:
        line = line[os.write(descriptor, line) :]
