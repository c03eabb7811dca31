"""Which H.264 pictures no other picture refers to (ITU-T H.264, 7.4.1).

`nal_ref_idc` 0 in all slices of a picture, of both fields in a field pair, means that it is not used for inter
prediction. What a packet may hold beside slices: SEI (6), access unit delimiter (9), filler (12).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vqa.media.bitstream.bits import Bits, EndOfBitsError, nal_units, sized_unit


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a packet holds: a frame (no parity), one field, or both fields of a frame."""

    parity: int | None
    number: int  # frame_num
    is_reference: bool
    is_idr: bool


@dataclass
class H264Stream:
    """Parameter sets of a stream.

    `extradata`: an AVCDecoderConfigurationRecord, NAL units after start codes, or empty.
    """

    extradata: bytes
    formats: set[tuple[bool, int, bool]] = field(default_factory=set)  # as `_format` returns it, of each parameter set

    def __post_init__(self) -> None:
        is_avcc = self.extradata[:1] == b"\1" and len(self.extradata) > 6
        self.length_bytes = (self.extradata[4] & 3) + 1 if is_avcc else 0
        try:
            units = _avcc_sets(self.extradata) if is_avcc else nal_units(self.extradata, 0)
            self._note([unit for unit in units if unit[0] & 31 == 7])
        except EndOfBitsError:
            pass  # without parameter sets, here or in the first packet, nothing is left out

    def _note(self, parameter_sets: list[bytes]) -> None:
        self.formats.update(_format(unit) for unit in parameter_sets)

    def has_b_slice(self, packet: bytes) -> bool:
        """Whether a picture may be shown before one stored earlier (slice_type, 7.4.3)."""
        try:
            for unit in nal_units(packet, self.length_bytes):
                if unit[0] & 31 in (1, 5):
                    bits = Bits(unit[1:40], is_escaped=True)
                    bits.exp_golomb()
                    if bits.exp_golomb() % 5 == 1:
                        return True
        except EndOfBitsError:
            pass
        return False

    def picture(self, packet: bytes) -> _Picture | None:
        """What the first slice says; None without a readable slice and a single format."""
        try:
            units = list(nal_units(packet, self.length_bytes))
            self._note([unit for unit in units if unit[0] & 31 == 7])
            slices = [unit for unit in units if unit[0] & 31 in (1, 5)]
            if not slices or len(self.formats) != 1:
                return None
            form = next(iter(self.formats))
            parities = {_parity(unit, *form) for unit in slices}
            unit = slices[0]
            return _Picture(
                parity=parities.pop() if len(parities) == 1 else None,
                number=_frame_number(unit, *form),
                is_reference=bool(unit[0] & 0x60),
                is_idr=unit[0] & 31 == 5,
            )
        except EndOfBitsError:
            return None

    def is_disposable(self, packet: bytes) -> bool:
        """Whether no other picture refers to the one in this packet."""
        try:
            units = list(nal_units(packet, self.length_bytes))
            self._note([unit for unit in units if unit[0] & 31 == 7])
            slices = [unit for unit in units if unit[0] & 31 == 1]
            others = {unit[0] & 31 for unit in units} - {1, 6, 9, 12}
            if others or not slices or len(self.formats) != 1 or any(unit[0] & 0x60 for unit in slices):
                return False
            shown = {_parity(unit, *next(iter(self.formats))) for unit in slices}
        except EndOfBitsError:
            return False
        return shown in ({None}, {0, 1})


class FieldPairs:
    """Finder of packets with the second field of the frame begun in the one before.

    A complementary pair (3.30, 3.31): neighbours of opposite parity and the same frame_num, of which both are
    references or neither is, and only the first may be an IDR picture. Packets that cannot be read are frames.
    """

    def __init__(self, extradata: bytes) -> None:
        self._stream = H264Stream(extradata)
        self._first: _Picture | None = None

    def may_occur(self, packet: bytes) -> bool:
        """Whether the stream may code fields, by its and the first packet's headers."""
        self._stream.picture(packet)
        return any(has_fields for _, _, has_fields in self._stream.formats)

    def is_second(self, packet: bytes) -> bool:
        """Whether the next packet in file order is a second field."""
        first, current = self._first, self._stream.picture(packet)
        is_second = (
            current is not None
            and first is not None
            and {first.parity, current.parity} == {0, 1}
            and first.number == current.number
            and first.is_reference == current.is_reference
            and not current.is_idr
        )
        self._first = None if is_second else current
        return is_second


def _avcc_sets(extradata: bytes) -> Iterator[bytes]:
    """SPS units of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1)."""
    at = 6
    for _ in range(extradata[5] & 31):
        unit, at = sized_unit(extradata, at)
        yield unit


def _format(parameter_set: bytes) -> tuple[bool, int, bool]:
    """`seq_parameter_set_data` (7.3.2.1.1) up to frame_mbs_only_flag.

    Returns whether colour planes are coded apart, the bits of frame_num, and whether fields may be coded.
    """
    bits = Bits(parameter_set[1:], is_escaped=True)
    profile = bits.read(8)
    bits.read(16)
    bits.exp_golomb()
    is_apart = False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.exp_golomb()
        is_apart = chroma == 3 and bool(bits.read(1))
        bits.exp_golomb(), bits.exp_golomb(), bits.read(1)
        if bits.read(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_number_bits = bits.exp_golomb() + 4
    order = bits.exp_golomb()
    if order == 0:
        bits.exp_golomb()
    elif order == 1:
        bits.read(1), bits.exp_golomb(), bits.exp_golomb()
        for _ in range(bits.exp_golomb()):
            bits.exp_golomb()
    bits.exp_golomb(), bits.read(1), bits.exp_golomb(), bits.exp_golomb()
    return is_apart, frame_number_bits, not bits.read(1)


def _skip_scaling_list(bits: Bits, count: int) -> None:
    """`scaling_list` (7.3.2.1.1.1)."""
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.signed_exp_golomb()) % 256
        last = following or last


def _frame_number(unit: bytes, is_apart: bool, frame_number_bits: int, _: bool) -> int:
    """`slice_header` (7.3.3): frame_num."""
    bits = Bits(unit[1:40], is_escaped=True)
    bits.exp_golomb(), bits.exp_golomb(), bits.exp_golomb(), bits.read(2 * is_apart)
    return bits.read(frame_number_bits)


def _parity(unit: bytes, is_apart: bool, frame_number_bits: int, has_fields: bool) -> int | None:
    """Parity by `slice_header` (7.3.3): 0 top, 1 bottom field, None for a frame."""
    if not has_fields:
        return None
    bits = Bits(unit[1:40], is_escaped=True)
    bits.exp_golomb(), bits.exp_golomb(), bits.exp_golomb()
    bits.read(2 * is_apart + frame_number_bits)
    return bits.read(1) if bits.read(1) else None
