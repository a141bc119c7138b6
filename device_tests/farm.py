"""One device's job: a pytest subprocess, watched. What goes wrong with it becomes records of that device only."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import device_tests
from device_tests.errors import DeviceError
from device_tests.plan import SUITE_FOLDER, Job
from device_tests.processes import descendants, end_all
from device_tests.wire import Begin, Doing, Finished, Message, Planned, Reader, TestName, WireError
from reports.record import Attribute, Record, Status, clip, now

GRACE_S = 20.0  # for a subprocess to close its device after SIGTERM
DRAIN_S = 2.0  # for the pipe after the subprocess has ended
MAX_RECORDS = 1_000_000
JOB_FILE_VARIABLE = "KLAUS_JOB"
PIPE_VARIABLE = "KLAUS_RECORDS_FD"


@dataclass(slots=True)
class JobState:
    """What is known of a running job; for the progress display too."""

    job: Job
    planned: list[TestName] = field(default_factory=list)
    done: set[TestName] = field(default_factory=set)
    current: TestName | None = None
    text: str = "starting"
    records: int = 0
    finished: bool = False
    lost: bool = False  # a test ended because the device failed
    trouble: str = ""  # the first thing that went wrong with the job itself
    exit_code: int = 4


def run_job(
    job: Job,
    folder: Path,
    timeout_s: float,
    take: Callable[[Record], None],
    changed: Callable[[JobState], None],
    stop: Event,
) -> JobState:
    """Runs all suites of one device and passes on every record; never raises for what a device or its job does.

    folder: where the job's file and log go. take: called for each record, from this thread. stop: ends the job early.
    """
    state = JobState(job)
    changed(state)
    try:
        with _only_job(job):
            _run_subprocess(state, folder, timeout_s, take, changed, stop)
    except DeviceError as error:
        state.trouble, state.exit_code = str(error), error.exit_code
    except OSError as error:
        state.trouble, state.exit_code = f"{job.device.name}: the job could not be started ({error})", 5
    for record in _missing(state):
        take(record)
    changed(state)
    return state


@contextmanager
def _only_job(job: Job) -> Iterator[None]:
    """Strictly one job a device, whichever process runs it; the lock goes with its holder."""
    folder = job.device.cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{job.device.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceError(
                f"{job.device.name}: another run is using this device; wait for its end, or give --device to use others"
            ) from error
        yield


def _run_subprocess(
    state: JobState,
    folder: Path,
    timeout_s: float,
    take: Callable[[Record], None],
    changed: Callable[[JobState], None],
    stop: Event,
) -> None:
    job = state.job
    file = folder / f"{job.device.name}.job.json"
    file.write_text(job.to_json(), encoding="utf-8")
    log = folder / f"{job.device.name}.log"
    reading, writing = os.pipe()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *pytest_arguments(job)],
                cwd=folder,
                env=_environment(file, writing),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,
            )
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    os.close(writing)
    try:
        _listen(state, process, reading, timeout_s, take, changed, stop)
    finally:
        os.close(reading)
        _end(process)
    if not state.trouble and not state.finished:
        _explain(state, process.returncode, log)


def pytest_arguments(job: Job) -> list[str]:
    """Arguments of the Python that runs a job's suites: nothing of the user's pytest settings takes part."""
    files = [str(SUITE_FOLDER / f"{suite}.py") for suite in job.suites]
    return [
        *("-m", "pytest", "-c", os.devnull, f"--rootdir={SUITE_FOLDER}", f"--confcutdir={SUITE_FOLDER}"),
        *("-p", "no:cacheprovider", "--import-mode=importlib", "-q", "--tb=short", "--no-header", "-rN"),
        *files,
    ]


def _environment(file: Path, writing: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = [str(Path(device_tests.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return inherited | {
        JOB_FILE_VARIABLE: str(file),
        PIPE_VARIABLE: str(writing),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def _listen(
    state: JobState,
    process: subprocess.Popen[bytes],
    reading: int,
    timeout_s: float,
    take: Callable[[Record], None],
    changed: Callable[[JobState], None],
    stop: Event,
) -> None:
    """Takes messages until the pipe closes, the subprocess ends, the deadline passes or the run is stopped."""
    name = state.job.device.name
    reader = Reader(lambda message: _take(state, message, take))
    deadline = time.monotonic() + timeout_s
    drained: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if selector.select(0.2):
                data = os.read(reading, 1 << 16)
                if not data:
                    return
                try:
                    reader.feed(data)
                except WireError as error:
                    state.trouble, state.exit_code = f"{name}: its suites broke the record stream: {error}", 5
                    return
                changed(state)
                continue
            now_s = time.monotonic()
            if process.poll() is not None:
                drained = drained or now_s
                if now_s > drained + DRAIN_S:
                    return  # something that outlived it still holds the pipe
            elif stop.is_set():
                state.trouble = f"{name}: the run was interrupted"
                return
            elif now_s > deadline:
                where = f" in {state.current.suite}, {state.current.test}" if state.current else ""
                state.trouble = (
                    f"{name}: its suites took more than {timeout_s:g} s and were stopped{where}; look at the device, "
                    "then run again with fewer suites"
                )
                return


def _take(state: JobState, message: Message, take: Callable[[Record], None]) -> None:
    match message:
        case Planned():
            state.planned = list(message.tests)
        case Begin():
            state.current, state.text = message.test, ""
        case Doing():
            state.text = message.text
        case Finished():
            state.finished = True
        case Record():
            if message.run != state.job.run or message.device != state.job.device.name:
                raise WireError(f"a record of run {message.run}, device {message.device}")
            state.records += 1
            if state.records > MAX_RECORDS:
                raise WireError(f"more than {MAX_RECORDS} records")
            if message.metric == "test":
                precision = message.attributes.get("precision")
                known = precision if isinstance(precision, str) else None
                state.done.add(TestName(message.suite, message.model, message.subject, known))
                state.lost |= message.status is Status.ERROR and message.attributes.get("exit_code") == 4
            take(message)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The subprocess and its children are gone when this returns; it gets time to close its device."""
    children: list[int] = []
    if process.poll() is None:
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                children = descendants(process.pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end_all(children)


def _explain(state: JobState, status: int, log: Path) -> None:
    name = state.job.device.name
    if status < 0:
        with suppress(ValueError):
            state.trouble = (
                f"{name}: the process of its suites was ended by {signal.Signals(-status).name}; its records until "
                f"then are kept; see {log}, then run again with --device {name}"
            )
    if status < 0 and not state.trouble:
        state.trouble = f"{name}: the process of its suites was ended by signal {-status}; see {log}"
    elif status >= 0:
        state.exit_code = 5
        state.trouble = f"{name}: its suites ended with status {status} before their end: a bug here; see {log}"


def _missing(state: JobState) -> Iterator[Record]:
    """ERROR for the job where it failed, MISS for each test that should have run and did not."""
    job = state.job
    if state.trouble:
        yield _job_record(job, "device_job", Status.ERROR, clip(state.trouble), exit_code=state.exit_code)
    planned = state.planned
    if not planned:  # it did not come so far as to say which tests there are
        planned = [TestName(suite, model.name, "all tests") for suite in job.suites for model in job.models] or [
            TestName(suite, None, "all tests") for suite in job.suites
        ]
    for test in planned:
        if test in state.done:
            continue
        ran = test == state.current
        why = "ended in the middle" if ran else "never ran"
        why += ", as the device was lost before" if state.lost and not ran else ""
        yield _job_record(job, "test", Status.MISS, clip(why), test=test)


def _job_record(
    job: Job,
    metric: str,
    status: Status,
    message: str,
    *,
    test: TestName | None = None,
    exit_code: int | None = None,
) -> Record:
    test = test or TestName("", None, "")
    plan = next((plan for plan in job.models if plan.name == test.model), None)
    attributes: dict[str, Attribute] = {} if exit_code is None else {"exit_code": exit_code}
    if test.precision is not None:
        attributes |= {"precision": test.precision, "memory": job.memory}
    return Record(
        run=job.run,
        time=now(),
        metric=metric,
        status=status,
        device=job.device.name,
        kind=job.device.kind,
        target=job.device.target,
        emulated=job.emulated,
        suite=test.suite,
        model=test.model,
        model_sha256=plan.sha256 if plan else None,
        scheme=plan.scheme if plan else None,
        subject=test.test,
        message=message,
        attributes=attributes,
    )
