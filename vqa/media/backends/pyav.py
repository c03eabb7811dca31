"""PyAV back end, the default: decodes only the packets that wanted frames need.

Per group of pictures, packets are read up to the last wanted frame only, and those that no wanted frame refers to are
left out (bitstream/prune.py). Gaps are jumped over where the container's index leads to the very packet that the table
names (mp4, mov, Matroska, WebM). Each packet after a jump, and each one of a table made from an index, is compared with
the table; the first one that differs makes the reader start anew without jumps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from vqa.media.backends.base import StrayedError, UncleanError
from vqa.media.backends.joints import CODECS, JointFinder
from vqa.media.bitstream.prune import pruner
from vqa.media.containers.ffmpeg import open_container, packets_of, video_stream
from vqa.media.containers.images import is_jpeg_cut_off
from vqa.media.packets import PacketTable
from vqa.media.storage.open import open_source
from vqa.types import MediaInfo

_JUMP_BYTES = 1 << 18  # a shorter gap is read through: FFmpeg's buffer holds it anyway
_CHUNK_BYTES = 1 << 24  # packets held at once: what pruning can look ahead in
_NEVER = 1 << 63
_MAX_REORDER = 32  # frames: no codec holds back more


@dataclass(kw_only=True)
class DecodeRange:
    """Packets in file order, fed from a clean start; `stop` is included."""

    start: int
    stop: int
    wanted: list[int]  # entries of the packet table


def read_pyav(
    info: MediaInfo, table: PacketTable, wanted: NDArray[np.int64], *, thread_count: int, prune: bool = True
) -> Iterator[tuple[int, av.VideoFrame]]:
    """A `Reader` (base.py) by PyAV; StrayedError only for a table made from an index.

    `prune`: leave out packets that no wanted frame needs; the frames are the same either way.
    """
    missing = {int(entry) for entry in wanted if not table.is_damaged[entry]}
    thinned: set[int] = set()  # decoded without the packets that seemed needless
    hopeless: set[int] = set()  # decoded in full from the first packet on, or damaged
    can_jump = len(table.jump_ticks) > 0
    # Frames that stay away without any error are tried again: first with all packets, then from earlier and earlier
    # starts, since in streams with intra refresh a clean picture comes only some time after the named place to start.
    attempts = ((0, prune), (0, False), (1, False), (4, False), (len(table.ticks), False))
    for number, (back, is_pruned) in enumerate(attempts):
        for _ in range(2):
            ranges = decode_ranges(table, sorted(missing & thinned if number == 1 else missing), back=back)
            try:
                for entry, frame in _feed(
                    info, table, ranges, thread_count, thinned, hopeless, is_pruned=is_pruned, can_jump=can_jump
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
    ranges: list[DecodeRange],
    thread_count: int,
    thinned: set[int],
    hopeless: set[int],
    *,
    is_pruned: bool,
    can_jump: bool,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode each range; yields (entry, frame) for wanted, clean frames.

    Adds the wanted entries of a range to `thinned` where packets of it were left out, else, where damage was met or the
    range began with the file, to `hopeless`.
    """
    if not ranges:
        return
    with open_source(info.uri) as file, open_container(info.uri, file) as container:
        stream = video_stream(info.uri, file, container)
        decoder = _decoder(info, stream)
        decoder.thread_count = thread_count
        decoder.thread_type = "AUTO" if thread_count > 1 else "NONE"
        shown, is_stuck = 0, False
        joints = None  # keyframes on their way through the decoder are kept until their frames come
        if info.codec in CODECS and not table.is_counted and not info.is_image:
            joints = JointFinder(info.uri, decoder)
        keyframes: dict[int | None, bytes] = {}
        previous: DecodeRange | None = None
        for current, packets, is_end in _chunks(container, stream, table, ranges, can_jump=can_jump):
            if current is not previous:
                previous, is_clean, is_whole, trust = current, True, True, _Trust(is_counted=table.is_counted)
                entry_of: dict[int | None, int] = {int(table.ticks[table.order[e]]): e for e in current.wanted}
                prune = None
                # Alpha is a stream of its own beside the packets, which may refer to others than the colours do.
                if is_pruned and not table.is_counted and not info.has_alpha:
                    prune = pruner(info.codec, decoder.extradata or b"")
            fed: list[av.Packet[av.VideoStream] | None] = list(packets)
            if prune is not None:
                payloads, is_wanted = [bytes(p) for p in packets], [p.pts in entry_of for p in packets]
                fed = _to_feed(packets, prune(payloads, is_wanted, is_end))
                is_whole = is_whole and fed == packets
            for packet in [*fed, None] if is_end else fed:
                is_cut_off = info.codec == "mjpeg" and packet is not None and is_jpeg_cut_off(bytes(packet))
                if is_stuck and packet is not None and packet.is_keyframe:
                    decoder.flush_buffers()
                frames, is_sound, is_stuck = ([], False, False) if is_cut_off else _decode(decoder, packet)
                is_clean = is_clean and is_sound
                trust.feed(packet, is_sound=is_sound)
                if joints and packet is not None:
                    joints = None if joints.is_described(packet) else joints
                    if packet.is_keyframe and packet.pts != table.ticks[0]:
                        keyframes[packet.pts] = bytes(packet)
                for frame in frames:
                    entry = shown if table.is_counted else entry_of.get(frame.pts, -1)
                    shown += 1
                    keyframe = keyframes.pop(frame.pts, b"")
                    if frame.is_corrupt or (joints and keyframe and joints.is_foreign(keyframe, frame)):
                        is_clean = False
                        trust.lose(frame.pts)
                    elif entry in current.wanted and not table.is_damaged[entry] and trust.covers(frame.pts):
                        yield entry, frame
                if not is_clean and thread_count > 1:
                    raise UncleanError
            if is_end:
                if not is_whole:
                    thinned.update(current.wanted)
                elif current.start == 0 or not is_clean:
                    hopeless.update(current.wanted)
                decoder.flush_buffers()


