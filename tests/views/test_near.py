"""Global frames in pairs of neighbours, for what looks at motion."""

import numpy as np
import pytest

from tests.support import clips
from vqa.data.view_cache import pack, unpack
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look
from vqa.views.frames import with_next
from vqa.views.pictures import Shot, whole_pairs

SHOT = Shot(0.0, np.zeros((2, 2, 3), np.uint8))


def see(path, **keys) -> Views:
    return look(Clip(clip_id=path.name, uri=str(path)), ViewsConfig(global_kind="frames", local_pictures=0, **keys))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("near") / "film.mp4"
    clips.write_video(path, frames=50, seed=3)
    return path


@pytest.mark.parametrize(
    ("chosen", "count", "pairs"),
    [
        ([3, 9], 20, [3, 4, 9, 10]),
        ([3, 4], 20, [3, 4, 4, 5]),
        ([18, 19], 20, [18, 19]),  # the last frame is shown with the one before it
        ([0], 2, [0, 1]),
        ([0], 1, [0]),
    ],
)
def test_each_frame_is_followed_by_the_next_one(chosen, count, pairs):
    assert with_next(np.array(chosen), count).tolist() == pairs


@pytest.mark.parametrize(
    ("decoded", "kept"), [([0, 1, 2, 3], [0, 1, 2, 3]), ([1, 2, 3], [2, 3]), ([1, 2], [1]), ([3], [3])]
)
def test_a_pair_that_lost_a_frame_is_left_out(decoded, kept):
    assert list(whole_pairs(dict.fromkeys(decoded, SHOT))) == kept


@pytest.mark.parametrize("snap", ["none", "keyframes"])
def test_pairs_are_the_keyframes_and_their_followers(film, snap):
    pairs, alone = (see(film, keyframes=4, snap=snap, near_frames=near) for near in (True, False))
    step = 1 / pairs.info.fps
    assert len(pairs.global_pictures) == 2 * len(alone.global_pictures)
    assert pairs.keyframe_seconds[::2] == alone.keyframe_seconds
    assert np.allclose(np.subtract(pairs.keyframe_seconds[1::2], pairs.keyframe_seconds[::2]), step)
    for one, same in zip(pairs.global_pictures[::2], alone.global_pictures, strict=True):
        assert np.array_equal(one, same)
    assert not np.array_equal(pairs.global_pictures[0], pairs.global_pictures[1])
    kept = unpack(pack(pairs), pairs.clip)
    assert all(map(np.array_equal, kept.global_pictures, pairs.global_pictures))


def test_a_still_is_one_picture(tmp_path):
    path = clips.write_image(tmp_path / "still.png")
    assert len(see(path, near_frames=True).global_pictures) == 1


def test_a_mosaic_of_pairs_has_twice_the_tiles(film):
    one, two = (look(Clip(clip_id="c", uri=str(film)), ViewsConfig(keyframes=4, near_frames=near)) for near in (0, 1))
    assert (len(one.keyframe_seconds), len(two.keyframe_seconds)) == (4, 8)


def test_the_setting_is_in_the_key_and_keys_without_it_stay():
    assert "near_frames" not in ViewsConfig().identity()
    assert ViewsConfig(near_frames=True).identity()["near_frames"] is True
