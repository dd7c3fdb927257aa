"""A server on a port of this machine: in the foreground for the command line, in a thread for notebooks."""

from __future__ import annotations

import errno
import socket
import threading
import time
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from eozip.errors import InputError

_LOOPBACK = "127.0.0.1"
_STARTING = 30.0  # seconds


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket, so that a port in use is said before anything starts.

    Args:
        host: name or address of this machine.
        port: 0: any that is free.

    Raises:
        InputError: the port is in use or not allowed, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise InputError(_reason(host, port, error)) from error
    return found


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host}: expected a free one, got one in use; choose another (--port), or 0 for any"
    why = error.strerror or error
    if error.errno == errno.EACCES:
        return f"port {port} of {host}: expected one that you may use, got {why}; choose one above 1023"
    return f"host {host}: expected an address of this machine, got {why}; leave --host out for {_LOOPBACK}"


def address_of(bound: socket.socket) -> str:
    """How a browser reaches a socket."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": _LOOPBACK, "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=15, server_header=False
    )
    return uvicorn.Server(config)


def run_app(app: Starlette, bound: socket.socket) -> None:
    """Serve until it is interrupted.

    Args:
        app: as `create_app` gives it.
        bound: as `bind` gives it; closed at the end.
    """
    with bound:
        _server(app).run(sockets=[bound])


@dataclass
class Running:
    """A server in a thread; it ends with `stop`, or with the process.

    Attributes:
        address: how a browser reaches it.
    """

    address: str
    _server: uvicorn.Server
    _thread: threading.Thread
    _socket: socket.socket

    def stop(self) -> None:
        """End the server and wait for it."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


def start_app(app: Starlette, host: str = _LOOPBACK, port: int = 0) -> Running:
    """Serve in a thread.

    Args:
        app: of `create_app`.
        host: address of this machine.
        port: 0 takes any free one.

    Raises:
        InputError: as `bind`, or it did not start.
    """
    bound = bind(host, port)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True, name="eozip serve")
    thread.start()
    until = time.monotonic() + _STARTING
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            bound.close()
            raise InputError(f"serve: expected the server to start on {address_of(bound)}, got none")
        time.sleep(0.01)
    return Running(address_of(bound), server, thread, bound)
