"""Two networks of equal depth of which one looks, in every layer, at the keys and values of the other's same layer.

Each is a walk: a generator that stops wherever keys and values of a layer have been written, and returns its result.
The one that looks follows the other at a distance of one layer. On CUDA they are on two streams, with one event a
layer: both are worked on at the same time, which fills a device that neither fills alone. The work is the same, and so
is its order in either network; results are as if they had taken turns (reported as 1.34 times faster on an H100).

What a walk allocates and does not return has to stay within the walk, as memory belongs to the stream it was
allocated on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from wamkit.spans import Span

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
Walk = Generator[None, None, A]


def walked(walk: Walk[A]) -> A:
    """The result of a walk that nobody has to wait for."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return end.value


def in_span(name: str) -> Callable[[Callable[P, Walk[A]]], Callable[P, Walk[A]]]:
    """Walks that such a function makes are in the span of that name, except while they stop."""

    def spanned(walk: Walk[A]) -> Walk[A]:
        while True:
            with Span(name):
                try:
                    next(walk)
                except StopIteration as end:
                    return end.value
            yield

    return lambda make: wraps(make)(lambda *args, **kwargs: spanned(make(*args, **kwargs)))


def in_turns(ahead: Walk[A], behind: Walk[B], layers: int) -> tuple[A, B]:
    """Layer by layer, on one stream or on a device that has none."""
    for _ in range(layers):
        next(ahead)
        next(behind)
    return walked(ahead), walked(behind)


class TwoStreams:
    """`in_turns` with `ahead` on a stream of its own beside the current one."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def __call__(self, ahead: Walk[A], behind: Walk[B], layers: int) -> tuple[A, B]:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        for _ in range(layers):
            with torch.cuda.stream(self.stream):
                next(ahead)
                written = self.stream.record_event()
            # It has looked at the layers before this one, and projects this one itself while the other still works.
            next(behind)
            current.wait_event(written)
        with torch.cuda.stream(self.stream):
            first = walked(ahead)
        second = walked(behind)
        current.wait_stream(self.stream)
        return first, second


Together = Callable[[Walk[A], Walk[B], int], tuple[A, B]]


def walking(device: torch.device) -> Together:
    """On two streams where the device has any."""
    return TwoStreams(device) if device.type == "cuda" else in_turns
