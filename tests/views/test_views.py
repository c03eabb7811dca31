"""Views: what the model sees of real files, with frames that carry their own number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from samplers import spatial
from samplers.temporal import change_from_packets
from tests.support import clips
from vqa.errors import ClipError
from vqa.media.decode import decode
from vqa.media.probe import probe
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, flow, look, pictures
from vqa.views.frames import global_frames


def see(path: Path, *, start: float | None = None, end: float | None = None, seed: int = 0, **keys: Any) -> Views:
    clip = Clip(clip_id=path.name, uri=str(path), start_seconds=start, end_seconds=end)
    return look(clip, ViewsConfig(**keys), seed=seed)


def tiles_of(views: Views, columns: int, rows: int) -> list[np.ndarray]:
    mosaic = views.global_pictures[0]
    height, width = mosaic.shape[0] // rows, mosaic.shape[1] // columns
    return [
        mosaic[r * height : (r + 1) * height, c * width : (c + 1) * width] for r in range(rows) for c in range(columns)
    ]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "clip.mp4"
    return clips.write_video(path, width=320, height=192, frames=100, options={"g": "25"}, noise=2.0)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "cut.mp4"
    whole = clips.write_video(path, frames=100, options={"g": "10"}, container_options={"movflags": "faststart"})
    return clips.cut_off(whole, 0.7)


def test_mosaic_shows_in_time_order_exactly_the_frames_at_the_seconds_reported(video):
    views = see(video)
    shown = [clips.read_number(tile) for tile in tiles_of(views, 4, 4)]
    assert shown == [round(second * 25) for second in views.keyframe_seconds]
    assert shown == sorted(set(shown)) and len(shown) == 16
    assert views.frames_planned == views.frames_decoded == 16 and not views.is_partial
    assert views.pictures == views.global_pictures + views.local_pictures


def test_crops_are_cut_from_the_frames_and_places_reported(video):
    views = see(video, crop_pixels=96)
    assert [picture.shape for picture in views.local_pictures] == [(96, 96, 3)] * 3
    frames = decode(str(video), [box.second for box in views.crop_boxes], sizes=[None] * 3)
    for picture, box, frame in zip(views.local_pictures, views.crop_boxes, frames.pixels, strict=True):
        assert np.array_equal(picture, frame[box.y : box.y + box.height, box.x : box.x + box.width])
        assert box.second in views.keyframe_seconds  # no further frame was decoded for it
    assert [box.second for box in views.crop_boxes] == pytest.approx([4 / 6, 2.0, 20 / 6], abs=0.3)
    assert len({(box.x, box.y) for box in views.crop_boxes}) == 3  # different parts of the scene


def test_crop_pictures_own_their_pixels(video):
    for picture in see(video, crop_pixels=96).local_pictures:
        assert picture.base is None and picture.flags.c_contiguous


def test_one_decode_call_asks_each_frame_once_at_each_size(video, monkeypatch):
    calls = []

    def counted(uri, seconds, *, sizes, **others):
        calls.append((list(seconds), list(sizes), others))
        return decode(uri, seconds, sizes=sizes, **others)

    monkeypatch.setattr(flow, "decode", counted)
    see(video)
    assert len(calls) == 1
    seconds, sizes, others = calls[0]
    assert len(set(zip(seconds, sizes, strict=True))) == len(seconds) == 19
    assert others["info"] is not None and others["packets"] is not None


@pytest.mark.parametrize("temporal", ["uniform", "segment", "keyframe", "fps"])
@pytest.mark.parametrize("spatial", ["centre", "grid", "fragments", "salient", "frames"])
def test_every_choice_gives_the_same_views_again(video, temporal, spatial):
    first, second = (see(video, temporal=temporal, spatial=spatial, crop_pixels=100, seed=7) for _ in range(2))
    assert first.keyframe_seconds == second.keyframe_seconds and first.crop_boxes == second.crop_boxes
    assert all(np.array_equal(a, b) for a, b in zip(first.pictures, second.pictures, strict=True))
    assert len(first.local_pictures) == 3
    assert len(first.keyframe_seconds) == (4 if temporal == "fps" else 16)  # four seconds, one frame a second


def test_the_seed_moves_only_what_is_drawn(video):
    drawn = [see(video, temporal="segment", spatial="fragments", seed=seed) for seed in (1, 2)]
    assert drawn[0].keyframe_seconds != drawn[1].keyframe_seconds and drawn[0].crop_boxes != drawn[1].crop_boxes
    fixed = [see(video, seed=seed) for seed in (1, 2)]
    assert fixed[0].keyframe_seconds == fixed[1].keyframe_seconds and fixed[0].crop_boxes == fixed[1].crop_boxes


def test_fragments_are_stitched_to_one_picture_and_all_boxes_told(tmp_path):
    views = see(
        clips.write_video(tmp_path / "a.mp4", width=480, height=320, frames=20), spatial="fragments", local_pictures=2
    )
    assert [picture.shape for picture in views.local_pictures] == [(224, 224, 3)] * 2
    assert len(views.crop_boxes) == 2 * 49
    first, second = views.crop_boxes[:49], views.crop_boxes[49:]
    assert [(b.x, b.y) for b in first] == [(b.x, b.y) for b in second]  # aligned through the clip
    frame = decode(views.info.uri, [first[0].second], sizes=[None]).pixels[0]
    box = first[8]  # second row, second column
    assert np.array_equal(views.local_pictures[0][32:64, 32:64], frame[box.y : box.y + 32, box.x : box.x + 32])


def test_separate_global_frames_are_bounded_and_never_enlarged(video):
    views = see(video, global_kind="frames", keyframes=5, global_pixels=200)
    assert [picture.shape for picture in views.global_pictures] == [(120, 200, 3)] * 5
    assert [clips.read_number(picture) for picture in views.global_pictures] == [
        round(second * 25) for second in views.keyframe_seconds
    ]
    assert see(video, global_kind="frames", keyframes=1).global_pictures[0].shape == (192, 320, 3)


def test_whole_local_frames_are_reduced_to_the_stated_area(tmp_path):
    video = clips.write_video(tmp_path / "big.mp4", width=1920, height=1080, frames=4, options={"preset": "ultrafast"})
    views = see(video, spatial="frames")
    for picture, box in zip(views.local_pictures, views.crop_boxes, strict=True):
        height, width, _ = picture.shape
        assert 0.98 * flow.LOCAL_FRAME_PIXELS < width * height <= flow.LOCAL_FRAME_PIXELS
        assert width / height == pytest.approx(16 / 9, rel=0.01)
        assert (box.x, box.y, box.width, box.height) == (0, 0, 1920, 1080)


def test_a_span_is_half_open_and_bounds_all_that_is_seen(video):
    views = see(video, start=1.0, end=2.0)
    seconds = [*views.keyframe_seconds, *(box.second for box in views.crop_boxes)]
    assert min(seconds) >= 1.0 and max(seconds) < 2.0
    assert see(video, start=1.0, end=1.04).keyframe_seconds == (1.0,)  # the frame at 1.04 belongs to the next span
    with pytest.raises(ClipError, match=r"no frame in \[9, 10\)") as error:
        see(video, start=9, end=10)
    assert error.value.kind == "no_frames"


def test_a_picture_that_people_saw_enlarged_is_looked_at_so(tmp_path):
    path = tmp_path / "small.png"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    views = see(path, shown_size=(240, 240), global_pixels=128, crop_pixels=100, spatial="centre")
    shown = np.asarray(Image.fromarray(pixels).resize((240, 240), Image.Resampling.BICUBIC))
    box = views.crop_boxes[0]
    assert (box.width, box.height) == (100, 100)
    assert (views.info.width, views.info.height) == (24, 24)  # of the file, as before
    np.testing.assert_array_equal(views.local_pictures[0], shown[box.y : box.y + box.height, box.x : box.x + box.width])
    assert views.global_pictures[0].shape == (128, 128, 3)


def test_the_size_shown_is_in_the_key_and_keys_without_it_stay():
    assert "shown_size" not in ViewsConfig().identity()
    assert ViewsConfig(shown_size=(240, 240)).identity()["shown_size"] == [240, 240]


def test_a_still_is_one_global_picture_and_crops_apart(tmp_path):
    views = see(clips.write_image(tmp_path / "still.png", width=640, height=480), crop_pixels=160)
    assert [picture.shape for picture in views.global_pictures] == [(480, 640, 3)]
    assert views.keyframe_seconds == (0.0,) and views.frames_planned == views.frames_decoded == 1
    assert len({(box.x, box.y) for box in views.crop_boxes}) == len(views.local_pictures) == 3
    assert len(see(tmp_path / "still.png", spatial="frames").local_pictures) == 1
    assert len(see(tmp_path / "still.png", spatial="centre").local_pictures) == 1  # not three times the same pixels
    assert see(tmp_path / "still.png", local_pictures=0).local_pictures == ()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_shorter_than_the_budget_show_each_frame_once(tmp_path, suffix):
    views = see(clips.write_animation(tmp_path / f"short{suffix}", frames=5, width=120, height=72))
    shown = [clips.read_number(tile) for tile in tiles_of(views, 3, 2)[:5]]
    assert shown == [0, 1, 2, 3, 4]
    assert (tiles_of(views, 3, 2)[5] == pictures.GAP_GREY).all()


@pytest.mark.parametrize(("width", "height"), [(16, 16), (9, 200), (200, 3), (108, 192), (323, 179)])
def test_odd_shapes_are_seen_whole_and_never_enlarged(tmp_path, width, height):
    path = clips.write_video(
        tmp_path / "odd.mkv", codec="ffv1", pixel_format="yuv444p", width=width, height=height, frames=20
    )
    for settings in ({}, {"spatial": "fragments"}, {"spatial": "grid", "global_kind": "frames", "keyframes": 2}):
        views = see(path, crop_pixels=64, **settings)
        assert len(views.local_pictures) == 3
        for picture in views.global_pictures:
            assert picture.shape[0] <= min(1024, 4 * height) and picture.shape[1] <= min(1024, 4 * width)
        for box in views.crop_boxes:
            assert 0 <= box.x <= box.x + box.width <= width and 0 <= box.y <= box.y + box.height <= height


def test_a_picture_one_pixel_wide_is_accepted(tmp_path):
    views = see(clips.write_image(tmp_path / "line.png", width=1, height=300))
    assert views.global_pictures[0].shape == (300, 1, 3)
    assert see(tmp_path / "line.png", spatial="fragments").local_pictures[0].shape == (7 * 32, 7, 3)


@pytest.mark.parametrize("native", [(1920, 1080), (1080, 1920), (7680, 4320), (1000, 1000), (3, 5000), (17, 16)])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 16, 25])
@pytest.mark.parametrize("long_side", [64, 1024])
def test_the_mosaic_keeps_to_its_long_side_and_the_aspect(native, count, long_side):
    columns, rows = grid = pictures.grid_of(count)
    assert columns * (rows - 1) < count <= columns * rows and columns - rows in (0, 1)
    width, height = pictures.tile_size(native, grid=grid, long_side=long_side)
    assert 1 <= width <= native[0] and 1 <= height <= native[1]
    assert columns * width <= long_side and rows * height <= long_side
    assert abs(width * native[1] - height * native[0]) <= max(native)  # right to within one pixel


def test_rotated_video_is_seen_upright(tmp_path):
    path = clips.write_video(tmp_path / "turned.mp4", width=192, height=108, frames=30, rotation_degrees=90)
    views = see(path)
    assert (views.info.width, views.info.height) == (108, 192)
    assert views.global_pictures[0].shape == (768, 432, 3)
    assert all(picture.shape == (192, 108, 3) for picture in views.local_pictures)


def test_a_cut_off_clip_is_partial_and_says_what_it_shows(cut):
    views = see(cut)
    assert views.is_partial and 8 <= views.frames_decoded < views.frames_planned == 16
    tiles = tiles_of(views, 4, 4)
    assert [clips.read_number(tile) for tile in tiles] == [round(second * 25) for second in views.keyframe_seconds]
    last = views.keyframe_seconds[views.frames_decoded - 1]
    assert all(
        second == last for second in views.keyframe_seconds[views.frames_decoded :]
    )  # the nearest that was decoded
    assert 1 <= len(views.local_pictures) == len(views.crop_boxes) < 3
    assert len(see(cut, global_kind="frames").global_pictures) == views.frames_decoded


@pytest.mark.parametrize("settings", [{"on_damage": "fail"}, {"min_decoded_share": 0.9}])
def test_too_much_damage_is_an_error_that_names_the_numbers(cut, settings):
    with pytest.raises(ClipError, match=r"\d+ of 16 frames could be decoded .* are needed") as error:
        see(cut, **settings)
    assert error.value.kind == "corrupt"


def test_a_clip_that_lost_all_its_local_frames_is_corrupt(cut):
    with pytest.raises(ClipError, match="0 for local") as error:
        see(cut, start=2.0, keyframes=16, local_pictures=1, min_decoded_share=0.01)
    assert error.value.kind == "corrupt"


def test_a_frame_above_the_limit_is_too_large(video):
    with pytest.raises(ClipError, match=r"320x192 is more than 1000 pixels.*raise views\.max_pixels") as error:
        see(video, max_pixels=1000)
    assert error.value.kind == "too_large"


def test_keyframes_go_where_the_packets_say_that_things_change(tmp_path):
    path = clips.write_video(tmp_path / "still_then_moving.mp4", frames=100, noise=0.0, options={"g": "250"})
    _, packets = probe(str(path))
    calm = packets.sizes.copy()
    calm[:50] = 40  # as if the first half stood still
    change = change_from_packets(calm, packets.is_key)
    chosen = global_frames("keyframe", packets.seconds, count=16, rate=1.0, change=change, seed=0)
    assert (chosen >= 50).sum() >= 10 and (chosen < 50).sum() >= 4


def test_luma_differences_find_the_change_that_packets_hide(tmp_path):
    """Each packet of MJPEG is a key frame: sizes say nothing about change."""
    path = tmp_path / "burst.avi"
    flash = "negate=enable='between(t,1.6,1.9)*mod(n,2)'"
    clips.ffmpeg("-f", "lavfi", "-i", "color=0x404040:s=160x96:r=25:d=4", "-vf", flash, "-c:v", "mjpeg", path)
    by_packets, by_luma = (
        np.array(see(path, change=change, local_pictures=0).keyframe_seconds) for change in ("packets", "luma")
    )
    burst = [((seconds >= 1.5) & (seconds <= 2.0)).sum() for seconds in (by_packets, by_luma)]
    assert burst[1] > burst[0] + 2 and len(by_luma) == 16


def test_motion_lights_up_where_the_object_is_now():
    def shot(second: float, left: int) -> object:
        pixels = np.zeros((10, 40, 3), dtype=np.uint8)
        pixels[:, left : left + 4] = 200
        return pictures.Shot(second, pixels)

    tiles = [shot(0.0, 2), shot(1.0, 15), shot(2.0, 30)]
    assert np.flatnonzero(pictures._motion(tiles, 1.0)[0]).tolist() == [15, 16, 17, 18]
    assert pictures._motion(tiles, 0.5) is None and pictures._motion(tiles[:1], 0.0) is None


def test_all_crops_of_a_still_come_from_one_map_of_it(tmp_path, monkeypatch):
    path = tmp_path / "still.png"
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    real, counts = spatial.salient, []
    monkeypatch.setattr(spatial, "salient", lambda luma, **keys: counts.append(keys["count"]) or real(luma, **keys))
    boxes = [[box.x, box.y, 96, 96] for box in see(path, crop_pixels=96, local_pictures=5).crop_boxes]
    assert counts == [5]
    luma, found = pictures._luma(noise), np.zeros((0, 4), dtype=np.int64)
    for _ in range(5):
        found = np.concatenate([found, real(luma, box_width=96, box_height=96, count=1, avoid=found)])
    assert boxes == found.tolist()


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError, match="key_frames"):
        ViewsConfig(key_frames=3)


def test_a_pause_shows_the_picture_on_screen(tmp_path):
    seconds = [*np.arange(25) / 25, *(9 + np.arange(25) / 25)]
    path = clips.write_video(tmp_path / "pause.mp4", seconds=seconds)
    for start, end, first in ((3.0, 5.0, 0.96), (8.0, 9.5, 0.96), (0.5, 0.8, 0.52), (9.2, 9.6, 9.2)):
        views = look(Clip(clip_id="a", uri=str(path), start_seconds=start, end_seconds=end), ViewsConfig())
        assert views.keyframe_seconds[0] == pytest.approx(first, abs=0.001)
        assert max(views.keyframe_seconds) < end
    with pytest.raises(ClipError, match="no frame in"):
        look(Clip(clip_id="a", uri=str(path), start_seconds=20.0, end_seconds=30.0), ViewsConfig())


# Every key of `views` with another value, and what else it needs to matter; a new key fails until it is entered.
EFFECTS: dict[str, tuple[object, dict[str, Any]]] = {
    "temporal": ("uniform", {}),
    "keyframes": (3, {}),
    "change": ("luma", {}),
    "keyframe_rate": (2.0, {"temporal": "fps"}),
    "global_kind": ("frames", {}),
    "global_pixels": (256, {}),
    "spatial": ("grid", {"crop_pixels": 96}),
    "local_pictures": (1, {}),
    "crop_pixels": (96, {}),
    "snap": ("keyframes", {}),
    "backend": ("decord", {}),
    "min_decoded_share": (0.99, {}),
    "on_damage": ("fail", {}),
    "shown_size": ((640, 384), {}),
    "count_repeats": (True, {"temporal": "uniform"}),
    "near_frames": (True, {"global_kind": "frames"}),
    "max_pixels": (1000, {}),
    "prune": (False, {"keyframes": 2}),
}


def outcome(path: Path, **keys: Any) -> object:
    """What may be told apart: the pictures, their times, the decoder; or the kind of the error."""
    try:
        views = see(path, **keys)
    except ClipError as error:
        return error.kind
    pictures_seen = [(picture.shape, picture.tobytes()) for picture in views.pictures]
    return pictures_seen, views.keyframe_seconds, views.crop_boxes, views.decode_backend, views.told_repeats


@pytest.mark.parametrize("key", ViewsConfig.model_fields)
def test_every_key_changes_what_is_seen(video, cut, freezing, monkeypatch, key):
    value, others = EFFECTS[key]
    asked = []

    def watched(*args, prune, **rest):
        asked.append(prune)
        return decode(*args, prune=prune, **rest)

    monkeypatch.setattr(flow, "decode", watched)
    if key == "backend":
        pytest.importorskip("decord")
    path = {"min_decoded_share": cut, "on_damage": cut, "count_repeats": freezing["frozen"]}.get(key, video)
    before, after = outcome(path, **others), outcome(path, **others, **{key: value})
    if key == "prune":  # the same pictures, more packets decoded for them
        assert before == after and asked == [True, False]
    else:
        assert before != after
