"""pytest's side of a job: fixtures, and test outcomes turned into records."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from device_tests import wire
from device_tests.deploy import PROGRAM, deploy
from device_tests.devices import make_device
from device_tests.devices.base import Device
from device_tests.errors import DeviceError, HarnessError
from device_tests.farm import JOB_FILE_VARIABLE, PIPE_VARIABLE
from device_tests.plan import Job, ModelPlan, Trial
from device_tests.processes import descendants, end_all
from device_tests.program import Program
from device_tests.suites.context import Context, Remote
from klaus_runtime.errors import KlausError
from reports.record import Attribute, Status, clip

_CONTEXT = pytest.StashKey[Context]()
_interrupted = threading.Event()
_OUTCOME = pytest.StashKey[tuple[Status, str, int]]()
_UNABLE = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Takes the job from the environment that farm.py made."""
    file = os.environ.get(JOB_FILE_VARIABLE)
    if file is None:
        raise pytest.UsageError("the suites run on devices: start them with `invoke deploy-and-bench --suite NAME`")
    descriptor = int(os.environ.get(PIPE_VARIABLE, "-1"))
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)  # an emulator that we start must not hold the pipe
        threading.Thread(target=_end_with_the_run, args=(descriptor,), daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    job = Job.from_json(Path(file).read_text(encoding="utf-8"))
    config.stash[_CONTEXT] = Context(job, descriptor)


def _interrupt(number: int, frame: object) -> None:  # noqa: ARG001
    _interrupted.set()
    raise KeyboardInterrupt  # pytest closes its fixtures then, and with them the device


def _end_with_the_run(descriptor: int) -> None:
    """A run that was killed leaves no job behind that goes on using the device."""
    poll = select.poll()
    poll.register(descriptor, 0)
    while not any(event & select.POLLERR for _, event in poll.poll()):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Says that this was the regular end; after an interrupt, ends what may have been started in that very moment."""
    context = config.stash.get(_CONTEXT, None)
    if _interrupted.is_set():
        end_all(descendants(os.getpid()))
    elif context is not None:
        context.tell(wire.Finished())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `model` runs once for each; one that takes `trial`, for each in every precision."""
    job = metafunc.config.stash[_CONTEXT].job
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", job.models, ids=[model.id for model in job.models])
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", job.trials, ids=[trial.id for trial in job.trials])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Says what should run, so that what does not is missed."""
    names = tuple(_name(item) for item in session.items)
    session.config.stash[_CONTEXT].tell(wire.Planned(names))


def _name(item: pytest.Item) -> wire.TestName:
    model, trial = _about(item)
    name = model.name if model else None
    return wire.TestName(item.path.stem, name, clip(item.name, 200), trial.precision if trial else None)


def _about(item: pytest.Item) -> tuple[ModelPlan | None, Trial | None]:
    """The model that a test is about, and the trial, where it is about one."""
    given = getattr(item, "callspec", None)
    trial = given.params.get("trial") if given is not None else None
    model = given.params.get("model") if given is not None else None
    return (trial.model if trial else model), trial


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """One test from before its fixtures to after them, as one record."""
    context = item.config.stash[_CONTEXT]
    name = _name(item)
    context.suite = name.suite
    context.tell(wire.Begin(name))
    started = time.monotonic()
    result = yield
    status, message, code = item.stash.get(_OUTCOME, (Status.PASS, "", 0))
    attributes: dict[str, Attribute] = {"exit_code": code} if status is Status.ERROR else {}
    if item.stash.get(_UNABLE, False):
        attributes["unable"] = True
    model, trial = _about(item)
    context.emit(
        "test",
        status,
        model=model,
        trial=trial,
        subject=name.test,
        value=round(time.monotonic() - started, 3),
        message=message,
        attributes=attributes,
    )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The first thing that went wrong in a test is its outcome; a lost device ends the job."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if error is not None and _OUTCOME not in item.stash:
        item.stash[_OUTCOME] = _outcome(error)
        if isinstance(error, DeviceError):
            item.session.shouldstop = f"device lost: {error}"
    return report


def _outcome(error: BaseException) -> tuple[Status, str, int]:
    """Status, message and, for an ERROR, the exit code that it stands for."""
    if isinstance(error, pytest.skip.Exception):
        return Status.SKIP, str(error), 0
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return Status.FAIL, str(error).partition("\n")[0], 1
    if isinstance(error, HarnessError | KlausError):
        if error.exit_code == 1:
            return Status.FAIL, str(error), 1
        return Status.ERROR, str(error), error.exit_code
    return Status.ERROR, f"{type(error).__name__}: {error}; a bug here: the log has its trace", 5


@pytest.fixture(scope="session")
def context(request: pytest.FixtureRequest) -> Context:
    """The job."""
    return request.config.stash[_CONTEXT]


@pytest.fixture(scope="session")
def device(context: Context) -> Iterator[Device]:
    """The device, open."""
    opened = make_device(context.job.device)
    context.doing("connecting" if not context.job.emulated else "starting the emulator")
    opened.open()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="session")
def remote(context: Context, device: Device) -> Remote:
    """Program and models on the device, verified there."""
    job = context.job
    names = {model.id: f"{number}-{_safe(model.id)}.klaus" for number, model in enumerate(job.models)}
    files = {PROGRAM: job.build.program} | {names[model.id]: model.packed for model in job.models}
    context.doing("deploying")
    started = time.monotonic_ns()
    deployed = deploy(device, files)
    took = time.monotonic_ns() - started
    suite, context.suite = context.suite, "deploy"
    context.emit("deploy_ns", value=took)
    context.emit("sent_bytes", value=deployed.sent_bytes)
    context.emit("skipped_bytes", value=deployed.skipped_bytes)
    info = Program(device, deployed.program).info()
    remote = Remote(device, deployed, names, job.build.program, info)
    context.emit(
        "device",
        attributes={
            "version": info.version,
            "target": info.target,
            "arch": info.arch,
            "core": info.core,
            "core_class": info.core_class,
            "cpus": info.cpus,
            "isa": " ".join(info.isa),
            "midr": info.midr,
            "memory_bytes": info.memory_bytes,
            "page_bytes": info.page_bytes,
            "format_version": info.format_version,
        },
    )
    context.suite = suite
    return remote


@pytest.fixture(autouse=True)
def _able(request: pytest.FixtureRequest) -> None:
    """Leaves out what the device has no instructions for, with the reason: that is no failure of the device."""
    if "trial" in request.fixturenames:
        remote: Remote = request.getfixturevalue("remote")
        obstacle = remote.obstacle(request.getfixturevalue("trial"))
        if obstacle:
            request.node.stash[_UNABLE] = True
            pytest.skip(f"{remote.device.name}: {obstacle}")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", name)[:100]
