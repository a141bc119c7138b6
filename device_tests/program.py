"""klaus-run on a device, typed: argv in, records out. docs/device-program.md is the contract.

Nothing the device says is trusted: every line must be one JSON object of a known record with the fields of its
dataclass, in range, within the limits of devices/text.py; text is made printable. Whatever else comes is a
ProgramError that shows the line, escaped.
"""

from __future__ import annotations

import re
import signal
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from device_tests.devices.base import Completed, Device
from device_tests.devices.text import printable, tail
from device_tests.errors import ProgramError
from device_tests.program_records import (
    ActivationRecord,
    BenchRecord,
    CheckBenchRecord,
    CheckRecord,
    HashRecord,
    InfoRecord,
    LayerRecord,
    LoadRecord,
    MemoryRecord,
    PassRecord,
    PictureRecord,
    Record,
    StepRecord,
    SummaryRecord,
    VariantRecord,
    VerifyRecord,
    parse_record,
)

MAX_COMMAND_BYTES = 4000  # of operands; dropbear takes commands of 9000 bytes, quotes and a wrapper included
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAYER_FILE = re.compile(r"layer-[0-9]{2,4}\.f32")
R = typing.TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Bench:
    """All that one `bench` said."""

    load: LoadRecord
    passes: tuple[PassRecord, ...]  # warm-ups first
    layers: tuple[LayerRecord, ...]
    memory: MemoryRecord
    result: BenchRecord


@dataclass(frozen=True, slots=True)
class Check:
    """All that one `check` said."""

    variants: tuple[CheckRecord, ...]
    timings: tuple[CheckBenchRecord, ...]
    summary: SummaryRecord


