"""Bits of a header, most significant first."""


class EndOfBitsError(Exception):
    """A header is shorter than it says: nothing can be concluded from it."""


class Bits:
    """Reads fixed-length and Exp-Golomb numbers; `is_escaped`: the 3 of each 00 00 03 is left out (H.264, HEVC)."""

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
