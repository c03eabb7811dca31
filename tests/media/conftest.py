"""Counter of the packets that the decoder is given."""

from types import SimpleNamespace

import pytest

from vqa.media.backends import pyav


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`packets`: how many the real decoder was given; nothing is replaced."""
    real, counter = pyav._decode, SimpleNamespace(packets=0)

    def watched(decoder, packet):
        counter.packets += packet is not None
        return real(decoder, packet)

    monkeypatch.setattr(pyav, "_decode", watched)
    return counter
