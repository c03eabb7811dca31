"""Which packets a decoder need not see to give the wanted frames bit for bit: read from the bitstream, never guessed.

| codec | a picture is left out when |
| --- | --- |
| H.264 | `nal_ref_idc` is 0 in all its slices, of both fields in a field pair (7.4.1: not used for inter prediction) |
| HEVC | its type is a sub-layer non-reference one, at the highest temporal layer that the SPS declares (7.4.2.2) |
| VP9 | it refreshes no slot, and the frame stored next is a key frame or error resilient, which starts from a clean |
| | state: probabilities, vectors and segments are forgotten (`setup_past_independence`) |
| AV1 | no wanted frame needs it, directly or through others (see av1.py) |

AV1 is pruned inside packets as well: hidden frames are separate units. Whatever is not plain (parameter sets or ends of
sequence in the packet, lengths that do not add up, several layers, frame ids, a decoder model) is fed to the decoder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vqa.media.bitstream.av1 import Av1Sieve
from vqa.media.bitstream.bits import Bits, EndOfBitsError

Payloads = Sequence[bytes]
Sieve = Callable[[Payloads, Sequence[bool], bool], list[bytes | None]]
"""(packets in file order, is each wanted, do they end the run) -> what to feed for each, None for nothing.

One sieve serves one run, from a place where decoding can start; it is called with stretch after stretch of it.
"""


def sieve(codec: str, extradata: bytes) -> Sieve | None:
    """The rule for a stream; None where there is none and every packet has to be decoded."""
    if codec == "h264":
        return _each(_H264(extradata).is_disposable)
    if codec == "hevc":
        return _each(_Hevc(extradata).is_disposable)
    if codec == "vp9":
        return _vp9
    if codec == "av1":
        return Av1Sieve(extradata)
    return None


def _each(is_disposable: Callable[[bytes], bool]) -> Sieve:
    """Each packet judged by itself."""

    def feed(packets: Payloads, is_wanted: Sequence[bool], is_end: bool) -> list[bytes | None]:
        judged = zip(packets, is_wanted, strict=True)
        return [packet if wanted or not is_disposable(packet) else None for packet, wanted in judged]

    return feed


def nal_units(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units of a packet: behind lengths of `length_bytes`, or with 0 behind start codes (Annex B).

    Raises EndOfBitsError where the lengths do not add up.
    """
    if not length_bytes:
        starts = []
        at = packet.find(b"\0\0\1")
        while at >= 0:
            starts.append(at + 3)
            at = packet.find(b"\0\0\1", at + 3)
        if not starts:
            raise EndOfBitsError
        for start, end in zip(starts, [*(s - 3 for s in starts[1:]), len(packet)], strict=True):
            if end > start:
                yield packet[start:end]
        return
    at = 0
    while at < len(packet):
        start = at + length_bytes
        at = start + int.from_bytes(packet[at:start], "big")
        if start >= len(packet) or at > len(packet) or at == start:
            raise EndOfBitsError
        yield packet[start:at]


@dataclass
class _H264:
    """ITU-T H.264. Allowed beside slices: SEI (6), access unit delimiter (9), filler (12)."""

    extradata: bytes
    formats: set[tuple[bool, int, bool]] = field(default_factory=set)  # planes apart, bits of frame_num, fields allowed

    def __post_init__(self) -> None:
        is_avcc = self.extradata[:1] == b"\1" and len(self.extradata) > 6
        self.length_bytes = (self.extradata[4] & 3) + 1 if is_avcc else 0
        try:
            units = _avcc_sets(self.extradata) if is_avcc else nal_units(self.extradata, 0)
            self._see([unit for unit in units if unit[0] & 31 == 7])
        except EndOfBitsError:
            pass  # parameter sets come with the first packet, or nothing is left out

    def _see(self, parameter_sets: list[bytes]) -> None:
        self.formats.update(_h264_format(unit) for unit in parameter_sets)

    def is_disposable(self, packet: bytes) -> bool:
        """Whether no other picture needs this one."""
        try:
            units = list(nal_units(packet, self.length_bytes))
            self._see([unit for unit in units if unit[0] & 31 == 7])
            slices = [unit for unit in units if unit[0] & 31 == 1]
            others = {unit[0] & 31 for unit in units} - {1, 6, 9, 12}
            if others or not slices or len(self.formats) != 1 or any(unit[0] & 0x60 for unit in slices):
                return False
            shown = {_h264_field(unit, *next(iter(self.formats))) for unit in slices}
        except EndOfBitsError:
            return False
        return shown in ({None}, {0, 1})


