"""Files of a data set, opened in guarded children, several at a time: a bad file costs its deadline, not the run."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from vqa.errors import ClipError
from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.types import Pixels

T = TypeVar("T")

SAMPLED_FRAMES = 5
DEADLINE_SECONDS, MEMORY_BYTES = 60.0, 4 * 2**30
_KEPT = (16, 16)  # pixels; every frame is decoded at full size


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one file is."""

    is_image: bool
    frame_count: int
    duration_seconds: float
    fps: float
    wanted: int  # frames asked of the decoder
    decoded: int
    fingerprint: str


def examine(uri: str, *, every_frame: bool) -> Facts:
    """Opens and decodes one file: every frame, or five from the first to the last. Raises ClipError."""
    info, packets = probe(uri)
    count = len(packets.seconds)
    sampled = np.linspace(0, count - 1, count if every_frame else SAMPLED_FRAMES)
    wanted = np.unique(sampled.round().astype(int))
    frames = decode(uri, packets.seconds[wanted], sizes=[_KEPT] * len(wanted), info=info, packets=packets)
    return Facts(
        is_image=info.is_image,
        frame_count=count,
        duration_seconds=info.duration_seconds,
        fps=info.fps,
        wanted=len(wanted),
        decoded=len(frames.requested),
        fingerprint=fingerprint(uri),
    )


def middle_frame(uri: str, *, room: tuple[int, int]) -> Pixels:
    """The frame in the middle, reduced to fit into `room` (width, height): uint8 [h, w, 3] RGB. Raises ClipError."""
    info, packets = probe(uri)
    scale = min(1.0, room[0] / info.width, room[1] / info.height)
    size = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    return decode(uri, [packets.seconds[len(packets.seconds) // 2]], sizes=[size], info=info, packets=packets).pixels[0]


def in_guards(
    function: Callable[..., T],
    uris: Sequence[str],
    *,
    workers: int = 2,
    deadline_seconds: float = DEADLINE_SECONDS,
    **options: Any,
) -> Iterator[T | ClipError]:
    """`function(uri, **options)` for each, in order, in `workers` children that can be killed; a ClipError it raises
    stands for its value."""
    with ExitStack() as stack:
        guards: SimpleQueue[Guard] = SimpleQueue()
        for _ in range(workers):
            guard = Guard(deadline_seconds=deadline_seconds, memory_bytes=MEMORY_BYTES, preload=(__name__,))
            guards.put(stack.enter_context(guard))

        def outcome(uri: str) -> T | ClipError:
            guard = guards.get()
            try:
                return guard.run(function, uri, **options)
            except ClipError as error:
                return error
            finally:
                guards.put(guard)

        yield from stack.enter_context(ThreadPoolExecutor(workers)).map(outcome, uris)
