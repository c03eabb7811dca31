"""The choice of a rule, its off switch, and what has no rule; the rules themselves: a test file per codec."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.streams import NO_RULE, assert_exact_though_pruned, assert_frames_exact
from vqa.media import decode
from vqa.media.bitstream.prune import pruner


@pytest.mark.parametrize("name", NO_RULE)
def test_a_codec_without_a_rule_is_decoded_in_full(stream_of, fed, name) -> None:
    assert_exact_though_pruned(stream_of(name), fed, seed=len(name))


@pytest.mark.parametrize("name", ["pyramid.mp4", "hevc.mp4", "vp9-layers.webm", "av1.mp4"])
def test_with_the_switch_off_all_planned_packets_are_decoded_to_the_same_frames(stream_of, fed, name) -> None:
    stream, wanted = stream_of(name), np.array([7, 20, 46])
    planned = assert_frames_exact(stream, wanted, prune=False)
    assert fed.packets == planned
    fed.packets = 0
    assert_frames_exact(stream, wanted)
    assert fed.packets < planned
    seconds = [0.28, 0.8, 1.84]
    on, off = (decode(str(stream.path), seconds, sizes=[(64, 38)] * 3, prune=prune) for prune in (True, False))
    assert all(np.array_equal(a, b) for a, b in zip(on.pixels, off.pixels, strict=True))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
@settings(max_examples=60, deadline=None)
@given(extradata=st.binary(max_size=40), packets=st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_bytes_that_make_no_sense_are_all_fed(codec, extradata, packets) -> None:
    kept = pruner(codec, extradata)(packets, [True] * len(packets), True)
    assert kept == packets
