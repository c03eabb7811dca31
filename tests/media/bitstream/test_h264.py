"""H.264: leaving packets out changes no pixel, on streams of real encoders."""

import av
import numpy as np
import pytest

from tests.support.streams import (
    FRAMES,
    H264,
    assert_exact_though_pruned,
    assert_flipped_headers_parse,
    assert_frames_exact,
)
from vqa.media import decode, probe
from vqa.media.backends import pyav
from vqa.media.bitstream.prune import pruner


@pytest.mark.parametrize("name", H264)
def test_wanted_frames_are_those_of_a_full_decode_though_packets_are_left_out(stream_of, fed, name) -> None:
    assert_exact_though_pruned(stream_of(name), fed, seed=len(name))


@pytest.mark.parametrize("name", ["pyramid.mp4"])
def test_looking_ahead_in_short_chunks_changes_no_pixel(stream_of, fed, monkeypatch, name) -> None:
    monkeypatch.setattr(pyav, "_CHUNK_BYTES", 3000)
    planned = assert_frames_exact(stream_of(name), np.array([7, 22, 45]))
    assert fed.packets <= planned


def test_less_than_the_planned_packets_are_decoded_by_a_third(stream_of, fed) -> None:
    planned = assert_frames_exact(stream_of("pyramid.mp4"), np.array([20, 46]))
    assert fed.packets < 0.67 * planned


def test_bit_flips_in_headers_never_make_parsing_fail(stream_of) -> None:
    assert_flipped_headers_parse(stream_of("pyramid.mp4"))


def test_damage_in_packets_left_out_costs_nothing(stream_of, tmp_path) -> None:
    path = stream_of("pyramid.mp4").path
    _, table = probe(str(path))
    with av.open(str(path)) as container:
        prune = pruner("h264", container.streams.video[0].codec_context.extradata)
        spare = [p for p in container.demux(video=0) if p.size and prune([bytes(p)], [False], True) == [None]]
    data = bytearray(path.read_bytes())
    for packet in spare:
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)  # after length and slice header
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data)
    lost = {packet.pts for packet in spare}
    entries = [e for e in range(FRAMES) if int(table.ticks[table.order[e]]) not in lost]
    whole, damaged = (decode(str(p), table.seconds[entries], sizes=[None] * len(entries)) for p in (path, bad))
    assert 10 < len(entries) < FRAMES - 10
    assert all(np.array_equal(a, b) for a, b in zip(whole.pixels, damaged.pixels, strict=True))
