"""Display orientation by the SEI of H.264 and HEVC (annex D of both)."""

from vqa.media.bitstream.bits import Bits, EndOfBitsError, nal_units
from vqa.media.bitstream.h264 import H264Stream
from vqa.media.bitstream.hevc import HevcStream

_DISPLAY_ORIENTATION = 47  # payloadType


def display_orientation(codec: str, extradata: bytes, packet: bytes) -> tuple[int, bool] | None:
    """Clockwise turn for display in degrees, and whether to flip upside down before.

    Args:
        codec: FFmpeg's canonical name.
        extradata: The decoder's configuration record or parameter sets, as the container holds them; may be empty.
        packet: The first one, whose orientation is taken for that of all.

    Returns:
        The turn to the nearest 90 degrees, and the flip; None where the packet tells neither.
    """
    if codec == "h264":
        length_bytes, header_bytes = H264Stream(extradata).length_bytes, 1
    elif codec == "hevc":
        length_bytes, header_bytes = HevcStream(extradata).length_bytes, 2
    else:
        return None
    try:
        for unit in nal_units(packet, length_bytes):
            is_sei = unit[0] & 31 == 6 if codec == "h264" else unit[0] >> 1 & 63 == 39
            if is_sei and (turn := _turn(Bits(unit[header_bytes:], is_escaped=True))):
                return turn
    except EndOfBitsError:
        pass
    return None


def _turn(messages: Bits) -> tuple[int, bool] | None:
    """Turn and flip by the messages of a NAL unit."""
    try:
        while True:
            kind, size = _number(messages), _number(messages)
            payload = messages.read(8 * size)
            if kind == _DISPLAY_ORIENTATION and size >= 3:
                # cancel_flag, hor_flip, ver_flip, anticlockwise_rotation, and what does not matter here
                flags, rotation = payload >> 8 * size - 3, payload >> 8 * size - 19 & 0xFFFF
                is_cancelled, is_flipped, is_upside_down = flags & 4, bool(flags & 2), bool(flags & 1)
                turn = (180 * is_flipped - round(rotation / 0x4000) * 90) % 360
                if not is_cancelled and (rotation or is_flipped or is_upside_down):
                    return turn, is_flipped != is_upside_down
    except EndOfBitsError:  # the trailing bits
        return None


def _number(messages: Bits) -> int:
    """payloadType or payloadSize: the sum of bytes up to one below 255 (7.3.2.3.1)."""
    total = 0
    while (part := messages.read(8)) == 255:
        total += 255
    return total + part
