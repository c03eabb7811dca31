"""AV1 frames that wanted ones need (AV1 specification, 2019; 5.9.2, 7.20, 7.21).

A frame header (5.9.2) names the slots it reads (`ref_frame_idx`) and those it writes (`refresh_frame_flags`). Pixels,
motion vectors, probabilities, segment ids, loop filter deltas and film grain all travel in these slots (7.20, 7.21) and
nowhere else, so that whatever no wanted frame reaches through them can be left out. Units of a packet are dropped one
by one: hidden frames come in one packet with the next shown frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vqa.media.bitstream.bits import Bits, EndOfBitsError

_ALL = 0xFF  # every slot
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_SEQUENCE, _DELIMITER, _HEADER, _TILES, _METADATA, _FRAME, _REPEATED_HEADER, _PADDING = 1, 2, 3, 4, 5, 6, 7, 15


class NotPlainError(Exception):
    """A feature whose effect on the slots this module does not follow."""


@dataclass(frozen=True, slots=True)
class _Format:
    """Sequence header fields (5.5.1) that the parsing of frame headers depends on."""

    order_bits: int
    screen_content: int  # seq_force_screen_content_tools
    integer_motion: int


@dataclass(slots=True)
class _Frame:
    """A coded frame, or one shown from a slot; slots read and written are bits."""

    units: list[bytes]
    reads: int
    writes: int
    is_shown: bool
    is_key: bool


@dataclass
class Av1Pruner:
    """A `Pruner` (prune.py) for one range.

    `extradata`: an AV1CodecConfigurationRecord, or empty.
    """

    extradata: bytes
    _format: _Format | None = None
    _keys: int = 0  # slots that hold a key frame
    _is_plain: bool = True

    def __post_init__(self) -> None:
        if self.extradata[:1] == b"\x81":
            try:
                for kind, _, payload in _units(self.extradata[4:]):
                    if kind == _SEQUENCE:
                        self._format = _sequence(payload)
            except (EndOfBitsError, NotPlainError):
                self._is_plain = False

    def __call__(self, packets: Sequence[bytes], is_wanted: Sequence[bool], is_end: bool) -> list[bytes | None]:
        """Return what to feed for each packet; None for nothing."""
        try:
            parsed = [self._parse(packet) for packet in packets] if self._is_plain else []
        except (EndOfBitsError, NotPlainError):
            self._is_plain = False
        if not self._is_plain:
            return list(packets)
        alive = 0 if is_end else _ALL  # slots that a later frame needs
        kept: list[bytes | None] = []
        for packet, (others, frames), wanted in zip(
            reversed(packets), reversed(parsed), reversed(is_wanted), strict=True
        ):
            needed: list[_Frame] = []
            for frame in reversed(frames):
                if frame.writes & alive or (frame.is_shown and wanted):
                    alive = alive & ~frame.writes | frame.reads
                    needed.append(frame)
            if len(needed) == len(frames):
                kept.append(packet)
            elif needed:
                kept.append(b"".join([*others, *(unit for frame in reversed(needed) for unit in frame.units)]))
            else:
                kept.append(None)
        return kept[::-1]

    def _parse(self, packet: bytes) -> tuple[list[bytes], list[_Frame]]:
        """(units that belong to no frame, the frames) of one temporal unit."""
        others: list[bytes] = []
        frames: list[_Frame] = []
        for kind, unit, payload in _units(packet):
            if kind in (_HEADER, _FRAME):
                frames.append(self._frame(unit, payload))
            elif kind in (_TILES, _REPEATED_HEADER) and frames:
                frames[-1].units.append(unit)
            elif kind in (_SEQUENCE, _DELIMITER, _METADATA, _PADDING):
                if kind == _SEQUENCE:
                    if frames:
                        raise NotPlainError
                    self._format = _sequence(payload)
                others.append(unit)
            else:
                raise NotPlainError
        if sum(frame.is_shown for frame in frames) != 1:  # several: spatial layers
            raise NotPlainError
        return others, frames

    def _frame(self, unit: bytes, payload: bytes) -> _Frame:
        """`uncompressed_header` (5.9.2) as far as the slots."""
        if self._format is None:
            raise NotPlainError
        bits = Bits(payload[:64])
        if bits.read(1):  # show_existing_frame; a key frame shown so fills every slot (7.21)
            slot = 1 << bits.read(3)
            frame = _Frame([unit], slot, _ALL if self._keys & slot else 0, True, bool(self._keys & slot))
        else:
            frame = self._coded(unit, bits, self._format)
        self._keys = self._keys | frame.writes if frame.is_key else self._keys & ~frame.writes
        return frame

    def _coded(self, unit: bytes, bits: Bits, sequence: _Format) -> _Frame:
        kind, is_shown = bits.read(2), bool(bits.read(1))
        if not is_shown:
            bits.read(1)  # showable_frame
        fills = kind == _SWITCH or (kind == _KEY and is_shown)
        is_resilient = fills or bool(bits.read(1))
        is_intra = kind in (_KEY, _INTRA_ONLY)
        bits.read(1)  # disable_cdf_update
        screen_content = bits.read(1) if sequence.screen_content == 2 else sequence.screen_content
        if screen_content and sequence.integer_motion == 2:
            bits.read(1)
        if kind != _SWITCH:
            bits.read(1)  # frame_size_override_flag
        bits.read(sequence.order_bits)
        if not (is_intra or is_resilient):
            bits.read(3)  # primary_ref_frame
        writes = _ALL if fills else bits.read(8)
        reads = 0
        if is_resilient and sequence.order_bits and not (is_intra and writes == _ALL):
            reads = _ALL  # it names what every slot should hold: all are kept
        elif not is_intra:
            if sequence.order_bits and bits.read(1):
                reads = _ALL  # frame_refs_short_signaling: picked by the order of all slots
            else:
                for _ in range(7):
                    reads |= 1 << bits.read(3)
        return _Frame([unit], reads, writes, is_shown, kind == _KEY)


def _units(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(type, whole unit, payload) of each OBU (5.3); the last may lack a size."""
    found, at = [], 0
    while at < len(data):
        start, head = at, data[at]
        at += 1
        if head & 0x80:
            raise NotPlainError
        if head & 4:
            if at >= len(data) or data[at] >> 3 & 3:  # spatial layers
                raise NotPlainError
            at += 1
        size = len(data) - at
        if head & 2:
            size = 0
            for shift in range(0, 56, 7):  # leb128 (4.10.5)
                if at >= len(data):
                    raise EndOfBitsError
                size |= (data[at] & 127) << shift
                at += 1
                if not data[at - 1] & 128:
                    break
        if at + size > len(data):
            raise EndOfBitsError
        found.append((head >> 3 & 15, data[start : at + size], data[at : at + size]))
        at += size
    return found


def _sequence(payload: bytes) -> _Format:
    """`sequence_header_obu` (5.5.1) as far as the bits of order hints."""
    bits = Bits(payload)
    bits.read(4)  # profile, still_picture
    if bits.read(1):
        raise NotPlainError  # reduced_still_picture_header
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):
            bits.exp_golomb()
        if bits.read(1):
            raise NotPlainError  # decoder_model_info_present_flag
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):  # operating points
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if has_delay and bits.read(1):
            bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    if bits.read(1):
        raise NotPlainError  # frame_id_numbers_present_flag
    bits.read(3 + 4)
    has_order = bits.read(1)
    if has_order:
        bits.read(2)
    screen_content = 2 if bits.read(1) else bits.read(1)
    integer_motion = 2
    if screen_content:
        integer_motion = 2 if bits.read(1) else bits.read(1)
    return _Format(bits.read(3) + 1 if has_order else 0, screen_content, integer_motion)