def decode_ranges(table: PacketTable, wanted: Sequence[int] | NDArray[np.int64], *, back: int = 0) -> list[DecodeRange]:
    """Packet ranges that give the wanted entries, joined where they touch or overlap.

    Decoding can start at a keyframe for all that is shown after it. Frames stored after a keyframe but shown before it
    (the leading pictures of an open group) need the keyframe before. Packets that are not in the file are left out.

    Args:
        table: The file's packets.
        wanted: Entries of the table, in any order.
        back: How many keyframes earlier to start than necessary.
    """
    keys = np.flatnonzero(table.starts)
    ranges: list[DecodeRange] = []
    for entry in sorted((int(w) for w in wanted), key=lambda w: int(table.order[w])):
        place = int(table.order[entry])
        if place >= len(table.ticks):
            continue
        usable = keys[(keys <= place) & (table.ticks[keys] <= table.ticks[place])]
        start = int(usable[-1 - back]) if len(usable) > back and not table.is_counted else 0
        end = int(table.ends[entry]) if len(table.ends) else place
        stop = min(end + _MAX_REORDER, len(table.ticks) - 1) if table.is_counted else end
        if ranges and start <= ranges[-1].stop + 1:
            ranges[-1].stop = stop
            ranges[-1].wanted.append(entry)
        else:
            ranges.append(DecodeRange(start=start, stop=stop, wanted=[entry]))
    return ranges


class _Trust:
    """Record of which frames are made of sound packets.

    Those fed before the first that failed, and those shown from the next keyframe on. Decoders go on with a damaged
    reference and flag nothing.
    """

    def __init__(self, *, is_counted: bool) -> None:
        self._is_counted = is_counted  # a frame that stays away moves the numbers of all later ones
        self._fed: dict[int | None, int] = {}
        self._lost, self._sound_again = _NEVER, _NEVER  # place of the packet that failed; time of the key frame

    def feed(self, packet: "av.Packet[av.VideoStream] | None", *, is_sound: bool) -> None:
        """Note a packet that was given to the decoder; None: the end of the range."""
        if packet is not None:
            self._fed[packet.pts] = len(self._fed)
            if packet.is_keyframe and self._sound_again == _NEVER and packet.pts is not None:
                self._sound_again = packet.pts
        if not is_sound:
            self.lose(packet.pts if packet is not None else None)

    def lose(self, pts: int | None) -> None:
        """Note that the packet of this time failed, or that its frame is damaged."""
        self._lost, self._sound_again = min(self._lost, self._fed.get(pts, 0)), _NEVER

    def covers(self, pts: int | None) -> bool:
        """Whether the frame of this time is made of sound packets."""
        if self._lost == _NEVER:
            return True
        is_behind_key = pts is not None and pts >= self._sound_again
        return not self._is_counted and (is_behind_key or self._fed.get(pts, _NEVER) < self._lost)


