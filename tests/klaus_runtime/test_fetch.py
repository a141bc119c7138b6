"""Fetching from a server that truncates, corrupts, hangs, lies and dawdles; and from a folder."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import fetch, registry
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.fetch import Patience, Remote, RemoteFile, fetch_files

CONTENT = np.random.default_rng(1).bytes(300_000)
QUICK = Patience(stall_s=0.4, file_s=20.0, pause_s=0.01)

Answer = Callable[["Handler", int], None]  # (the request, the first byte that it asks for)


class Handler(BaseHTTPRequestHandler):
    """Answers as the test's next step says; the last one for ever."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        script = self.server.script
        asked = self.headers.get("Range")
        script.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        step = script.steps.pop(0) if len(script.steps) > 1 else script.steps[0]
        step(self, first)

    def log_message(self, *_: object) -> None:
        """Silence."""

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def whole(handler: Handler, first: int) -> None:
    part = {"Content_Range": f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"} if first else {}
    handler.send(206 if first else 200, CONTENT[first:], Content_Length=str(len(CONTENT) - first), **part)


def cut(handler: Handler, first: int) -> None:
    part = {"Content_Range": f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"} if first else {}
    body = CONTENT[first : first + 100_000]
    handler.send(206 if first else 200, body, Content_Length=str(len(CONTENT) - first), **part)
    handler.close_connection = True


def cut_at_once(handler: Handler, first: int) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(handler: Handler, first: int) -> None:
    time.sleep(1.0)


def hang_in_the_middle(handler: Handler, first: int) -> None:
    handler.send(200, CONTENT[:5000], Content_Length=str(len(CONTENT)))
    handler.wfile.flush()
    time.sleep(1.0)


def corrupt(handler: Handler, first: int) -> None:
    body = bytes(len(CONTENT) - first)
    part = {"Content_Range": f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"} if first else {}
    handler.send(206 if first else 200, body, Content_Length=str(len(body)), **part)


def no_ranges(handler: Handler, first: int) -> None:
    handler.send(200, CONTENT, Content_Length=str(len(CONTENT)))


def another_range(handler: Handler, first: int) -> None:
    handler.send(206, CONTENT[7:], Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")


def endless(handler: Handler, first: int) -> None:
    handler.send(200, b"")
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass


def drip(handler: Handler, first: int) -> None:
    handler.send(200, b"", Content_Length=str(len(CONTENT)))
    try:
        for position in range(len(CONTENT)):
            handler.wfile.write(CONTENT[position : position + 1])
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass


def status(code: int) -> Answer:
    return lambda handler, _: handler.send(code, b"no", Content_Length="2")


@dataclass
class Script:
    steps: list[Answer]
    ranges: list[str | None] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    """Holds the script; the clients of these tests hang up without a word."""

    daemon_threads = True
    script: Script

    def handle_error(self, *_: object) -> None:
        """Silence."""


@contextmanager
def served(*steps: Answer) -> Iterator[tuple[str, Script]]:
    script = Script(list(steps))
    server = Server(("127.0.0.1", 0), Handler)
    server.script = script
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/some/folder/", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def pinned(size: int | None = len(CONTENT)) -> tuple[RemoteFile, ...]:
    return (RemoteFile("a file.bin", fetch.blob_id(CONTENT), size),)


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize(
    ("steps", "requests"),
    [
        ((whole,), 1),
        ((cut, cut, whole), 3),
        ((cut_at_once, status(503), hang, whole), 4),
        ((hang_in_the_middle, whole), 2),
        ((cut, no_ranges), 2),
        ((cut, another_range, whole), 3),
        ((cut, cut_at_once, cut_at_once, cut, cut_at_once, cut_at_once, whole), 7),
    ],
)
def test_what_comes_in_pieces(steps: tuple[Answer, ...], requests: int, size: int | None, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    with served(*steps) as (url, script):
        (path,) = fetch_files(Remote(url, pinned(size)), tmp_path / "made", patience=QUICK,
                              progress=lambda *facts: seen.append(facts))  # fmt: skip
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert len(script.ranges) == requests
    if cut in steps:
        assert "bytes=100000-" in script.ranges
    assert seen[-1] == ("a file.bin", len(CONTENT), len(CONTENT))


def test_a_later_fetch_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    with served(cut, cut_at_once) as (url, _), pytest.raises(SetupError, match="100,000 bytes are kept"):
        fetch_files(Remote(url, pinned()), tmp_path, patience=QUICK)
    with served(whole) as (url, script):
        (path,) = fetch_files(Remote(url, pinned()), tmp_path, patience=QUICK)
    assert script.ranges == ["bytes=100000-"]
    assert path.read_bytes() == CONTENT
    with served(status(500)) as (url, script):
        assert fetch_files(Remote(url, pinned()), tmp_path, patience=QUICK) == (path,)
    assert not script.ranges  # what is there and right is not asked for


@pytest.mark.parametrize("kept", [b"damaged" * 1000, CONTENT + b"more", bytes(len(CONTENT))])
def test_damaged_pieces_of_an_earlier_fetch_are_dropped(kept: bytes, tmp_path: Path) -> None:
    (tmp_path / ".a file.bin.part").write_bytes(kept)
    with served(whole) as (url, script):
        (path,) = fetch_files(Remote(url, pinned()), tmp_path, patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert script.ranges[-1] is None


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize(
    ("step", "says"),
    [
        (corrupt, "not the pinned file"),
        (endless, "sends more than"),
        (hang, "not in 5 tries in a row"),
        (status(404), "the server says 404"),
        (status(403), "the server says 403"),
        (status(500), "not in 5 tries in a row"),
        (cut_at_once, "not in 5 tries in a row"),
    ],
)
def test_what_never_comes_right(step: Answer, says: str, size: int | None, tmp_path: Path) -> None:
    begun = time.monotonic()
    with served(step) as (url, _), pytest.raises(SetupError, match=says):
        fetch_files(Remote(url, pinned(size)), tmp_path, patience=QUICK)
    assert time.monotonic() - begun < 15
    left = [entry for entry in tmp_path.iterdir() if entry.stat().st_size]
    assert not left


def test_a_file_that_is_too_long_is_refused_before_it_comes(tmp_path: Path) -> None:
    with served(whole) as (url, _), pytest.raises(SetupError, match="300,000 bytes; 10 are expected"):
        fetch_files(Remote(url, pinned(10)), tmp_path, patience=QUICK)


def test_a_server_that_dawdles_runs_out_of_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    with served(drip) as (url, _), pytest.raises(SetupError, match="not within 1 s"):
        fetch_files(Remote(url, pinned()), tmp_path, patience=Patience(0.4, 1.0, 0.01))
    assert time.monotonic() - begun < 5


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not in 5 tries"):
        fetch_files(Remote("http://127.0.0.1:9", pinned()), tmp_path, patience=QUICK)


def test_two_fetches_at_once(tmp_path: Path) -> None:
    with (
        served(hang_in_the_middle, whole) as (url, _),
        served(whole) as (other, _),
    ):
        first = threading.Thread(target=fetch_files, args=(Remote(url, pinned()), tmp_path), kwargs={"patience": QUICK})
        first.start()
        time.sleep(0.2)
        with pytest.raises(SetupError, match="another fetch"):
            fetch_files(Remote(other, pinned()), tmp_path, patience=QUICK)
        first.join()
    assert (tmp_path / "a file.bin").read_bytes() == CONTENT


def test_a_folder_as_mirror(tmp_path: Path) -> None:
    mirror, made = tmp_path / "mirror", tmp_path / "made"
    mirror.mkdir()
    remote = Remote("http://127.0.0.1:9", pinned())
    for content, says in ((None, "is not there"), (CONTENT[:-1], "not the pinned file"), (b"", "not the pinned file")):
        if content is not None:
            (mirror / "a file.bin").write_bytes(content)
        with pytest.raises(SetupError, match=says):
            fetch_files(remote, made, mirror=str(mirror))
    (mirror / "a file.bin").write_bytes(CONTENT)
    (path,) = fetch_files(remote, made, mirror=str(mirror))
    assert path.read_bytes() == CONTENT
    for bad in (str(tmp_path / "absent"), "ftp://127.0.0.1/x", "file:///etc"):
        with pytest.raises(InputError, match="no folder and no http"):
            fetch_files(remote, tmp_path / "other", mirror=bad)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(SetupError, match="set KLAUS_CACHE"):
        fetch_files(Remote("http://127.0.0.1:9", pinned()), tmp_path / "blocked")


def test_klaus_files_at_hand_are_the_pinned_ones(shared: Path) -> None:
    folder = shared / "data/klaus-2014"
    have = {file.name: file for file in registry.KLAUS_2014.files if (folder / file.name).is_file()}
    assert len(have) == 3
    for name, file in have.items():
        data = (folder / name).read_bytes()
        assert (fetch.blob_id(data), len(data)) == (file.blob_id, file.size_bytes)


def test_models_that_are_fetched_on_demand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    for name in ("klaus-2014", "squeezenet"):
        with pytest.raises(SetupError, match=f"./inv fetch-model {name}` fetches it"):
            registry.load_model(name)
    with pytest.raises(InputError, match="has no entry here"):
        registry.fetch_model("nothing")
    with pytest.raises(InputError, match="a mirror is for"):
        registry.fetch_model("lite0", mirror="http://127.0.0.1:9")
    assert registry.fetch_model("klaus-mobile") == ()


def test_squeezenet_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Path) -> None:
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    registry.fetch_model("squeezenet", mirror=str(shared / "data/deep-compression"))
    assert registry.load_model("squeezenet").name == "squeezenet"
