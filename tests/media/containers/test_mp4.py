"""The index of an mp4 or mov: the same table as by demuxing."""

from pathlib import Path

import numpy as np
import pytest

from tests.support import clips
from vqa.media import probe
from vqa.media.containers.mp4 import top_boxes

FRAMES = 60
X264 = {"g": "10", "bf": "3"}
COLUMNS = ("seconds", "sizes", "is_key", "order", "is_damaged", "ticks", "starts", "jump_ticks", "is_counted")

INDEXED = {
    "plain.mp4": {"options": X264},
    "no-b.mov": {"options": {"g": "10", "bf": "0"}},
    "sound.mp4": {"options": X264, "audio": True},
    "index-in-front.mp4": {"options": X264, "container_options": {"movflags": "faststart"}},
    "negative-offsets.mp4": {"options": X264, "container_options": {"movflags": "negative_cts_offsets"}},
    "open-gop.mp4": {"options": {**X264, "x264-params": "open_gop=1"}},
    "vfr.mp4": {"options": X264, "seconds": np.cumsum(np.random.default_rng(1).uniform(0.01, 0.3, FRAMES)).tolist()},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none:keyint=10"}},
    "late.mp4": {"options": X264, "seconds": (3 + np.arange(FRAMES) / 25).tolist()},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}},
    "prores.mov": {"codec": "prores", "pixel_format": "yuv422p10le"},
}
DEMUXED = {
    # Whether two samples are the fields of one frame stands in their slice headers.
    "interlaced.mp4": {"options": {**X264, "x264-params": "interlaced=1"}},
    "fragments.mp4": {"options": X264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "plain.mkv": {"options": X264},
    "plain.ts": {"options": X264},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("files")

    def get(name: str) -> Path:
        path = folder / name
        if not path.exists():
            clips.write_video(path, **{"frames": FRAMES, **(INDEXED | DEMUXED)[name]})
        return path

    return get


@pytest.mark.parametrize("name", [*INDEXED, *DEMUXED])
def test_the_index_says_what_demuxing_says(files, name) -> None:
    path = str(files(name))
    info, table = probe(path)
    same_info, same_table = probe(path, by_index=False)
    assert info == same_info
    assert table.is_indexed == (name in INDEXED)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(table, column), getattr(same_table, column))


def test_a_cut_off_file_is_demuxed(files, tmp_path) -> None:
    cut = clips.cut_off(files("index-in-front.mp4"), 0.7, out=tmp_path / "cut.mp4")
    assert not probe(str(cut))[1].is_indexed


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_index_gives_a_table_or_the_error_of_demuxing(files, tmp_path, seed) -> None:
    path = files("index-in-front.mp4")
    data = path.read_bytes()
    share = data.index(b"mdat") / len(data)
    bad = str(
        clips.flip_bits(path, seed=seed, count=3, start_share=40 / len(data), end_share=share, out=tmp_path / "bad.mp4")
    )
    found = []
    for by_index in (True, False):
        try:
            info, table = probe(bad, by_index=by_index)
            found.append((info, table.seconds.tolist(), table.sizes.tolist()))
        except Exception as error:  # whatever it is, both ways meet it
            found.append((type(error), str(error)))
    assert found[0] == found[1]


def test_a_box_of_almost_2_to_64_bytes_ends_the_list(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=5)
    path.write_bytes(path.read_bytes() + b"\0\0\0\1free" + b"\xff" * 8)
    with path.open("rb") as file:
        assert [kind for kind, *_ in top_boxes(file)][-1] == b"free"
    assert len(probe(str(path))[1].seconds) == 5
