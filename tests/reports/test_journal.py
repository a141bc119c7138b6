"""The journal survives what a night does to it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reports import journal
from reports.journal import Journal, JournalError
from reports.record import ReportError
from tests.reports.report_samples import device, head, record


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    records = [*head(), *device("pi5")]
    with Journal(path) as writer:
        for made in records:
            writer.append(made)
            assert journal.read(path)[-1] == made  # each is on disk when append returns
    assert journal.read(path) == records


def test_opening_again_goes_on(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    for made in head():
        with Journal(path) as writer:
            writer.append(made)
    assert journal.read(path) == head()


@pytest.mark.parametrize("torn", [b"{", b'{"schema":1,"run":"x"', b"\xff\xff", b"x" * 200_000])
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / journal.NAME
    with Journal(path) as writer:
        writer.append(record("run"))
    with path.open("ab") as file:
        file.write(torn)
    assert journal.read(path) == [record("run")]
    with Journal(path) as writer:
        writer.append(record("run", subject="end"))
    assert journal.read(path) == [record("run"), record("run", subject="end")]


def test_a_journal_that_is_only_a_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    path.write_bytes(b'{"schema"')
    assert journal.read(path) == []
    Journal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", [b"{}\n", b"\n", b"hello\n", b"\x00\n", b'{"schema":2}\n'])
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / journal.NAME
    good = record("run").to_json().encode() + b"\n"
    path.write_bytes(good + good + line + good)
    with pytest.raises(ReportError, match="line 3"):
        journal.read(path)


def test_a_broken_last_line_that_is_whole_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    path.write_bytes(b'{"schema":1}\n')
    with pytest.raises(ReportError, match="line 1"):
        journal.read(path)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / journal.NAME
    path.write_bytes(b"x" * (journal.MAX_LINE_BYTES + 10) + b"\n")
    with pytest.raises(ReportError, match="line 1 is longer"):
        journal.read(path)
    monkeypatch.setattr(journal, "MAX_BYTES", 100)
    with pytest.raises(ReportError, match="at most 100"):
        journal.read(path)


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / journal.NAME
    with Journal(path) as writer:
        writer.append(record("run"))
        room = [100]

        def write(descriptor: int, data: bytes) -> int:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_really(descriptor, data[: room.pop()])

        write_really = os.write
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(JournalError, match=r"No space left.*make room"):
            writer.append(record("run", subject="end"))
    assert journal.read(path) == [record("run")]


def test_no_journal_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        journal.read(tmp_path / "nowhere" / journal.NAME)
    with pytest.raises(ReportError, match="cannot be read"):
        journal.read(tmp_path)


def test_kill_minus_nine_loses_nothing_that_was_appended(tmp_path: Path, root: Path) -> None:
    path = tmp_path / journal.NAME
    script = (
        "import sys; from pathlib import Path\n"
        "from reports.journal import Journal; from tests.reports.report_samples import record\n"
        "with Journal(Path(sys.argv[1])) as writer:\n"
        "    for number in range(10**6):\n"
        "        writer.append(record('run', subject=str(number)))\n"
        "        print(number, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment
    ) as writing:
        assert writing.stdout is not None
        for _ in range(50):
            last = int(writing.stdout.readline())
        writing.send_signal(signal.SIGKILL)
    found = [made.subject for made in journal.read(path)]
    assert found[: last + 1] == [str(number) for number in range(last + 1)]
