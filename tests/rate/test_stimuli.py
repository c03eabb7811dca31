"""What browsers are given of real files: pictures as decoded, videos they play, transcodes, refusals in words."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import clips
from vqa.data.sources import list_clips
from vqa.media.probe import probe
from vqa.rate.stimuli import prepare_stimuli


def test_each_kind_of_file_becomes_what_a_browser_shows_or_says_why_not(tmp_path: Path) -> None:
    folder, media = tmp_path / "clips", tmp_path / "media"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.tiff")
    clips.write_video(folder / "b.mp4", frames=10)
    clips.write_video(folder / "c.mkv", frames=10)
    clips.write_text(folder / "d.mp4")
    told: list[str] = []
    found, refused = prepare_stimuli(list_clips([str(folder)]).clips, media, tell=told.append)
    assert [(one.clip_id, one.kind) for one in found] == [("a.tiff", "image"), ("b.mp4", "video"), ("c.mkv", "video")]
    picture, played, transcoded = found
    with Image.open(picture.path) as shown:
        assert shown.format == "PNG"
        np.testing.assert_array_equal(np.asarray(shown), pixels)
    assert played.path == folder / "b.mp4"  # as it is
    info, _ = probe(str(transcoded.path))
    assert (info.codec, info.frame_count, transcoded.path.suffix) == ("h264", 10, ".mp4")
    assert told == ["transcoding c.mkv (h264 in .mkv)"]
    assert list(refused) == ["d.mp4"] and refused["d.mp4"].startswith("not_video: ")
    again, _ = prepare_stimuli(list_clips([str(folder)]).clips, media, tell=told.append)
    assert again == found and len(told) == 1
    (tmp_path / "span.csv").write_text("path,start_seconds,end_seconds\nclips/b.mp4,0,1\n")
    _, refused = prepare_stimuli(list_clips([str(tmp_path / "span.csv")]).clips, media)
    assert "only whole files on this machine are shown" in next(iter(refused.values()))
