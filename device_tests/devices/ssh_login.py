"""Connecting to an SSH server that must have the pinned host key, and logging in to it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from device_tests.devices.text import printable
from device_tests.errors import DeviceError, HostKeyError, InventoryError

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks become our errors, not noise

CONNECT_S = 20.0

# What paramiko 4.0 still knows and nobody should speak unasked; legacy_ssh = true lets it.
_LEGACY: Mapping[str, Sequence[str]] = {
    "kex": ["diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"],
    "keys": ["ssh-rsa"],
    "pubkeys": ["ssh-rsa"],
    "ciphers": ["3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
}
_KEY_TYPES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_KEY_LINE = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]{40,4000}={0,2})(?: .*)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an SSH server is, which key it must have and how one logs in."""

    host: str
    port: int
    user: str
    pin: str | None  # "SHA256:..." or "TYPE BASE64"
    key_file: Path | None = None
    password_env: str | None = None
    legacy: bool = False
    connect_s: float = CONNECT_S


def check_pin(value: str) -> str | None:
    """What is wrong with a pin in the inventory, or None."""
    if _FINGERPRINT.fullmatch(value) or _KEY_LINE.fullmatch(value):
        return None
    return 'must be a fingerprint "SHA256:..." or a public key "ssh-ed25519 AAAA..."; devices.enrol writes it'


def fingerprint(key: bytes) -> str:
    """As OpenSSH writes it: SHA256:BASE64 without padding."""
    return "SHA256:" + b64encode(hashlib.sha256(key).digest()).decode("ascii").rstrip("=")


def handshake(
    name: str, at: Endpoint, only: Sequence[str] = (), first: Sequence[str] = ()
) -> tuple[paramiko.Transport, paramiko.PKey]:
    """Connects and agrees on keys; nothing is verified yet. only/first: host key types to insist on or to prefer."""
    where = f"{name} ({at.host}:{at.port})"
    try:
        connection = socket.create_connection((at.host, at.port), timeout=at.connect_s)
    except TimeoutError as error:
        raise DeviceError(f"{where}: no answer within {at.connect_s:g} s; is it on, and in this network?") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DeviceError(f"{where}: cannot connect: {reason}; is it on, and does its SSH server run?") from error
    _notice_dead_peers(connection)
    transport = paramiko.Transport(connection, disabled_algorithms=None if at.legacy else dict(_LEGACY))
    transport.daemon = True
    transport.banner_timeout = transport.handshake_timeout = at.connect_s
    transport.auth_timeout = at.connect_s
    try:
        options = transport.get_security_options()
        types = [t for t in options.key_types if not only or t in only]
        options.key_types = tuple(sorted(types, key=lambda t: t not in first))
        transport.start_client(timeout=at.connect_s)
        return transport, transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        transport.close()
        if only:
            raise
        hint = (
            f"; if it is an old phone that only speaks SHA-1, write legacy_ssh = true below [devices.{name}]"
            if not at.legacy
            else ""
        )
        raise DeviceError(f"{where}: no common algorithm ({printable(str(error), 120)}){hint}") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        said = printable(str(error), 160) or type(error).__name__
        raise DeviceError(f"{where}: answers, but not as an SSH server should ({said}); is the port right?") from error


def verified(name: str, at: Endpoint) -> paramiko.Transport:
    """A connection to the device whose key is pinned; else HostKeyError."""
    pinned_type, pinned = _pin_of(at.pin)
    family = next((types for types in _KEY_TYPES if pinned_type in types), ())
    transport, key = handshake(name, at, first=family)
    shown = fingerprint(key.asbytes())
    if shown == pinned:
        return transport
    transport.close()
    where = f"{name} ({at.host}:{at.port})"
    if pinned is None:
        raise HostKeyError(
            f"{where}: its host key is unknown: pinned none, found {shown} ({key.get_name()}). Compare it with what "
            f"the device says itself (ssh-keygen -lf on its key), then pin it: ./inv devices.enrol {name}"
        )
    if not pinned_type:  # a fingerprint does not tell its type: the server may have that key beside the shown one
        for types in _KEY_TYPES:
            if key.get_name() in types:
                continue
            with contextlib.suppress(paramiko.ssh_exception.IncompatiblePeer, DeviceError, ValueError):
                transport, other = handshake(name, at, only=types)
                if fingerprint(other.asbytes()) == pinned:
                    return transport
                transport.close()
    raise HostKeyError(
        f"{where}: its host key has changed: pinned {pinned}, found {shown} ({key.get_name()}). If the device was set "
        f"up anew, compare and pin it: ./inv devices.enrol {name}; if not, somebody may be in between: do not go on"
    )


def _pin_of(pin: str | None) -> tuple[str, str | None]:
    """(key type or "", fingerprint or None) of a pin."""
    if pin is None or pin.startswith("SHA256:"):
        return "", pin
    found = _KEY_LINE.fullmatch(pin)
    assert found is not None  # _check_pin
    try:
        return found[1], fingerprint(b64decode(found[2], validate=True))
    except ValueError as error:
        raise InventoryError(f"host_key '{printable(pin, 80)}' is no public key: {error}; run devices.enrol") from error


def log_in(name: str, at: Endpoint, transport: paramiko.Transport) -> None:
    """Authenticates with the key file, the password or the agent's keys, whatever the inventory names."""
    where = f"{name} ({at.user}@{at.host}:{at.port})"
    tried = []
    try:
        for what, key in _keys(name, at):
            try:
                transport.auth_publickey(at.user, key)
            except paramiko.AuthenticationException:
                tried.append(what)
            if transport.is_authenticated():
                return
        if at.password_env is not None:
            password = os.environ.get(at.password_env)
            if not password:
                raise InventoryError(f"{name}: password_env names {at.password_env}, which is not set; export it")
            tried.append(f"the password in {at.password_env}")
            with contextlib.suppress(paramiko.AuthenticationException):
                transport.auth_password(at.user, password)
            if transport.is_authenticated():
                return
    except (paramiko.SSHException, EOFError, OSError) as error:
        said = printable(str(error), 160) or type(error).__name__
        raise DeviceError(f"{where}: the log-in broke off ({said})") from error
    if not tried:
        raise DeviceError(
            f"{where}: nothing to log in with: no key_file, no password_env, and the SSH agent has no keys; "
            f"write key_file below [devices.{name}] or run ssh-add"
        )
    raise DeviceError(
        f"{where}: it refused {', '.join(tried)}; add the public key to its ~/.ssh/authorized_keys or name another"
    )


def _keys(name: str, at: Endpoint) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys to try, with what they are called in messages."""
    if at.key_file is not None:
        try:
            yield f"the key {at.key_file}", paramiko.PKey.from_path(at.key_file)
        except (paramiko.PasswordRequiredException, TypeError) as error:  # TypeError is cryptography's word for it
            raise InventoryError(
                f"{name}: the key {at.key_file} is encrypted; load it with ssh-add and leave key_file out"
            ) from error
        except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
            raise InventoryError(f"{name}: cannot read the key {at.key_file}: {printable(str(error), 160)}") from error
    elif at.password_env is None:
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"the agent's key {fingerprint(key.asbytes())}", key
        finally:
            agent.close()


def _notice_dead_peers(connection: socket.socket) -> None:
    """Lets TCP find out within about 35 s that the other side lost its power."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):  # not on every platform
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
