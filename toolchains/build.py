"""Runs the steps of a build: incremental by content, in parallel, each product written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolchains import commands, detect
from toolchains import sign as signing
from toolchains.commands import Plan, Step
from toolchains.errors import BuildError, InputError, SetupError
from toolchains.manifest import (
    Manifest,
    built_file,
    git_state,
    sha256_of,
    sources_digest,
    write_manifest,
    write_text,
)
from toolchains.target import ISAS, Target, Toolchain, load_targets, select_targets

Say = Callable[[str], None]
_STEP_SECONDS = 900  # the first link of a target compiles musl: a minute on two cores, more on a loaded machine
_MESSAGE_LINES = 40
# Words of the environment by which a compiler would read or write something that no command line shows.
_MEDDLING = (
    "CPATH",
    "C_INCLUDE_PATH",
    "LIBRARY_PATH",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "ZIG_LIBC",
    "CCC_OVERRIDE_OPTIONS",
)


@dataclass(frozen=True, slots=True)
class Build:
    """One target, built: where everything stands. `manifest` and `compile_commands` are files."""

    target: Target
    folder: Path
    manifest: Path
    compile_commands: Path
    program: Path
    library: Path
    shared: Path


def find_sources(root: Path) -> list[PurePosixPath]:
    """All C files under kernels/, relative to `root`, sorted; raises InputError where there are none."""
    found = sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in (root / "kernels").rglob("*.c"))
    if not found:
        raise InputError(f"no C files in {root / 'kernels'}; this copy of the project is incomplete")
    return found


def find_headers(root: Path) -> list[PurePosixPath]:
    """What C files include from the project, relative to `root`, sorted."""
    folder = root / "kernels"
    found = [path for pattern in ("*.h", "*.def") for path in folder.rglob(pattern)]
    return sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in found)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def build(
    names: Sequence[str],
    *,
    root: Path,
    out: Path,
    jobs: int | None = None,
    dry_run: bool = False,
    say: Say = _print,
    progress: Say | None = None,
) -> list[Build]:
    """Builds targets into `out`/NAME; no names: all that this computer can build.

    root: the project's folder, with kernels/. jobs: commands at a time, default one a CPU. dry_run: `say` every
    command, shell-quoted, and run none. progress: told each step that runs, from any thread.
    Raises InputError (unknown target), SetupError (a compiler is missing, before anything is built) and BuildError
    (the compiler's own words inside).
    """
    root, out = root.resolve(), out.resolve()
    targets = load_targets()
    chosen = select_targets(tuple(names), targets) or [t for t in targets.values() if detect.buildable(t)]
    if not chosen:
        raise SetupError("no target can be built here: " + " ".join(map(detect.why_not, targets.values())))
    toolchains = {target.name: detect.toolchain_for(target) for target in chosen}  # all, before the first runs
    sources = find_sources(root)
    builds = []
    for target in chosen:
        toolchain = toolchains[target.name]
        steps = commands.plan(target, toolchain, sources, out / target.name)
        if dry_run:
            for step in steps.steps:
                say(shlex.join(_from_root(step.argv, root)))
        else:
            with _alone(out / target.name):
                _Builder(root, target, toolchain, steps, jobs or os.cpu_count() or 1, progress).run(sources)
        builds.append(_describe(target, steps))
    return builds


def _describe(target: Target, steps: Plan) -> Build:
    folder = steps.folder
    return Build(
        target=target,
        folder=folder,
        manifest=folder / "manifest.json",
        compile_commands=folder / "compile_commands.json",
        program=steps.program.output,
        library=steps.archive.output,
        shared=steps.shared.output,
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One build at a time in one folder; a second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compiler_environment(root: Path) -> dict[str, str]:
    """The environment compilers run in: zig's caches in the project, English messages, nothing that meddles."""
    environment = {key: value for key, value in os.environ.items() if key not in _MEDDLING}
    for key in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        environment.setdefault(key, str(root / ".cache" / "zig"))
    return {**environment, "LC_ALL": "C", "ZERO_AR_DATE": "1", "SOURCE_DATE_EPOCH": "0"}


class _Builder:
    """Builds one target."""

    def __init__(
        self, root: Path, target: Target, toolchain: Toolchain, steps: Plan, jobs: int, progress: Say | None
    ) -> None:
        self.root, self.target, self.toolchain, self.steps, self.jobs = root, target, toolchain, steps, jobs
        self.progress = progress
        self.environment = compiler_environment(root)
        self.symbolic = toolchain.symbolic()
        self.hashes: dict[Path, str] = {}
        self.stop = threading.Event()

    def run(self, sources: Sequence[PurePosixPath]) -> None:
        """All steps, then the files that describe them."""
        folder = self.steps.folder
        self._remove_strangers()
        with ThreadPoolExecutor(self.jobs) as pool:
            self._all(pool, self.steps.compilations)
            # The shared library does not need the archive.
            linking = pool.submit(self._step, self.steps.shared)
            self._step(self.steps.archive)
            self._step(self.steps.program)
            linking.result()
        write_text(folder / "compile_commands.json", self._compile_commands())
        write_manifest(folder / "manifest.json", self._manifest(sources))

    def _all(self, pool: ThreadPoolExecutor, steps: Sequence[Step]) -> None:
        """Runs steps in parallel; the first error stops those that have not begun and is raised."""
        futures = [pool.submit(self._step, step) for step in steps]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        if errors:
            raise errors[0]

    def _remove_strangers(self) -> None:
        """Objects of sources that are gone."""
        wanted = {step.output for step in self.steps.compilations}
        for name in ("objects", "objects-shared"):
            for path in (self.steps.folder / name).glob("*.o"):
                if path not in wanted:
                    for old in (path, path.with_suffix(".d"), path.with_suffix(".json")):
                        old.unlink(missing_ok=True)

    def _step(self, step: Step) -> None:
        if self.stop.is_set():
            return
        try:
            if not self._is_current(step):
                self._make(step)
        except BaseException:
            self.stop.set()
            raise

    def _hash(self, path: Path) -> str:
        """Digest of an input; a source is hashed once a build, relative paths are the project's."""
        known = self.hashes.get(path)
        if known is None:
            known = self.hashes[path] = sha256_of(self.root / path)
        return known

    def _key(self, step: Step) -> str:
        """What a result depends on besides its inputs: command line and compiler, without this computer's paths."""
        words = [self.toolchain.name, self.toolchain.version, *self._words(step)]
        if step.sign_as:
            words.append(sha256_of(Path(signing.__file__)))
        return hashlib.sha256("\0".join(words).encode()).hexdigest()

    def _words(self, step: Step) -> list[str]:
        """The command line with the toolchain's paths and the folder of the build left out."""
        mine, folder = self.toolchain, str(self.steps.folder)
        names = {mine.headers: self.symbolic.headers, str(commands.STUB): commands.STUB.name}
        for real, symbolic in (
            (mine.compiler, self.symbolic.compiler),
            (mine.archiver, self.symbolic.archiver),
            (mine.linker, self.symbolic.linker),
        ):
            names.update(zip(real, symbolic, strict=True))
        return [names.get(word, word).replace(folder, "OUT") if word else word for word in step.argv]

    def _is_current(self, step: Step) -> bool:
        """Whether the output stands and was made from just these bytes by just this command."""
        try:
            record = json.loads(_record_path(step).read_text("utf-8"))
            inputs: dict[str, str] = record["inputs"]
            return (
                bool(record["key"] == self._key(step))
                and set(inputs) >= {self._input_name(path) for path in step.inputs}
                and all(self._hash(self._input_path(name)) == digest for name, digest in inputs.items())
                and bool(sha256_of(step.output) == record["output"])
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # no record, an input that is gone, or a record of another kind: make it anew

    def _input_name(self, path: Path) -> str:
        """How a record names an input: the build's own files relative to its folder."""
        folder = self.steps.folder
        return f"OUT/{path.relative_to(folder)}" if path.is_relative_to(folder) else self._words_of_path(path)

    def _words_of_path(self, path: Path) -> str:
        return "STUB" if path == commands.STUB else path.as_posix()

    def _input_path(self, name: str) -> Path:
        if name == "STUB":
            return commands.STUB
        return self.steps.folder / name.removeprefix("OUT/") if name.startswith("OUT/") else Path(name)

    def _make(self, step: Step) -> None:
        """Runs the command into a temporary file and puts that in place, then notes what it was made from."""
        if self.progress:
            self.progress(step.label)
        step.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = step.output.with_name(f".new-{step.output.name}")
        depfile = step.depfile.with_name(f".new-{step.depfile.name}") if step.depfile else None
        exchanged = {str(step.output): str(temporary)}
        if step.depfile and depfile:
            exchanged[str(step.depfile)] = str(depfile)
        argv = [exchanged.get(word, word) for word in step.argv]
        temporary.unlink(missing_ok=True)
        try:
            self._run(step, argv)
            if step.sign_as:
                temporary.write_bytes(signing.sign(temporary.read_bytes(), step.sign_as))
            headers = read_depfile(depfile, self.root) if depfile else []
            inputs = {self._input_name(p): self._hash(p) for p in (*step.inputs, *map(Path, headers))}
            _record_path(step).unlink(missing_ok=True)
            temporary.replace(step.output)
        finally:
            temporary.unlink(missing_ok=True)
            if depfile:
                depfile.unlink(missing_ok=True)
        self.hashes[step.output] = sha256_of(step.output)
        record = {"inputs": inputs, "key": self._key(step), "output": self.hashes[step.output]}
        write_text(_record_path(step), json.dumps(record, indent=1, sort_keys=True) + "\n")

    def _run(self, step: Step, argv: Sequence[str]) -> None:
        try:
            done = subprocess.run(
                argv,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=_STEP_SECONDS,
            )
        except OSError as error:
            raise BuildError(f"{step.label}: {argv[0]} does not start: {error}; run ./inv doctor") from error
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{step.label}: {argv[0]} took longer than {_STEP_SECONDS} s; run it again") from error
        if done.returncode != 0:
            lines = done.stdout.strip().splitlines()
            more = [f"... {len(lines) - _MESSAGE_LINES} more lines"] if len(lines) > _MESSAGE_LINES else []
            text = "\n".join([*lines[:_MESSAGE_LINES], *more])
            raise BuildError(f"{step.label}: {Path(argv[0]).name} failed (exit code {done.returncode}):\n{text}")

    def _compile_commands(self) -> str:
        """The format of clang's JSON compilation database; it wants this folder's absolute path."""
        entries = [
            {
                "directory": str(self.root),
                "file": str(step.inputs[0]),
                "arguments": _from_root(step.argv, self.root),
                "output": _from_root([str(step.output)], self.root)[0],
            }
            for step in self.steps.compilations
        ]
        return json.dumps(entries, indent=1) + "\n"

    def _manifest(self, sources: Sequence[PurePosixPath]) -> Manifest:
        target, shared_system = self.target, self.target.shared_triple or self.target.triple
        commit, dirty = git_state(self.root)
        systems = {
            self.steps.program.output: target.triple,
            self.steps.archive.output: target.triple,
            self.steps.shared.output: shared_system,
        }
        return Manifest(
            target=target.name,
            description=target.description,
            commit=commit,
            dirty=dirty,
            compiler=self.toolchain.name,
            compiler_version=self.toolchain.version,
            flags=self._flags(),
            sources_sha256=sources_digest(self.root, [*sources, *find_headers(self.root)]),
            files={path.name: built_file(path, system) for path, system in systems.items()},
        )

    def _flags(self) -> dict[str, list[str]]:
        """The flags of each kind of source that this target compiles, and of the links."""
        stems = {"common": "x", **{word: f"x_{word}" for word in ("neon", *ISAS)}}
        kinds = {kind: commands.classify(PurePosixPath(f"kernels/ops/{stem}.c")) for kind, stem in stems.items()}
        flags = {
            kind: commands.source_flags(self.target, self.symbolic, source)
            for kind, source in kinds.items()
            if source.fits(self.toolchain)
        }
        for step, name in ((self.steps.program, "link program"), (self.steps.shared, "link shared")):
            inputs = {self._input_name(path) for path in step.inputs}
            flags[name] = [word for word in self._words(step)[1:] if word not in inputs]
        return flags


def _from_root(words: Sequence[str], root: Path) -> list[str]:
    """Paths below `root` as they read there, where all commands run."""
    return [word.removeprefix(f"{root}/") for word in words]


def _record_path(step: Step) -> Path:
    """Where it is noted what an output was made from."""
    if step.output.suffix == ".o":
        return step.output.with_suffix(".json")
    return step.output.parent / "objects" / f"{step.output.name}.json"


def read_depfile(path: Path, root: Path) -> list[str]:
    """The project's own files in a compiler's make rule, relative to `root`; system headers are left out."""
    text = path.read_text("utf-8", "surrogateescape").replace("\\\n", " ")
    _, _, rule = text.partition(": ")
    words = [word.replace("\\ ", " ") for word in rule.replace("\\ ", "\0").split()]
    words = [word.replace("\0", " ") for word in words]
    inside = []
    for word in words:
        full = (root / word).resolve()
        if full.is_relative_to(root / "kernels"):
            inside.append(full.relative_to(root).as_posix())
    return sorted(set(inside))