def _to_feed(
    packets: "list[av.Packet[av.VideoStream]]", kept: list[bytes | None]
) -> "list[av.Packet[av.VideoStream] | None]":
    """Packets to feed, as they are or shortened."""
    fed: list[av.Packet[av.VideoStream] | None] = []
    for packet, payload in zip(packets, kept, strict=True):
        if payload is None:
            continue
        if len(payload) == packet.size:
            fed.append(packet)
        else:
            part = cast("av.Packet[av.VideoStream]", av.Packet(payload))  # it has no stream yet
            part.pts, part.dts, part.time_base = packet.pts, packet.dts, packet.time_base
            fed.append(part)
    return fed


def _chunks(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: PacketTable,
    ranges: list[DecodeRange],
    *,
    can_jump: bool,
) -> "Iterator[tuple[DecodeRange, list[av.Packet[av.VideoStream]], bool]]":
    """(range, packets, do they end it) in file order, at most about 16 MB at a time."""
    count = len(table.ticks)
    # In file order, 0 for what is not in the table, then the lost packets; int32 since hours have many.
    sizes = np.zeros(max(count, int(table.order.max(initial=-1)) + 1), np.int32)
    sizes[table.order] = table.sizes
    source, place, is_checked = packets_of(container, stream), 0, table.is_indexed
    skipped_sets = None  # where an mp4 goes on with its next sample entry, one packet brings what it says
    for current in ranges:
        if can_jump and sizes[place : current.start].sum() > _JUMP_BYTES:
            container.seek(int(table.jump_ticks[current.start]), stream=stream)
            source, place, is_checked = packets_of(container, stream), -1, True
        taken: list[av.Packet[av.VideoStream]] = []
        held, is_end = 0, False
        for packet in source:
            if place < 0:
                found = np.flatnonzero(table.ticks == packet.pts)
                place = int(found[0]) if len(found) else count
                if place > current.start:
                    raise StrayedError
            if is_checked and not (
                place < count and table.ticks[place] == packet.pts and sizes[place] in (0, packet.size)
            ):
                raise StrayedError
            here, place = place, place + 1
            if packet.has_sidedata("new_extradata"):
                skipped_sets = packet.get_sidedata("new_extradata")
            if here < current.start:
                continue
            if skipped_sets is not None:
                packet.set_sidedata(skipped_sets)
                skipped_sets = None
            taken.append(packet)
            held += packet.size
            is_end = here == current.stop
            if is_end:
                break
            if held > _CHUNK_BYTES:
                yield current, taken, False
                taken, held = [], 0
        if is_checked and not is_end:
            raise StrayedError
        yield current, taken, True


def _decoder(info: MediaInfo, stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's decoder; libvpx's for VP8 and VP9 with alpha, which FFmpeg's omit."""
    if not (info.has_alpha and info.codec in ("vp8", "vp9")):
        return stream.codec_context
    return av.VideoCodecContext.create("libvpx" if info.codec == "vp8" else "libvpx-vp9", "r")


def _decode(
    decoder: av.VideoCodecContext, packet: "av.Packet[av.VideoStream] | None"
) -> tuple[list[av.VideoFrame], bool, bool]:
    """Frames for a packet, whether it was sound, and whether the decoder is stuck.

    For None: all frames that are held back. Stuck: it takes no packet any more; VP9 after a start between keyframes
    answers EAGAIN until it is flushed.
    """
    try:
        return decoder.decode(packet), True, False
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return [], False, isinstance(error, BlockingIOError)