def _avcc_sets(extradata: bytes) -> Iterator[bytes]:
    """The sequence parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1)."""
    at = 6
    for _ in range(extradata[5] & 31):
        unit, at = _sized(extradata, at)
        yield unit


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    """What stands behind two bytes of length at `at`, and where it ends."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data) or end == at + 2:
        raise EndOfBitsError
    return data[at + 2 : end], end


def _h264_format(parameter_set: bytes) -> tuple[bool, int, bool]:
    """7.3.2.1.1 up to frame_mbs_only_flag: colour planes coded apart, bits of frame_num, fields allowed."""
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
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.signed_exp_golomb()) % 256
        last = following or last


def _h264_field(unit: bytes, is_apart: bool, frame_number_bits: int, has_fields: bool) -> int | None:
    """7.3.3: None for a slice of a frame, 0 of a top field, 1 of a bottom field."""
    if not has_fields:
        return None
    bits = Bits(unit[1:40], is_escaped=True)
    bits.exp_golomb(), bits.exp_golomb(), bits.exp_golomb()
    bits.read(2 * is_apart + frame_number_bits)
    return bits.read(1) if bits.read(1) else None


@dataclass
class _Hevc:
    """ITU-T H.265. Beside slices: delimiter (35), filler (38), SEI (39, 40), Dolby Vision metadata (62)."""

    extradata: bytes
    layers: set[int] = field(default_factory=set)  # highest temporal layer, as each SPS declares it

    def __post_init__(self) -> None:
        is_hvcc = self.extradata[:1] == b"\1" and len(self.extradata) > 22
        self.length_bytes = (self.extradata[21] & 3) + 1 if is_hvcc else 0
        try:
            for unit in _hvcc_sets(self.extradata) if is_hvcc else nal_units(self.extradata, 0):
                self._see(unit)
        except EndOfBitsError:
            pass  # as in H.264

    def _see(self, unit: bytes) -> None:
        if unit[0] >> 1 & 63 == 33 and len(unit) > 2:
            self.layers.add(unit[2] >> 1 & 7)  # sps_max_sub_layers_minus1

    def is_disposable(self, packet: bytes) -> bool:
        """Whether no other picture needs this one."""
        try:
            units = list(nal_units(packet, self.length_bytes))
        except EndOfBitsError:
            return False
        for unit in units:
            self._see(unit)
        if any(len(unit) < 3 or unit[0] & 1 or unit[1] >> 3 for unit in units):  # a second layer (nuh_layer_id)
            return False
        slices = [unit for unit in units if unit[0] >> 1 < 32]
        others = {unit[0] >> 1 for unit in units if unit[0] >> 1 >= 32} - {35, 38, 39, 40, 62}
        return (
            bool(slices)
            and not others
            and all(unit[0] >> 1 in (0, 2, 4, 6, 8) and {(unit[1] & 7) - 1} == self.layers for unit in slices)
        )


def _hvcc_sets(extradata: bytes) -> Iterator[bytes]:
    """The parameter sets of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1)."""
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = _sized(extradata, at)
            yield unit


def _vp9(packets: Payloads, is_wanted: Sequence[bool], is_end: bool) -> list[bytes | None]:
    """The VP9 bitstream specification, 6.2 and annex B (superframes)."""
    headers = [_vp9_headers(packet) for packet in packets]
    forgets = [bool(frames) and frames[0][1] for frames in headers[1:]] + [is_end]
    return [
        packet if wanted or not following or not frames or any(refreshes for refreshes, _ in frames) else None
        for packet, wanted, frames, following in zip(packets, is_wanted, headers, forgets, strict=True)
    ]


def _vp9_headers(packet: bytes) -> list[tuple[bool, bool]]:
    """For each frame in a packet: may it refresh a slot, and does it start from a clean state. Empty: not plain."""
    sizes = [len(packet)]
    marker = packet[-1] if packet else 0
    if marker & 0xE0 == 0xC0:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = packet[-2 - count * width :]
        if len(index) == 2 + count * width and index[0] == marker:
            sizes = [int.from_bytes(index[1 + k * width : 1 + (k + 1) * width], "little") for k in range(count)]
    frames, at = [], 0
    try:
        for size in sizes:
            bits = Bits(packet[at : at + min(size, 16)])
            at += size
            if bits.read(2) != 2:
                return []
            profile = bits.read(1) + 2 * bits.read(1)
            if profile == 3:
                bits.read(1)
            if bits.read(1):  # show_existing_frame
                return []
            is_inter, is_shown, is_resilient = bits.read(1), bits.read(1), bits.read(1)
            refreshes = True
            if is_inter:
                is_intra_only = not is_shown and bits.read(1)
                if not is_resilient:
                    bits.read(2)
                refreshes = bool(is_intra_only) or bits.read(8) != 0
            frames.append((refreshes, not is_inter or bool(is_resilient)))
    except EndOfBitsError:
        return []
    return frames
