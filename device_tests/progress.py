"""What people see while a run goes on: a line a device on a terminal, a line a finished test elsewhere."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from device_tests.farm import JobState
from reports.formats.console import STATUS_STYLES
from reports.record import Record, Status
from reports.words import plain


class Display:
    """Draws on stderr; used from several threads."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._lock = Lock()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[device]}", style="bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", style="cyan", markup=False),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, state: JobState) -> None:
        """Where a device's job stands."""
        if not self._live:
            return
        name = state.job.device.name
        text = state.text
        if state.current is not None:
            text = f"{state.current.suite}: {text}" if text else state.current.suite
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task("", total=None, device=plain(name, 40), text="")
            self._progress.update(
                self._tasks[name],
                total=len(state.planned) or None,
                completed=len(state.done),
                text="done" if state.finished else plain(text, 100),
            )

    def tell(self, record: Record) -> None:
        """A test's end, or trouble with a job; on a terminal only what did not pass."""
        bad = record.status in (Status.FAIL, Status.ERROR, Status.MISS)
        if record.metric not in ("test", "device_job") or (self._live and not bad):
            return
        took = "" if record.value is None else f"  {record.value:.1f} s"
        line = Text.assemble(
            (f"{record.status.value:5} ", STATUS_STYLES[record.status]),
            plain(f"{record.device}  {record.suite}  {record.subject}"),
            (took, "dim"),
        )
        if bad and record.message:
            line.append("\n      " + plain(record.message, 1000))
        self._console.print(line, soft_wrap=True)
