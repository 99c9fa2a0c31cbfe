"""Set up the process that clipita is imported into: turn telemetry off, and prepare for forks."""

import os
import sys
from collections.abc import Callable
from typing import Any


def turn_telemetry_off() -> None:
    """Keep ONNX Runtime from reporting its use over the network.

    Its official builds for Linux and macOS do so from version 1.29 on: their import writes a device id and a database
    below the user's cache and contacts a collector. They read $ORT_DISABLE_TELEMETRY once, when they are imported.
    Therefore it is set here, when clipita is imported, unless the user has set it. If another library has imported ONNX
    Runtime before, the report has begun, and this can only turn off further events.

    Source: microsoft/onnxruntime, pull requests 27379 and 29843; docs/Privacy.md.
    """
    if os.environ.get("ORT_DISABLE_TELEMETRY"):
        return
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    loaded: Any = sys.modules.get("onnxruntime")
    if hasattr(loaded, "disable_telemetry_events"):
        loaded.disable_telemetry_events()


def in_forked_children(action: Callable[[], None]) -> None:
    """Call `action` at the start of every child that this process forks; on systems without fork, never."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
