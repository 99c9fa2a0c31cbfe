"""Run the server until a signal ends it: requests that have begun are finished first."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from clipita.errors import ClipitaError
from clipita.serve.app import application
from clipita.serve.service import Service

_FINISH_SECONDS = 30  # for requests that have begun when the server is to end


def run(service: Service, version: str, on_start: Callable[[str], object] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        service: What answers.
        version: Of clipita.
        on_start: Is called with the server's address once it listens.

    Raises:
        ClipitaError: The address cannot be listened at.
    """
    settings = service.settings
    listening = _listen(settings.host, settings.port)
    port = listening.getsockname()[1]
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    config = uvicorn.Config(
        application(service, version),
        http=_protocol(settings.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_FINISH_SECONDS,
        h11_max_incomplete_event_size=32 << 10,
    )
    server = uvicorn.Server(config)
    with _ends_well(), listening:
        on_start(f"http://{name}:{port}")
        asyncio.run(server.serve([listening]))


@contextlib.contextmanager
def _ends_well() -> Generator[None]:
    """Do nothing about signals outside the server's own handlers: it raises each again after its end."""

    def nothing(_: int, __: object) -> None: ...

    before = {number: signal.signal(number, nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay of 40 ms an answer off only where the protocol is given.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ClipitaError(f"{host}:{port} cannot be listened at: {reason}. Choose another: --port N.") from error
    return listening


def _protocol(head_seconds: float) -> type[H11Protocol]:
    class Patient(H11Protocol):
        """Closes connections whose request's head does not come in time: they would be held for ever."""

        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head = self.loop.call_later(head_seconds, self._close_if_waiting)

        def data_received(self, data: bytes) -> None:
            waits = self._is_waiting()
            super().data_received(data)
            if waits and self._is_waiting() and self._head is None:
                self._head = self.loop.call_later(head_seconds, self._close_if_waiting)
            elif not self._is_waiting() and self._head is not None:
                self._head.cancel()
                self._head = None

        def _is_waiting(self) -> bool:
            # uvicorn says that there is always a cycle; before the first request there is none.
            cycle: Any = self.cycle
            return cycle is None or cycle.response_complete

        def _close_if_waiting(self) -> None:
            self._head = None
            if self._is_waiting() and not self.transport.is_closing():
                self.transport.close()

    return Patient
