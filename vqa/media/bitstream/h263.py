"""Intra pictures of H.263 (ITU-T H.263, 5.1); in AVI FFmpeg calls all keyframes."""

from vqa.media.bitstream.bits import Bits, EndOfBitsError

_START_CODE, _EXTENDED, _FULL_UPDATE = 0x20, 7, 1


def is_intra(packet: bytes) -> bool:
    """Whether a packet's picture needs no other; False for an unreadable header."""
    bits = Bits(packet[:12])
    try:
        if bits.read(22) != _START_CODE:
            return False
        bits.read(8), bits.read(5)  # temporal reference; marker, split screen, document camera, freeze release
        if bits.read(3) != _EXTENDED:
            return not bits.read(1)
        if bits.read(3) == _FULL_UPDATE:
            bits.read(18)
        return bits.read(3) == 0
    except EndOfBitsError:
        return False
