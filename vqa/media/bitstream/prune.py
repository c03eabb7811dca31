"""Packets that a decoder must see to give wanted frames bit for bit, by codec.

| codec | a picture is left out when | module |
| --- | --- | --- |
| H.264 | it is not used for inter prediction, nor is the other field of its pair | h264.py |
| HEVC | it is a sub-layer non-reference picture of the highest temporal layer | hevc.py |
| VP9 | it refreshes no slot, and the next frame starts from a clean state | vp9.py |
| AV1 | no wanted frame needs it, directly or through others; hidden frames inside packets as well | av1.py |

Whatever is not plain (parameter sets or ends of sequence in the packet, lengths that do not add up, several layers,
frame ids, a decoder model) is fed to the decoder.
"""

from collections.abc import Callable, Sequence

from vqa.media.bitstream.av1 import Av1Pruner
from vqa.media.bitstream.h264 import H264Stream
from vqa.media.bitstream.hevc import HevcStream
from vqa.media.bitstream.vp9 import prune_vp9

Pruner = Callable[[Sequence[bytes], Sequence[bool], bool], list[bytes | None]]
"""(packets in file order, is each wanted, do they end the range) -> what to feed for each, None for nothing.

One pruner serves one range, from a place where decoding can start; it is called with chunk after chunk of it.
"""


def pruner(codec: str, extradata: bytes) -> Pruner | None:
    """Pruner of a stream; None for codecs without a rule, which are decoded in full.

    Args:
        codec: FFmpeg's canonical name.
        extradata: The decoder's configuration record or parameter sets, as the container holds them; may be empty.
    """
    if codec == "h264":
        return _each(H264Stream(extradata).is_disposable)
    if codec == "hevc":
        return _each(HevcStream(extradata).is_disposable)
    if codec == "vp9":
        return prune_vp9
    if codec == "av1":
        return Av1Pruner(extradata)
    return None


def _each(is_disposable: Callable[[bytes], bool]) -> Pruner:
    """Judge each packet by itself."""

    def feed(packets: Sequence[bytes], is_wanted: Sequence[bool], is_end: bool) -> list[bytes | None]:
        judged = zip(packets, is_wanted, strict=True)
        return [packet if wanted or not is_disposable(packet) else None for packet, wanted in judged]

    return feed
