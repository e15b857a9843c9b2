"""Work that is launched from one CUDA graph instead of hundreds of calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 2
"""Calls that are not captured, in which kernels are compiled and loaded."""


def captured(
    body: Callable[[], None],
    device: torch.device,
    scope: Callable[[torch.cuda.Stream], contextlib.AbstractContextManager[Any]] | None = None,
) -> Callable[[], None]:
    """A function that does what ``body`` does, from one CUDA graph after some uncaptured calls.

    Every call has the same effect, captured or not. On another device it is ``body`` itself.

    Args:
        body: launches work, asks the host for nothing, and changes tensors that were there before in place
            only, for the graph goes on reading and writing the memory that it was captured with.
        device: where.
        scope: to be entered while it is captured on the stream that it is given, for other libraries that
            launch work.
    """
    return body if device.type != "cuda" else _Captured(body, device, scope)


class _Captured:
    def __init__(self, body: Callable[[], None], device: torch.device, scope: Any) -> None:
        self._body, self._device, self._left = body, device, WARM_UP
        self._scope = scope or (lambda stream: contextlib.nullcontext())
        # nothing can be captured on the default stream; warmed up where it is captured
        self._side = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        here = torch.cuda.current_stream(self._device)
        self._side.wait_stream(here)
        if self._left:
            self._left -= 1
            with torch.cuda.stream(self._side):
                self._body()
            here.wait_stream(self._side)
            return
        graph = torch.cuda.CUDAGraph()
        # relaxed, for a library may load a kernel in the midst of it
        with (
            torch.cuda.graph(graph, stream=self._side, capture_error_mode="relaxed"),
            self._scope(self._side),
        ):
            self._body()
        here.wait_stream(self._side)
        graph.replay()
        self._graph = graph
