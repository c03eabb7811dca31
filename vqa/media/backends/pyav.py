"""The default back end: PyAV, fed with no more packets than the wanted frames need.

Of each group of pictures only the part up to the last wanted frame is read; what the decoder can spare is left out
(discard.py); gaps are jumped over where the container's index leads to the very packet that the table names (mp4, mov,
Matroska, WebM). Each packet behind a jump, and each one of a table made from an index, is compared with the table; the
first one that differs sends the reader back to the plain way from the first packet on.
"""

from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from vqa.media.bitstream.prune import sieve
from vqa.media.containers.ffmpeg import open_container, packets_of, video_stream
from vqa.media.containers.images import is_jpeg_cut_off
from vqa.media.plan import Run, plan
from vqa.media.probe import PacketTable
from vqa.media.storage.source import open_source
from vqa.types import MediaInfo

_JUMP_BYTES = 1 << 18  # a shorter gap is read through: FFmpeg's buffer holds it anyway
_STRETCH_BYTES = 1 << 24  # packets held at once, to look ahead in
_NEVER = 1 << 63


class UncleanError(Exception):
    """Damage was met while several threads decoded."""


class StrayedError(Exception):
    """The file's packets are not those of the table."""


def read_pyav(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], thread_count: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (backends.py). Raises UncleanError, and StrayedError where an indexed table does not fit the file."""
    missing = {int(entry) for entry in wanted if not table.is_damaged[entry]}
    thinned: set[int] = set()  # decoded without the packets that seemed needless
    hopeless: set[int] = set()  # decoded in full from the first packet on, or damaged
    can_jump = len(table.jump_ticks) > 0
    # Frames that stay away without any error are tried again without leaving anything out, then (some streams name
    # places to start from which a clean picture comes only later: intra refresh) from earlier and earlier.
    for back, is_sifted in ((0, True), (0, False), (1, False), (4, False), (len(table.ticks), False)):
        for _ in range(2):
            runs = plan(table, sorted(missing & thinned if back == 0 and not is_sifted else missing), back=back)
            try:
                for entry, frame in _feed(
                    info, table, runs, thread_count, thinned, hopeless, is_sifted=is_sifted, can_jump=can_jump
                ):
                    missing.discard(entry)
                    yield entry, frame
            except StrayedError:
                if table.is_indexed or not can_jump:
                    raise
                can_jump = False
                continue
            break
        missing -= hopeless
        if not missing:
            return


def _feed(
    info: MediaInfo,
    table: PacketTable,
    runs: list[Run],
    thread_count: int,
    thinned: set[int],
    hopeless: set[int],
    *,
    is_sifted: bool,
    can_jump: bool,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Feed the packets of each run; yields (entry, frame) for wanted, clean frames.

    Adds wanted entries to `thinned` where packets were left out of their run, else, where damage was met or the run
    began with the file, to `hopeless`.
    """
    if not runs:
        return
    with open_source(info.uri) as file, open_container(info.uri, file) as container:
        stream = video_stream(info.uri, file, container)
        decoder = stream.codec_context
        decoder.thread_count = thread_count
        decoder.thread_type = "AUTO" if thread_count > 1 else "NONE"
        shown = 0
        fed_run: Run | None = None
        for run, packets, is_end in _stretches(container, stream, table, runs, can_jump=can_jump):
            if run is not fed_run:
                fed_run, is_clean, is_whole, trust = run, True, True, _Trust(is_counted=table.is_counted)
                entry_of: dict[int | None, int] = {int(table.ticks[table.order[entry]]): entry for entry in run.wanted}
                sift = None
                if is_sifted and not table.is_counted:
                    sift = sieve(info.codec, decoder.extradata or b"")
            fed: list[av.Packet[av.VideoStream] | None] = list(packets)
            if sift is not None:
                fed = _sifted(packets, sift([bytes(p) for p in packets], [p.pts in entry_of for p in packets], is_end))
                is_whole = is_whole and fed == packets
            for packet in [*fed, None] if is_end else fed:
                is_cut_off = info.codec == "mjpeg" and packet is not None and is_jpeg_cut_off(bytes(packet))
                frames, is_sound = ([], False) if is_cut_off else _decode(decoder, packet)
                is_clean = is_clean and is_sound
                trust.feed(packet, is_sound=is_sound)
                for frame in frames:
                    entry = shown if table.is_counted else entry_of.get(frame.pts, -1)
                    shown += 1
                    if frame.is_corrupt:
                        is_clean = False
                        trust.lose(frame.pts)
                    elif entry in run.wanted and not table.is_damaged[entry] and trust.covers(frame.pts):
                        yield entry, frame
                if not is_clean and thread_count > 1:
                    raise UncleanError
            if is_end:
                if not is_whole:
                    thinned.update(run.wanted)
                elif run.start == 0 or not is_clean:
                    hopeless.update(run.wanted)
                decoder.flush_buffers()


