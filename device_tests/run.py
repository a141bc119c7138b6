"""A run: suites over devices, from a plan to results/RUN with its journal and reports.

results/RUN/records.jsonl   the journal: the one truth, written here and nowhere else
results/RUN/report.md       drawn from it, as is
results/RUN/junit.xml
results/RUN/logs/           what each device's pytest wrote, and its job
"""

from __future__ import annotations

import platform
import queue
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from device_tests.devices import make_device
from device_tests.devices.spec import DeviceSpec
from device_tests.errors import HarnessError, InventoryError
from device_tests.farm import JobState, run_job
from device_tests.photos import Photo, demo_photos, folder_photos
from device_tests.plan import Job, RunPlan
from device_tests.progress import Display
from device_tests.results import new_folder, write_text
from klaus_runtime.accuracy import CLAIM_FROM
from klaus_runtime.published import REFERENCES
from reports import journal
from reports.compare import earlier_runs
from reports.formats import junit, markdown
from reports.formats.console import print_page
from reports.page import Page, make_page
from reports.record import Attribute, Record, Status, clip, now
from reports.verdict import exit_code

MAX_AT_ONCE = 64  # devices


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left. exit_code: 0 all right, 1 a check failed, 3 set-up, 4 infrastructure, 5 internal error."""

    folder: Path
    exit_code: int
    records: tuple[Record, ...]


def run_suites(plan: RunPlan, *, display: Display | None = None, draw: bool = True) -> RunResult:
    """Runs the plan, all devices at once, each device's suites one after the other.

    A device that fails costs its own records only. Raises InventoryError for photos that cannot be used and
    SetupError where results cannot be written; what was recorded before an interrupt stays in the journal.
    display: shows how it goes, by default on stderr; draw: print the report at the end, on stdout.
    """
    photos = _photos(plan)
    folder = new_folder(plan.results)
    run = folder.name
    (folder / "logs").mkdir()
    records: list[Record] = []
    with journal.Journal(folder / journal.NAME) as writer, display or Display() as screen:

        def keep(record: Record) -> None:
            writer.append(record)
            records.append(record)
            screen.tell(record)

        for record in _head(run, plan, photos):
            keep(record)
        with (
            tempfile.TemporaryDirectory(prefix="klaus-run-") as work,
            closing(_run_jobs(run, plan, folder / "logs", Path(work), screen)) as arriving,
        ):
            for record in arriving:
                keep(record)
        keep(_closing(run, records))
    page = write_reports(folder) if plan.reports else make_page(records)
    if draw:
        print_page(page)
    return RunResult(folder, exit_code(records), tuple(records))


def write_reports(folder: Path) -> Page:
    """Draws report.md and junit.xml of a run's folder from its journal, each whole or not at all; returns the page.

    Raises ReportError for a folder without a readable journal.
    """
    records = journal.read(folder / journal.NAME)
    if not records:
        raise InventoryError(f"{folder}: the journal is empty, so there is nothing to report; run again")
    page = make_page(records, list(earlier_runs(folder.parent, folder.name)))
    write_text(folder / "report.md", markdown.render(page))
    write_text(folder / "junit.xml", junit.render(records))
    return page


def redraw(results: Path, name: str = "") -> int:
    """Draws the report of a run again, by default the last one's, on stdout and in its folder. Returns 0.

    Raises InventoryError where there is no such run, ReportError for a broken journal.
    """
    found = {path.parent.name: path.parent for path in sorted(results.glob(f"*/{journal.NAME}"))}
    if not found:
        raise InventoryError(f"{results}: no run is there yet; `invoke deploy-and-bench` makes one")
    wanted = Path(name).name or list(found)[-1]
    if wanted not in found:
        raise InventoryError(f"{results}: no run {clip(name, 80)!r}; the last ones are {', '.join(list(found)[-5:])}")
    print_page(write_reports(found[wanted]))
    return 0


def _photos(plan: RunPlan) -> list[Photo]:
    """What the suites will show the models; found here first, so that a wrong folder ends the run before it begins."""
    if not {"accuracy", "agreement"} & set(plan.suites):
        return []
    return demo_photos() if plan.photos is None else folder_photos(plan.photos)


def _head(run: str, plan: RunPlan, photos: Sequence[Photo]) -> Iterator[Record]:
    """What the run is, before any device is touched."""

    def fact(metric: str, **more: object) -> Record:
        return Record(run=run, time=now(), metric=metric, status=Status.DONE, **more)  # type: ignore[arg-type]

    about: dict[str, Attribute] = {
        "command": clip(plan.command),
        "commit": plan.commit,
        "devices": clip(" ".join(device.name for device in plan.devices)),
        "suites": " ".join(plan.suites),
        "profile": plan.profile or "quick where emulated, else normal",
        "crop": plan.crop,
        "precisions": " ".join(plan.precisions),
        "memory": plan.memory,
        "photos": len(photos),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    yield fact("run", attributes=about)
    for build in plan.builds.values():
        told: dict[str, Attribute] = {
            "program_sha256": build.program_sha256,
            "commit": build.commit,
            "compiler": clip(build.compiler),
            "flags": clip(build.flags),
        }
        yield fact("build", subject=build.target, attributes=told)
    for model in plan.models:
        whose: dict[str, object] = {"model": model.name, "scheme": model.scheme, "model_sha256": model.sha256}
        origin: dict[str, Attribute] = {
            "source": clip(model.source),
            "licence": clip(model.licence),
            "attribution": clip(model.attribution),
            "seeded": model.seeded,
        }
        yield fact("model", value=model.weights, attributes=origin, **whose)
        yield fact("packed_bytes", value=model.packed_bytes, **whose)
        if model.package_bytes:
            yield fact("package_bytes", value=model.package_bytes, **whose)
            yield fact("effective_bits", value=model.effective_bits, **whose)
    for item in REFERENCES:
        figures: dict[str, Attribute] = {"size": item.size, "memory": item.memory, "note": item.note}
        misses = {"top1_miss": item.top1_miss, "top5_miss": item.top5_miss}
        figures |= {name: miss for name, miss in misses.items() if miss is not None}
        yield fact("reference", subject=item.name, attributes=figures)
    if len(photos) < CLAIM_FROM:
        for photo in photos:
            credit: dict[str, Attribute] = {
                "author": clip(photo.author),
                "licence": clip(photo.licence),
                "source": clip(photo.source or str(photo.path)),
            }
            yield fact("photo", subject=clip(photo.name, 200), attributes=credit)


def _run_jobs(run: str, plan: RunPlan, logs: Path, work: Path, display: Display) -> Generator[Record, None, None]:
    """All jobs at once; records in the order in which they come. Only this generator's caller writes."""
    arrived: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
    stop = Event()
    with ThreadPoolExecutor(min(len(plan.devices), MAX_AT_ONCE), thread_name_prefix="device") as pool:
        futures: list[Future[JobState]] = []
        waiting = 0
        try:
            for device in plan.devices:
                job = _job(run, plan, device, work / device.name)
                if isinstance(job, Record):
                    yield job
                    continue
                future = pool.submit(run_job, job, logs, plan.job_timeout_s, arrived.put, display.show, stop)
                future.add_done_callback(lambda _: arrived.put(None))
                futures.append(future)
                waiting += 1
            while waiting:
                record = arrived.get()
                if record is None:
                    waiting -= 1
                else:
                    yield record
        finally:
            stop.set()  # no-op for jobs that ended; an interrupt ends the others, which close their devices
    for future in futures:
        future.result()  # a bug in run_job itself must not pass silently


