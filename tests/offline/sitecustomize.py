"""Python imports this at its start when the folder is on PYTHONPATH, and then reaches no machine but this one."""

import socket
import sys
from typing import Any

HERE = {"localhost", "127.0.0.1", "::1", "", None}


def refuse_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        host = arguments[1][0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host not in HERE and not host.startswith("127."):
        # Not an OSError: whoever can do without a connection would take that silently.
        raise RuntimeError(f"a connection to {host!r} was tried, and here there is none")


sys.addaudithook(refuse_connections)
