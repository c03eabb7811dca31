"""H.263: intra pictures are told by their headers, on streams of a real encoder, which says which they are."""

import av
import pytest

from tests.support import clips
from vqa.media import probe
from vqa.media.bitstream.h263 import is_intra

BASELINE, EXTENDED = "h263", "h263p"  # H.263 of 1996 (five sizes), and with the extended header of version 2


def encoded(codec: str, *, width: int, height: int) -> list[av.Packet]:
    """16 pictures, the first and each sixth after it intra."""
    context = av.VideoCodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.framerate = width, height, "yuv420p", 25
    context.options = {"g": "6", "sc_threshold": "1000000000"}
    frames = [av.VideoFrame.from_ndarray(clips.picture(number, width=width, height=height)) for number in range(16)]
    return [packet for frame in [*frames, None] for packet in context.encode(frame)]


@pytest.mark.parametrize(
    ("codec", "width", "height"), [(BASELINE, 352, 288), (BASELINE, 128, 96), (EXTENDED, 160, 96), (EXTENDED, 352, 288)]
)
def test_intra_pictures_are_those_of_the_encoder(codec: str, width: int, height: int) -> None:
    packets = encoded(codec, width=width, height=height)
    assert [packet.is_keyframe for packet in packets] == [number % 6 == 0 for number in range(16)]
    assert [is_intra(bytes(packet)) for packet in packets] == [packet.is_keyframe for packet in packets]


@pytest.mark.parametrize("codec", [BASELINE, EXTENDED])
def test_headers_that_end_early_or_have_no_start_code_are_not_intra(codec: str) -> None:
    packet = bytes(encoded(codec, width=352, height=288)[0])
    first = next(count for count in range(len(packet)) if is_intra(packet[:count]))
    assert 4 < first <= 8  # as far as the picture's type
    assert not is_intra(b"\1" + packet[1:])
    assert not is_intra(packet[:2] + b"\4" + packet[3:])  # GOB 1 in place of a picture


@pytest.mark.parametrize(("codec", "place", "bits"), [(BASELINE, 38, 1), (EXTENDED, 59, 3)])
def test_of_all_picture_types_only_type_0_is_intra_whatever_follows(codec: str, place: int, bits: int) -> None:
    """Types 2 to 5: PB, B, and enhancements of spatial and SNR scalability (ITU-T H.263, table 5); then option bits."""
    head = int.from_bytes(bytes(encoded(codec, width=352, height=288)[0])[:12], "big")
    for kind in range(2**bits):
        for option in (0, 1):
            changed = head & ~((2 ** (bits + 1) - 1) << 95 - place - bits) | (kind << 1 | option) << 95 - place - bits
            assert is_intra(changed.to_bytes(12, "big")) == (kind == 0)


def test_decoding_starts_at_intra_pictures_where_the_container_names_none(tmp_path) -> None:
    path = clips.write_video(tmp_path / "a.avi", codec=EXTENDED, frames=16, width=352, height=288, options={"g": "6"})
    with av.open(str(path)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert probe(str(path))[1].is_key.tolist() == [number % 6 == 0 for number in range(16)]
