"""VP9 frames that no later frame depends on (VP9 specification, 6.2, annex B).

A frame can be left out when it refreshes no slot, and the frame stored next is a key frame or error resilient: that one
starts from a clean state, with probabilities, vectors and segments forgotten (`setup_past_independence`).
"""

from collections.abc import Sequence

from vqa.media.bitstream.bits import Bits, EndOfBitsError


def prune_vp9(packets: Sequence[bytes], is_wanted: Sequence[bool], is_end: bool) -> list[bytes | None]:
    """A `Pruner` (prune.py); needs no state between calls."""
    headers = [_headers(packet) for packet in packets]
    forgets = [bool(frames) and frames[0][1] for frames in headers[1:]] + [is_end]
    return [
        packet if wanted or not following or not frames or any(refreshes for refreshes, _ in frames) else None
        for packet, wanted, frames, following in zip(packets, is_wanted, headers, forgets, strict=True)
    ]


def _headers(packet: bytes) -> list[tuple[bool, bool]]:
    """For each frame of a packet: may it refresh a slot, and is its start clean.

    Empty for what is not plain.
    """
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