class Program:
    """klaus-run at a path of an open device. Paths given to its methods are paths on the device."""

    def __init__(self, device: Device, path: PurePosixPath) -> None:
        self.device, self.path = device, path

    def info(self, *, timeout_s: float = 60) -> InfoRecord:
        """The device as the program sees it."""
        return _only(InfoRecord, self._records(["info"], (InfoRecord,), timeout_s))

    def plan(self, model: PurePosixPath, *, options: Sequence[str] = (), timeout_s: float = 300) -> list[StepRecord]:
        """The steps that a session of the model would take; options: more of bench's, e.g. --threads 2."""
        records = self._records(
            ["info", "--plan", "--model", str(model), *options], (InfoRecord, StepRecord), timeout_s
        )
        return _of(StepRecord, records)

    def verify(self, model: PurePosixPath, *, timeout_s: float = 600) -> VerifyRecord:
        """Reads every byte of a packed model; a damaged one gives ok=False."""
        # 2: what is damaged is bad input to the program; a record comes where the model could be opened at all.
        records = self._records(["verify", str(model)], (VerifyRecord,), timeout_s, statuses=(0, 1, 2))
        return _only(VerifyRecord, records)

    def bench(
        self,
        model: PurePosixPath,
        *,
        runs: int,
        warmup: int,
        threads: int = 1,
        isa: str = "auto",
        precision: str = "fp32",
        patches: int | None = None,
        input_file: PurePosixPath | None = None,
        logits_file: PurePosixPath | None = None,
        profile: bool = False,
        mark: bool = False,
        options: Sequence[str] = (),
        on_record: Callable[[Record], None] | None = None,
        timeout_s: float,
    ) -> Bench:
        """Times passes (patches None or 1) or 10-patch jobs (patches 10); on_record sees each record as it comes.

        input_file: what layer 0 reads, float32 HWC; logits_file: where the last layer's values go, float32. mark: tells
        an instruction counter where passes and layers end. options: more of the program's, e.g. --memory lean.
        """
        argv = ["bench", "--model", str(model), "--runs", str(runs), "--warmup", str(warmup)]
        argv += ["--threads", str(threads), "--isa", isa, "--precision", precision]
        argv += ["--patches", str(patches)] if patches is not None else []
        argv += ["--input", str(input_file)] if input_file is not None else []
        argv += ["--logits", str(logits_file)] if logits_file is not None else []
        argv += ["--profile"] if profile else []
        argv += ["--mark"] if mark else []
        argv += options
        expected = (LoadRecord, PassRecord, LayerRecord, MemoryRecord, BenchRecord)
        records = self._records(argv, expected, timeout_s, on_record=on_record)
        passes = _of(PassRecord, records)
        if sum(p.warmup for p in passes) != warmup or len(passes) != warmup + runs:
            self._broken(argv, f"{warmup} warm-ups and {runs} passes were asked for, {len(passes)} passes came")
        if not isinstance(records[-1], BenchRecord):
            self._broken(argv, "the output ends before its last record, bench")
        return Bench(
            _only(LoadRecord, records),
            tuple(passes),
            tuple(_of(LayerRecord, records)),
            _only(MemoryRecord, records),
            _only(BenchRecord, records),
        )

    def classify(
        self,
        model: PurePosixPath,
        batch: PurePosixPath,
        *,
        top: int = 5,
        patches: int | None = None,
        options: Sequence[str] = (),
        on_record: Callable[[Record], None] | None = None,
        timeout_s: float,
    ) -> list[PictureRecord]:
        """Answers for a batch of pictures, in its order; options: more of the program's, e.g. --crop none."""
        argv = ["classify", "--model", str(model), "--images", str(batch), "--top", str(top)]
        argv += ["--patches", str(patches)] if patches is not None else []
        return _of(PictureRecord, self._records([*argv, *options], (PictureRecord,), timeout_s, on_record=on_record))

    def activations(
        self,
        model: PurePosixPath,
        input_file: PurePosixPath,
        out: PurePosixPath,
        *,
        options: Sequence[str] = (),
        timeout_s: float,
    ) -> list[tuple[ActivationRecord, PurePosixPath]]:
        """Every layer's output as a file below `out`, which is made; returns the records with the files' paths."""
        self.device.make_folder(out, timeout_s=60)
        argv = ["activations", "--model", str(model), "--input", str(input_file), "--out", str(out), *options]
        found = []
        for record in _of(ActivationRecord, self._records(argv, (ActivationRecord,), timeout_s)):
            name = PurePosixPath(record.file).name
            if _LAYER_FILE.fullmatch(name) is None:  # it becomes a path: not whatever the device likes
                self._broken(argv, f"file {record.file!r} is no layer-NN.f32")
            found.append((record, out / name))
        return found

    def check(
        self,
        *,
        op: str | None = None,
        isa: str | None = None,
        seed: int | None = None,
        bench: bool = False,
        on_record: Callable[[Record], None] | None = None,
        timeout_s: float = 1800,
    ) -> Check:
        """Kernels against their references; failed ones are in the answer, not an exception."""
        argv = ["check"]
        argv += ["--op", op] if op is not None else []
        argv += ["--isa", isa] if isa is not None else []
        argv += ["--seed", str(seed)] if seed is not None else []
        argv += ["--bench"] if bench else []
        expected = (CheckRecord, CheckBenchRecord, SummaryRecord)
        records = self._records(argv, expected, timeout_s, statuses=(0, 1), on_record=on_record)
        variants = _of(CheckRecord, records)
        summary = _only(SummaryRecord, records)
        if summary.failed != sum(not v.ok for v in variants) or summary.passed != sum(v.ok for v in variants):
            self._broken(
                argv, f"the summary ({summary.passed} passed, {summary.failed} failed) does not fit the records before"
            )
        return Check(tuple(variants), tuple(_of(CheckBenchRecord, records)), summary)

    def variants(self, *, timeout_s: float = 60) -> list[VariantRecord]:
        """The kernel variants of this build, and whether this device can run them."""
        return _of(VariantRecord, self._records(["check", "--list"], (VariantRecord, SummaryRecord), timeout_s))

    def hash(
        self, files: Sequence[str | PurePosixPath], *, missing_ok: bool = False, timeout_s: float = 600
    ) -> list[HashRecord]:
        """SHA-256 of files, in their order. missing_ok leaves out those that are not there, else they are an error."""
        names = [str(file) for file in files]
        found: dict[str, HashRecord] = {}
        while names:
            batch = _first_of(names)
            names = names[len(batch) :]
            argv = ["hash", *batch]
            records = self._records(
                argv, (HashRecord,), timeout_s, statuses=(0, 2) if missing_ok else (0,), may_be_empty=missing_ok
            )
            for record in _of(HashRecord, records):
                if record.file not in batch or _SHA256.fullmatch(record.sha256) is None:
                    self._broken(argv, f"a hash of {record.file!r} is {record.sha256!r}")
                found[record.file] = record
        return [found[name] for name in map(str, files) if name in found]

    def _records(
        self,
        argv: Sequence[str],
        expected: tuple[type[Record], ...],
        timeout_s: float,
        *,
        statuses: Sequence[int] = (0,),
        on_record: Callable[[Record], None] | None = None,
        may_be_empty: bool = False,
    ) -> list[Record]:
        """Runs one command and returns its records, of the expected kinds only."""
        records: list[Record] = []

        def take(line: bytes) -> None:
            try:
                record = parse_record(line)
            except ValueError as error:
                self._broken(argv, f"{error}: {printable(line, 160)}", error)
            if not isinstance(record, expected):
                self._broken(argv, f"an unexpected record: {printable(line, 160)}")
            records.append(record)
            if on_record is not None:
                on_record(record)

        # A torn last line says nothing by itself where the command failed: then the failure is the news.
        torn: list[bytes] = []
        done = self.device.run(
            [str(self.path), *argv],
            timeout_s=timeout_s,
            on_stdout=lambda line: take(line) if line.endswith(b"\n") else torn.append(line),
        )
        failed = done.exit_status != 0 and not records and not may_be_empty
        if done.exit_status not in statuses or failed:
            raise self._failed(argv, done)
        if torn:
            self._broken(argv, f"the output ends in the middle of a line: {printable(torn[0], 160)}")
        if not records and done.exit_status == 0:
            self._broken(argv, "exit status 0, but no record")
        return records

    def _failed(self, argv: Sequence[str], done: Completed) -> ProgramError:
        """What an exit status means."""
        what = f"{self.device.name}: klaus-run {printable(' '.join(argv), 200)}"
        said = tail(done.stderr, lines=4)
        said = f":\n{said}" if said else ""
        status = done.exit_status
        if status in (126, 127):
            reason = "cannot be executed there" if status == 126 else "is not there"
            return ProgramError(
                f"{what}: {self.path} {reason}; was it deployed, and built for {self.device.target}?{said}"
            )
        if status > 128:
            try:
                name = signal.Signals(status - 128).name
            except ValueError:
                name = f"signal {status - 128}"
            memory = "; out of memory?" if name == "SIGKILL" else ""
            return ProgramError(f"{what}: ended by {name}{memory}{said}")
        return ProgramError(f"{what}: exit status {status}{said}")

    def _broken(self, argv: Sequence[str], why: str, cause: Exception | None = None) -> typing.NoReturn:
        command = printable(" ".join(argv), 200)
        raise ProgramError(f"{self.device.name}: klaus-run {command} broke its contract: {printable(why)}") from cause


def _first_of(names: Sequence[str]) -> Sequence[str]:
    """As many of the names as fit a command line; at least one."""
    size = 0
    for count, name in enumerate(names):
        size += len(name.encode()) + 3
        if count and size > MAX_COMMAND_BYTES:
            return names[:count]
    return names


def _of(kind: type[R], records: Sequence[Record]) -> list[R]:
    return [record for record in records if isinstance(record, kind)]


def _only(kind: type[R], records: Sequence[Record]) -> R:
    found = _of(kind, records)
    if len(found) != 1:
        raise ProgramError(f"klaus-run broke its contract: {len(found)} records {kind.__name__}, expected one")
    return found[0]
