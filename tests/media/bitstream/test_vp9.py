"""VP9: leaving packets out changes no pixel, on streams of real encoders."""

import numpy as np
import pytest

from tests.support.streams import VP9, assert_exact_though_pruned, assert_flipped_headers_parse, assert_frames_exact
from vqa.media.backends import pyav


@pytest.mark.parametrize("name", VP9)
def test_wanted_frames_are_those_of_a_full_decode_though_packets_are_left_out(stream_of, fed, name) -> None:
    assert_exact_though_pruned(stream_of(name), fed, seed=len(name))


@pytest.mark.parametrize("name", ["vp9-layers.webm"])
def test_looking_ahead_in_short_chunks_changes_no_pixel(stream_of, fed, monkeypatch, name) -> None:
    monkeypatch.setattr(pyav, "_CHUNK_BYTES", 3000)
    planned = assert_frames_exact(stream_of(name), np.array([7, 22, 45]))
    assert fed.packets <= planned


def test_bit_flips_in_headers_never_make_parsing_fail(stream_of) -> None:
    assert_flipped_headers_parse(stream_of("vp9-layers.webm"))
