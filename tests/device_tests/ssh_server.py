"""A real SSH server in this process, by paramiko, that runs commands with this computer's sh and misbehaves on request.

It stands for what the emulated board cannot be: old phones, servers without SFTP, cut cables, strangers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)
from paramiko.sftp import SFTP_FAILURE

LEGACY_KEX = ("diffie-hellman-group14-sha1",)


@dataclass
class Behaviour:
    """What a server does; the defaults are a good one's."""

    host_keys: list[paramiko.PKey]
    client_key: paramiko.PKey | None = None
    password: str | None = None
    sftp: bool = True
    own_group: bool = True  # OpenSSH gives a command its process group, dropbear does not
    key_types: tuple[str, ...] = ()  # the only host key algorithms spoken
    kex: tuple[str, ...] = ()
    drop_after_bytes: int | None = None  # of a command's stdout: then the connection is cut
    drop_upload_after_bytes: int | None = None  # of what is written by SFTP
    deaf: bool = False  # answers no request on a channel
    silent: bool = False  # accepts connections and says nothing
    users: list[str] = field(default_factory=list)  # who tried to log in


class Server:
    """Listens on a port of 127.0.0.1 until closed."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._open: list[paramiko.Transport | socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cuts all connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self.behaviour.silent:
                self._open.append(connection)
                continue
            transport = paramiko.Transport(connection)
            options = transport.get_security_options()
            if self.behaviour.kex:
                options.kex = self.behaviour.kex
            if self.behaviour.key_types:
                options.key_types = self.behaviour.key_types
            for key in self.behaviour.host_keys:
                transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self.behaviour, transport)
            self._open.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(event=threading.Event(), server=_Session(self.behaviour, transport))


class _Session(paramiko.ServerInterface):
    def __init__(self, behaviour: Behaviour, transport: paramiko.Transport) -> None:
        self._behaviour, self._transport = behaviour, transport

    def get_allowed_auths(self, username: str) -> str:
        self._behaviour.users.append(username)
        return "publickey,password"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._behaviour.users.append(username)
        right = self._behaviour.client_key is not None and key == self._behaviour.client_key
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self._behaviour.users.append(username)
        right = self._behaviour.password is not None and password == self._behaviour.password
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self._behaviour.sftp and super().check_channel_subsystem_request(channel, name)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._behaviour.deaf:
            threading.Event().wait(60)
        threading.Thread(target=self._execute, args=(channel, command), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: bytes) -> None:
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=self._behaviour.own_group,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        threads = [
            threading.Thread(target=self._forward, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=_pour, args=(process.stderr, channel.sendall_stderr), daemon=True),
            threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True),
        ]
        for thread in threads:
            thread.start()
        status = process.wait()
        for thread in threads[:2]:
            thread.join(5)
        with contextlib.suppress(OSError, paramiko.SSHException):
            channel.send_exit_status(status if status >= 0 else 128 - status)
            channel.shutdown_write()
        channel.close()
        for thread in threads:
            thread.join(5)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()

    def _forward(self, stream: IO[bytes], send: Callable[[bytes], object]) -> None:
        sent = 0
        limit = self._behaviour.drop_after_bytes
        with contextlib.suppress(OSError, paramiko.SSHException):
            while data := os.read(stream.fileno(), 4096):
                if limit is not None and sent + len(data) > limit:
                    send(data[: limit - sent])
                    self._transport.sock.close()
                    return
                send(data)
                sent += len(data)


def _pour(stream: IO[bytes], send: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError, paramiko.SSHException):
        while data := os.read(stream.fileno(), 4096):
            send(data)


def _feed(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := channel.recv(32768):
            stdin.write(data)
            stdin.flush()
    with contextlib.suppress(OSError, ValueError):
        stdin.close()


class _Files(paramiko.SFTPServerInterface):
    """This computer's files."""

    def __init__(self, server: paramiko.ServerInterface, behaviour: Behaviour, transport: paramiko.Transport) -> None:
        super().__init__(server)
        self._behaviour, self._transport = behaviour, transport

    def open(
        self,
        path: str,
        flags: int,
        attr: paramiko.SFTPAttributes,  # noqa: ARG002
    ) -> paramiko.SFTPHandle | int:
        try:
            number = os.open(path, flags, 0o600)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = _Handle(flags, self._behaviour, self._transport)
        handle.readfile = handle.writefile = os.fdopen(number, "rb" if flags & 3 == os.O_RDONLY else "wb")
        return handle

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)


class _Handle(paramiko.SFTPHandle):
    def __init__(self, flags: int, behaviour: Behaviour, transport: paramiko.Transport) -> None:
        super().__init__(flags)
        self._behaviour, self._transport = behaviour, transport
        self.readfile: IO[bytes] | None = None
        self.writefile: IO[bytes] | None = None

    def stat(self) -> paramiko.SFTPAttributes | int:
        assert self.readfile is not None
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def write(self, offset: int, data: Any) -> int:
        limit = self._behaviour.drop_upload_after_bytes
        if limit is not None and offset + len(data) > limit:
            # shut down, not closed: the transport's thread still reads the number, which another file could get
            self._transport.sock.shutdown(socket.SHUT_RDWR)
            self.close()
            return SFTP_FAILURE
        return int(super().write(offset, data))
