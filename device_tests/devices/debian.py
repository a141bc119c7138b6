"""Debian packages of another architecture, through an apt of our own: the computer's stays as it is.

The private apt root has its own sources, lists and cache; from the computer's apt it takes the mirrors, the keyring
and the settings of proxies. It needs no root rights. apt verifies the signatures of the lists and the hashes of the
packages.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from device_tests.devices.text import tail
from device_tests.errors import SetupError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_ENV = "KLAUS_DEBIAN_MIRROR"  # "URL RELEASE", where the computer's own apt has no Debian mirror
_UPDATE_S, _DOWNLOAD_S, _QUERY_S = 300.0, 600.0, 60.0
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def missing_tools() -> list[str]:
    """Commands that this module needs and this computer lacks."""
    return [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]


class PrivateApt:
    """apt for one foreign architecture below a folder."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self._folder = folder.resolve()
        self._architecture = architecture

    def update(self) -> None:
        """Fetches the lists of packages; signatures are verified."""
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").write_bytes(b"")
        (self._folder / "etc" / "sources.list").write_text("".join(f"{line}\n" for line in self._sources()))
        self._apt("apt-get", ["update", "-q"], _UPDATE_S)

    def dependencies(self, packages: Sequence[str]) -> list[str]:
        """What packages depend on, the first of each alternative."""
        found, alternative = [], False
        for line in self._apt("apt-cache", ["depends", "--important", *packages], _QUERY_S).splitlines():
            match = re.fullmatch(r"\s+(\|?)(?:Pre)?Depends: (\S+)", line)
            if match is not None:
                if not alternative:
                    found.append(match[2])
                alternative = match[1] == "|"
        return [name for name in found if _PACKAGE.fullmatch(name)]

    def download(self, packages: Sequence[str], into: Path) -> None:
        """Fetches packages as .deb files, their hashes verified; what is there already is not fetched again."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", ["download", "-q", *packages], _DOWNLOAD_S, cwd=into)

    def _apt(self, tool: str, arguments: Sequence[str], timeout_s: float, cwd: Path | None = None) -> str:
        """Runs an apt tool on the private root."""
        at = self._folder
        settings = {
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "Dir::Etc::sourcelist": at / "etc" / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::State": at,
            "Dir::State::status": at / "status",
            "Dir::State::lists": at / "lists",
            "Dir::Cache": at / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # containers often switch it off: a second and more a call
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Log": at,
            "APT::Sandbox::User": "root",  # _apt may not read our folder
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Retries": "2",
            "APT::Update::Error-Mode": "any",  # a list that cannot be fetched is an error, not a warning
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return _call([tool, arguments[0], *options, *arguments[1:]], timeout_s, cwd)

    def _sources(self) -> list[str]:
        """Lines of sources.list for Debian's main archive and its updates."""
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        given = os.environ.get(MIRROR_ENV, "").split()
        if given:
            if len(given) != 2 or not given[0].startswith(("http://", "https://", "file:/")):
                raise SetupError(f'{MIRROR_ENV} must be "URL RELEASE", e.g. "https://MIRROR/debian bookworm"')
            return [f"deb [arch={self._architecture}{signed}] {given[0]} {given[1]} main"]
        fields = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
        lines = []
        for line in _call(
            ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"], _QUERY_S
        ).splitlines():
            uri, release, component, origin = [*line.split("|"), "", "", ""][:4]
            # Debian's own archive only: others beside it would not verify with Debian's keyring. apt knows the origin
            # once it has fetched the lists; before that the address has to tell.
            debian = origin == "Debian" if "$" not in origin else re.search(r"/debian(?:-security)?/*$", uri)
            source = f"deb [arch={self._architecture}{signed}] {uri} {release} main"
            if debian and component == "main" and source not in lines:
                lines.append(source)
        if not lines:
            raise SetupError(
                "the board's image is made of Debian's arm64 packages, and this computer's apt knows no Debian mirror; "
                f'name one: export {MIRROR_ENV}="https://MIRROR/debian bookworm" (and install debian-archive-keyring)'
            )
        return lines


def unpacked(deb: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The members of a .deb's file system with their contents; nothing is written to disk."""
    done = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(deb)],
        capture_output=True,
        check=False,
        timeout=_QUERY_S,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise SetupError(f"{deb}: cannot be unpacked; remove it and try again:\n{tail(done.stderr)}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            yield member, stream.read() if stream is not None else b""


def _call(argv: Sequence[str], timeout_s: float, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except FileNotFoundError as error:
        raise SetupError(
            f"no {argv[0]} on this computer: the board's image is made of Debian packages; on other systems use a "
            'device of kind "qemu-user" or "ssh", or a Debian machine'
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{argv[0]} did not end within {timeout_s:g} s; is the network there?") from error
    if done.returncode != 0:
        said = tail(done.stderr or done.stdout)
        raise SetupError(f"{argv[0]} {argv[1]} failed (exit code {done.returncode}); is the network there?\n{said}")
    return done.stdout.decode("utf-8", "replace")
