"""Bits of a header, and the NAL units of a packet (H.264 and HEVC)."""

from collections.abc import Iterator


class EndOfBitsError(Exception):
    """A header is shorter than it declares, so that nothing can be concluded from it."""


class Bits:
    """Reader of fixed-length and Exp-Golomb numbers, most significant bit first.

    `is_escaped`: the 3 of each 00 00 03 is left out (emulation prevention, ITU-T H.264 7.4.1).
    """

    def __init__(self, data: bytes, *, is_escaped: bool = False) -> None:
        data = data.replace(b"\0\0\3", b"\0\0") if is_escaped else data
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """The next `count` bits as a number. Raises EndOfBitsError."""
        self._left -= count
        if self._left < 0:
            raise EndOfBitsError
        return self._value >> self._left & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """ue(v), ITU-T H.264 9.1."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def signed_exp_golomb(self) -> int:
        """se(v), ITU-T H.264 9.1.1."""
        number = self.exp_golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)


def nal_units(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """NAL units of a packet, after lengths or, for `length_bytes` 0, start codes.

    Lengths: ISO/IEC 14496-15, 5.3.2; start codes: Annex B. Raises EndOfBitsError where the lengths do not add up, or
    there is no start code.
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


def sized_unit(data: bytes, at: int) -> tuple[bytes, int]:
    """Parameter set after its two length bytes at `at`, and its end; EndOfBitsError."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data) or end == at + 2:
        raise EndOfBitsError
    return data[at + 2 : end], end
