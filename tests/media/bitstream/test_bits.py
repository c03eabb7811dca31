"""Bits and NAL units: numbers and units are read back as they were written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa.media.bitstream.bits import Bits, EndOfBitsError, nal_units


def test_units_behind_lengths_and_behind_start_codes_are_the_same() -> None:
    units = [b"\x67abc", b"\x68d", b"\x65" + bytes(range(1, 40))]
    behind_lengths = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    behind_codes = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert list(nal_units(behind_lengths, 4)) == units
    assert [unit.rstrip(b"\0") for unit in nal_units(behind_codes, 0)] == units
    for bad in (behind_lengths[:-1], b"\0\0\0\0", b"\0\0"):
        with pytest.raises(EndOfBitsError):
            list(nal_units(bad, 4))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_exp_golomb_numbers_are_read_back(numbers) -> None:
    text = "".join(f"{'0' * (len(f'{n + 1:b}') - 1)}{n + 1:b}" for n in numbers)
    text += "1" * (-len(text) % 8)
    bits = Bits(int(text, 2).to_bytes(len(text) // 8, "big"))
    assert [bits.exp_golomb() for _ in numbers] == numbers
