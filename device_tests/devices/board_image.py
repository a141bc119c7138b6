"""The emulated board's kernel and root file system, made of Debian's arm64 packages.

The root file system is an initramfs of two parts: what comes from packages, the same bytes for the same packages, and
the board's identity: a host key and the one public key that may log in, both made here and known nowhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
import posixpath
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_tests.devices import cpio
from device_tests.devices.debian import PrivateApt, missing_tools, unpacked
from device_tests.errors import SetupError

RECIPE = 1  # a change of this file that changes the image counts this up
_KERNEL = "linux-image-cloud-arm64"
_PROGRAMS = ("busybox-static", "dropbear-bin", "openssh-sftp-server")
# In loading order; a kernel that has one built in says so in modules.builtin.
_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "failover", "net_failover", "virtio_net")
_UNUSED = re.compile(r"usr/share/|usr/include/|etc/|var/|.*/gconv/|.*/audit/|usr/lib/systemd/|usr/lib/tmpfiles.d/")
_RESULT = "image.json"
_TEXT = serialization.PublicFormat.OpenSSH

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
size=$(sed -n 's/.*board.disk_mb=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
mount -t tmpfs -o mode=755,size=${size:-512}m data /data
for module in $(cat /etc/modules.list); do insmod /lib/modules/$module.ko; done
hostname board
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
dropbear -E -s -j -k -m -r /etc/dropbear/host_key -I 0 -W 1000000
echo BOARD-UP $(cut -d' ' -f1 /proc/uptime)
while :; do sleep 3600 & wait $!; done
"""


@dataclass(frozen=True, slots=True)
class BoardImage:
    """What qemu boots and how one gets in."""

    kernel: Path
    initrd: Path
    host_key: str  # "ssh-ed25519 AAAA...": the pin
    client_key: Path  # a private key, readable by its owner only
    kernel_version: str  # 6.1.0-56-cloud-arm64
    packages: Mapping[str, str]  # file name of each package -> sha256


def missing_packages() -> list[str]:
    """Debian packages that the board needs and this computer lacks; on other systems the names differ."""
    lacking = []
    if shutil.which("qemu-system-aarch64") is None:
        lacking.append("qemu-system-arm")
    tools = missing_tools()
    if "apt-get" in tools or "apt-cache" in tools:
        lacking.append("apt")
    if "dpkg-deb" in tools:
        lacking.append("dpkg")
    return lacking


