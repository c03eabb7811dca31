"""Which HEVC pictures no other picture refers to (ITU-T H.265, 7.4.2.2).

Sub-layer non-reference pictures of the highest temporal layer that the SPS declares. What a packet may hold beside
slices: access unit delimiter (35), filler (38), SEI (39, 40), Dolby Vision metadata (62).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vqa.media.bitstream.bits import EndOfBitsError, nal_units, sized_unit


@dataclass
class HevcStream:
    """Parameter sets of a stream.

    `extradata`: an HEVCDecoderConfigurationRecord, NAL units after start codes, or empty.
    """

    extradata: bytes
    layers: set[int] = field(default_factory=set)  # highest temporal layer, as each SPS declares it

    def __post_init__(self) -> None:
        is_hvcc = self.extradata[:1] == b"\1" and len(self.extradata) > 22
        self.length_bytes = (self.extradata[21] & 3) + 1 if is_hvcc else 0
        try:
            for unit in _hvcc_sets(self.extradata) if is_hvcc else nal_units(self.extradata, 0):
                self._note(unit)
        except EndOfBitsError:
            pass  # without an SPS, here or in the first packet, nothing is left out

    def _note(self, unit: bytes) -> None:
        if unit[0] >> 1 & 63 == 33 and len(unit) > 2:
            self.layers.add(unit[2] >> 1 & 7)  # sps_max_sub_layers_minus1

    def is_disposable(self, packet: bytes) -> bool:
        """Whether no other picture refers to the one in this packet."""
        try:
            units = list(nal_units(packet, self.length_bytes))
        except EndOfBitsError:
            return False
        for unit in units:
            self._note(unit)
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
    """Parameter sets of HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1)."""
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = sized_unit(extradata, at)
            yield unit
