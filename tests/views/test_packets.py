"""Which packets are decoded for the views: intra frames alone where asked for, no more than the frames need."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import clips
from vqa.media.backends import pyav
from vqa.media.probe import probe
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look


def see(path: Path, **keys: Any) -> Views:
    return look(Clip(clip_id=path.name, uri=str(path)), ViewsConfig(**keys))


@pytest.mark.parametrize("spatial", ["salient", "frames"])
def test_snapped_to_keyframes_only_intra_frames_are_seen_and_decoded(tmp_path, monkeypatch, spatial):
    path = clips.write_video(tmp_path / "v.mp4", frames=60, options={"g": "8", "bf": "2"})
    _, packets = probe(str(path))
    intra = packets.seconds[packets.is_key]
    real, fed = pyav._decode, []
    monkeypatch.setattr(pyav, "_decode", lambda decoder, packet: fed.append(packet) or real(decoder, packet))
    views = see(path, snap="keyframes", spatial=spatial)
    assert set(views.keyframe_seconds) == set(intra)
    assert {box.second for box in views.crop_boxes} <= set(intra)
    assert len(views.local_pictures) == 3
    assert sum(packet is not None for packet in fed) == len(intra)


@pytest.mark.parametrize("change", ["packets", "luma"])
def test_without_pruning_the_views_are_the_same_from_more_packets(tmp_path, monkeypatch, change):
    path = clips.write_video(tmp_path / "v.mp4", frames=120, options={"g": "60", "bf": "3"})
    real, fed = pyav._decode, []
    monkeypatch.setattr(pyav, "_decode", lambda decoder, packet: fed.append(packet) or real(decoder, packet))
    seen, counts = [], []
    for prune in (True, False):
        fed.clear()
        seen.append(see(path, keyframes=5, change=change, prune=prune))
        counts.append(sum(packet is not None for packet in fed))
    on, off = seen
    assert counts[0] < counts[1]
    assert (on.keyframe_seconds, on.crop_boxes) == (off.keyframe_seconds, off.crop_boxes)
    for one, other in zip(
        on.global_pictures + on.local_pictures, off.global_pictures + off.local_pictures, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_snapped_to_keyframes_a_clip_with_one_intra_frame_shows_that_one(tmp_path):
    path = clips.write_video(tmp_path / "v.mp4", frames=40, options={"g": "100"})
    views = see(path, snap="keyframes")
    assert views.keyframe_seconds == (0.0,)
    assert {box.second for box in views.crop_boxes} == {0.0}