def build_image(cache: Path) -> BoardImage:
    """The image below `cache`, made if it is not there or was made by another recipe.

    Needs apt's network the first time only (about 30 MB), no root rights. Several processes may ask at once. Raises
    SetupError.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        image = _finished(cache)
        return image if image is not None else _build(cache)


def _build(cache: Path) -> BoardImage:
    (cache / _RESULT).unlink(missing_ok=True)
    debs = _packages(cache)
    kernel_deb = next(deb for deb in debs if deb.name.startswith("linux-image-"))
    kernel, version, files = _from_kernel(kernel_deb)
    for deb in debs:
        if deb != kernel_deb:
            files.update(_from_package(deb))
    files.update(_system())
    identity, host_key, client_key = _identity()
    _write(cache / "vmlinuz", kernel)
    _write(cache / "initrd", cpio.archive(files) + cpio.archive(identity))
    _write(cache / "id_ed25519", client_key)
    digests = {name: _sha256(cache / name) for name in ("vmlinuz", "initrd", "id_ed25519")}
    facts = {
        "recipe": RECIPE,
        "files": digests,
        "host_key": host_key,
        "kernel_version": version,
        "packages": {deb.name: _sha256(deb) for deb in debs},
    }
    _write(cache / _RESULT, json.dumps(facts, indent=1).encode())
    image = _finished(cache)
    assert image is not None
    return image


def _finished(cache: Path) -> BoardImage | None:
    """The image that stands below `cache`, if it is whole and of this recipe."""
    try:
        facts = json.loads((cache / _RESULT).read_bytes())
        if facts["recipe"] != RECIPE or any(_sha256(cache / name) != sha for name, sha in facts["files"].items()):
            return None
        return BoardImage(
            kernel=cache / "vmlinuz",
            initrd=cache / "initrd",
            host_key=facts["host_key"],
            client_key=cache / "id_ed25519",
            kernel_version=facts["kernel_version"],
            packages=facts["packages"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _packages(cache: Path) -> list[Path]:
    """The .deb files: the kernel, the programs and the libraries that they need."""
    apt = PrivateApt(cache / "apt", "arm64")
    apt.update()
    kernel = [name for name in apt.dependencies([_KERNEL]) if name.startswith("linux-image-")]
    if not kernel:
        raise SetupError(f"apt's arm64 lists have no kernel ({_KERNEL} depends on none); is the mirror complete?")
    wanted, level = [kernel[0], *_PROGRAMS], list(_PROGRAMS)
    while level:  # libraries only: helpers, documentation and configuration are not for a board of one program
        needed = dict.fromkeys(apt.dependencies(level))
        level = [name for name in needed if name.startswith(("lib", "zlib")) and name not in wanted]
        wanted += level
    folder = cache / "debs"
    apt.download(wanted, folder)
    found = []
    for name in wanted:
        candidates = sorted(folder.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
        if not candidates:
            raise SetupError(f"apt-get download brought no {name} for arm64; remove {folder} and try again")
        found.append(candidates[-1])
        for old in candidates[:-1]:
            old.unlink()
    return found


def _from_kernel(deb: Path) -> tuple[bytes, str, dict[str, cpio.Entry]]:
    """(vmlinuz, version, the module files and their list) of a kernel package."""
    kernel, version, builtin = b"", "", ""
    modules: dict[str, bytes] = {}
    for member, data in unpacked(deb):
        name = posixpath.normpath(member.name).lstrip("/").removeprefix("usr/")
        if match := re.fullmatch(r"boot/vmlinuz-(\S+)", name):
            kernel, version = data, match[1]
        elif name.endswith("/modules.builtin"):
            builtin = data.decode()
        elif (match := re.fullmatch(r"lib/modules/.*/([a-z_]+)\.ko(\.xz)?", name)) and match[1] in _MODULES:
            modules[match[1]] = lzma.decompress(data) if match[2] else data
    absent = [m for m in _MODULES if m not in modules and f"/{m}.ko" not in builtin]
    if not kernel or absent:
        raise SetupError(f"{deb.name} has no {', '.join(absent) or 'vmlinuz'}; this kernel needs another recipe")
    order = [m for m in _MODULES if m in modules]
    files = {f"usr/lib/modules/{m}.ko": cpio.file(modules[m]) for m in order}
    files["etc/modules.list"] = cpio.file("".join(f"{m}\n" for m in order).encode())
    return kernel, version, files


def _from_package(deb: Path) -> Iterator[tuple[str, cpio.Entry]]:
    """The files and links of a package, below usr as on every merged system."""
    for member, data in unpacked(deb):
        path = posixpath.normpath(member.name).lstrip("/")
        if path.split("/")[0] in ("bin", "sbin", "lib"):
            path = f"usr/{path}"
        if _UNUSED.match(path + "/"):
            continue
        if member.isfile():
            yield path, cpio.file(data, 0o755 if member.mode & 0o111 else 0o644)
        elif member.issym():
            yield path, cpio.link(member.linkname)


def _system() -> dict[str, cpio.Entry]:
    """What no package brings."""
    folders = {name: cpio.folder() for name in ("proc", "sys", "dev", "run", "data", "var/log", "etc/dropbear")}
    links = {name: cpio.link(f"usr/{name}") for name in ("bin", "sbin", "lib")}
    sftp = {f"usr/{name}/sftp-server": cpio.link("/usr/lib/openssh/sftp-server") for name in ("lib", "libexec")}
    return {
        **folders,
        **links,
        **sftp,
        "tmp": cpio.folder(0o1777),
        "dev/console": cpio.character_device(5, 1),
        "dev/null": cpio.character_device(1, 3, 0o666),
        "init": cpio.file(_INIT.encode(), 0o755),
        "etc/passwd": cpio.file(b"root:*:0:0:root:/root:/bin/sh\n"),
        "etc/group": cpio.file(b"root:x:0:\n"),
        "etc/shells": cpio.file(b"/bin/sh\n"),
        "etc/hosts": cpio.file(b"127.0.0.1 localhost\n"),
    }


def _identity() -> tuple[dict[str, cpio.Entry], str, bytes]:
    """(files, the host's public key line, the client's private key): new ones."""
    host, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw
    private = host.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = host.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    # dropbear's own file: the type as an SSH string, then private and public half as one string of 64 bytes
    host_file = _ssh_string(b"ssh-ed25519") + _ssh_string(private + public)
    files = {
        "etc/dropbear": cpio.folder(0o700),
        "etc/dropbear/host_key": cpio.file(host_file, 0o600),
        "root": cpio.folder(0o700),
        "root/.ssh": cpio.folder(0o700),
        "root/.ssh/authorized_keys": cpio.file(_public_line(client).encode() + b"\n", 0o600),
    }
    client_key = client.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return files, _public_line(host), client_key


def _public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, _TEXT).decode()


def _ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for the owner only: the image holds keys."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)
        part.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}; is there room?") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