def _job(run: str, plan: RunPlan, device: DeviceSpec, work: Path) -> Job | Record:
    """A device's job, or the record that says why it has none."""
    try:
        emulated = make_device(device).emulated
        build = plan.builds.get(device.target)
        if build is None:
            raise InventoryError(
                f"{device.name}: there is no build for its target {device.target}; add --target {device.target}"
            )
    except HarnessError as error:
        return Record(
            run=run,
            time=now(),
            metric="device_job",
            status=Status.ERROR,
            device=device.name,
            kind=device.kind,
            target=device.target,
            message=clip(str(error)),
            attributes={"exit_code": error.exit_code},
        )
    work.mkdir()
    return Job(
        run=run,
        device=device,
        build=build,
        models=plan.models,
        suites=plan.suites,
        profile=plan.profile,
        photos=plan.photos,
        crop=plan.crop,
        precisions=plan.precisions,
        memory=plan.memory,
        emulated=emulated,
        work=work,
    )


def _closing(run: str, records: Sequence[Record]) -> Record:
    """The last record: a journal without it was interrupted."""
    code = exit_code(records)
    return Record(
        run=run,
        time=now(),
        metric="run",
        status=Status.DONE,
        subject="end",
        attributes={"exit_code": code, "records": len(records)},
    )