class _Trust:
    """Which frames are made of sound packets: those fed before the first that failed, and those shown from the next key
    frame on. Decoders show what they make from a frame that failed as if nothing were missing."""

    def __init__(self, *, is_counted: bool) -> None:
        self._is_counted = is_counted  # a frame that stays away moves the numbers of all behind it
        self._fed: dict[int | None, int] = {}
        self._lost, self._sound_again = _NEVER, _NEVER  # place of the packet that failed; time of the key frame

    def feed(self, packet: "av.Packet[av.VideoStream] | None", *, is_sound: bool) -> None:
        """A packet was given to the decoder; None: the last."""
        if packet is not None:
            self._fed[packet.pts] = len(self._fed)
            if packet.is_keyframe and self._sound_again == _NEVER and packet.pts is not None:
                self._sound_again = packet.pts
        if not is_sound:
            self.lose(packet.pts if packet is not None else None)

    def lose(self, pts: int | None) -> None:
        """The packet of this time failed, or its frame is damaged."""
        self._lost, self._sound_again = min(self._lost, self._fed.get(pts, 0)), _NEVER

    def covers(self, pts: int | None) -> bool:
        """Whether the frame of this time can be shown."""
        if self._lost == _NEVER:
            return True
        is_behind_key = pts is not None and pts >= self._sound_again
        return not self._is_counted and (is_behind_key or self._fed.get(pts, _NEVER) < self._lost)


def _sifted(
    packets: "list[av.Packet[av.VideoStream]]", kept: list[bytes | None]
) -> "list[av.Packet[av.VideoStream] | None]":
    """The packets to feed: as they are, or shortened."""
    fed: list[av.Packet[av.VideoStream] | None] = []
    for packet, payload in zip(packets, kept, strict=True):
        if payload is None:
            continue
        if len(payload) == packet.size:
            fed.append(packet)
        else:
            part: av.Packet[av.VideoStream] = av.Packet(payload)  # type: ignore[assignment]  # it has no stream yet
            part.pts, part.dts, part.time_base = packet.pts, packet.dts, packet.time_base
            fed.append(part)
    return fed


def _stretches(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: PacketTable,
    runs: list[Run],
    *,
    can_jump: bool,
) -> "Iterator[tuple[Run, list[av.Packet[av.VideoStream]], bool]]":
    """(run, packets, do they end it): the packets of each run in file order, at most about 16 MB at a time."""
    count = len(table.ticks)
    # In file order, 0: not in the table; behind them packets that are lost. As small as can be: hours have many.
    sizes = np.zeros(max(count, int(table.order.max(initial=-1)) + 1), np.int32)
    sizes[table.order] = table.sizes
    source, place, is_checked = packets_of(container, stream), 0, table.is_indexed
    for run in runs:
        if can_jump and sizes[place : run.start].sum() > _JUMP_BYTES:
            container.seek(int(table.jump_ticks[run.start]), stream=stream)
            source, place, is_checked = packets_of(container, stream), -1, True
        taken: list[av.Packet[av.VideoStream]] = []
        held, is_end = 0, False
        for packet in source:
            if place < 0:
                found = np.flatnonzero(table.ticks == packet.pts)
                place = int(found[0]) if len(found) else count
                if place > run.start:
                    raise StrayedError
            if is_checked and not (
                place < count and table.ticks[place] == packet.pts and sizes[place] in (0, packet.size)
            ):
                raise StrayedError
            here, place = place, place + 1
            if here < run.start:
                continue
            taken.append(packet)
            held += packet.size
            is_end = here == run.stop
            if is_end:
                break
            if held > _STRETCH_BYTES:
                yield run, taken, False
                taken, held = [], 0
        if is_checked and not is_end:
            raise StrayedError
        yield run, taken, True


def _decode(
    decoder: av.VideoCodecContext, packet: "av.Packet[av.VideoStream] | None"
) -> tuple[list[av.VideoFrame], bool]:
    """Frames that come out for this packet (None: all that are held back), and whether none failed."""
    try:
        return decoder.decode(packet), True
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return [], False
