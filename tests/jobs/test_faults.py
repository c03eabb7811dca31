"""Files that went wrong in the field, through one real job: every row of tests/faults/cases.csv."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from jobs.request import ScoreRequest
from jobs.score import score
from vqa.console import Engine
from vqa.data.dialects import Row
from vqa.data.score_table import read_scores
from vqa.media import decode, probe

FAULTS = Path(__file__).parents[1] / "faults"
CASES = [case["file"] for case in csv.DictReader((FAULTS / "cases.csv").open())]
ALIKE = 0.15  # points that two pictures of the same looks may differ by


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Rows by name, whole files and windows of 10 s of the two recordings with pauses."""
    out = tmp_path_factory.mktemp("faults")
    paused = ("busy.mp4", "sr.mp4")
    for part, names, seconds in (("whole", CASES, None), ("cut", paused, 10.0)):
        sources = tuple(str(FAULTS / name) for name in names)
        options = {"engine": Engine.LOCAL, "max_failed": "100%", "clip_seconds": seconds, "k": 1}
        assert score(ScoreRequest(sources=sources, out=out / part, model="embedded", **options)) == 0
    rows = [row for part in ("whole", "cut") for row in read_scores(out / part).to_pylist()]
    return {row["clip_id"].rpartition("/")[2]: row for row in rows}


def number_of(pixels: np.ndarray) -> int:
    """The frame number in the twelve bars along the top edge."""
    height, width = pixels.shape[:2]
    centres = ((np.arange(12) + 0.5) * width / 12).astype(int)
    bars = pixels[int(height / 12)][centres].mean(axis=-1) > 128
    return int("".join("01"[int(bar)] for bar in bars), 2)


def numbers(name: str) -> list[int]:
    """The numbers in all frames of a file that can be decoded, in order of time."""
    _, table = probe(str(FAULTS / name))
    frames = decode(str(FAULTS / name), table.seconds, sizes=[None] * len(table.seconds))
    return [number_of(pixels) for pixels in frames.pixels]


@pytest.mark.slow  # with `scored`
def test_every_case_has_a_row(scored: dict[str, Row]) -> None:
    assert set(CASES) <= set(scored) and len(CASES) == 23


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("grid.avif", (1024, 768)),
        ("iphone_grid_irot.heic", (740, 1000)),
        ("pixelcrop.mkv", (320, 180)),
        ("clap.mp4", (320, 180)),
    ],
)
def test_what_is_meant_to_be_seen_is_the_size(scored: dict[str, Row], name: str, size: tuple[int, int]) -> None:
    assert (scored[name]["status"], scored[name]["width"], scored[name]["height"]) == ("ok", *size)


@pytest.mark.parametrize("name", ["pixelcrop.mkv", "clap.mp4"])
def test_no_green_row_is_shown(name: str) -> None:
    pixels = decode(str(FAULTS / name), [0.0], sizes=[None]).pixels[0].astype(int)
    greenness = pixels[..., 1] - pixels[..., ::2].max(axis=-1)
    assert greenness[-8:].mean() < 40  # the hidden rows are pure green


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize("suffix", ["png", "webp", "_vp9.webm"])
def test_what_is_hidden_under_alpha_moves_no_score(scored: dict[str, Row], suffix: str) -> None:
    dot = "" if suffix.startswith("_") else "."
    noise, flat = (scored[f"{name}{dot}{suffix}"] for name in ("noise", "flat"))
    assert noise["status"] == flat["status"] == "ok"
    seen = [decode(str(FAULTS / f"{name}{dot}{suffix}"), [0.0], sizes=[None]).pixels[0] for name in ("noise", "flat")]
    difference = np.abs(seen[0].astype(int) - seen[1])
    assert difference.max() == 0 if "webm" not in suffix else difference.mean() < 2  # what VP9 loses at the edge
    assert (seen[0][:8, :8] > 250).all()  # on white
    assert abs(noise["score"] - flat["score"]) < ALIKE


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize("name", ["r_cenc_hevc.mp4", "e_h264.mp4"])
def test_encrypted_is_said(scored: dict[str, Row], name: str) -> None:
    row = scored[name]
    assert (row["status"], row["error_kind"], row["score"]) == ("failed", "unsupported", None)
    assert "encrypted" in row["error"]


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize("name", ["paff_field.ts", "paff_pair.ts"])
def test_fields_make_frames(scored: dict[str, Row], name: str) -> None:
    row = scored[name]
    assert (row["status"], row["frames_decoded"], row["frames_planned"]) == ("ok", 16, 16)
    assert (row["fps"], row["duration_seconds"]) == (pytest.approx(25), pytest.approx(2.0))
    assert numbers(name) == list(range(50))


@pytest.mark.slow  # with `scored`
def test_a_pause_shows_the_picture_on_screen(scored: dict[str, Row]) -> None:
    windows = {name: row for name, row in scored.items() if name.startswith("busy.mp4#")}
    assert [row["status"] for row in windows.values()] == ["ok"] * 5
    for start in (10, 20, 30):
        assert windows[f"busy.mp4#t={start},{start + 10}"]["keyframe_seconds"] == [pytest.approx(4.967, abs=0.001)]
    for row in windows.values():
        assert max(row["keyframe_seconds"]) < row["end_seconds"]
    few = [row for name, row in scored.items() if name.startswith("sr.mp4#")]
    assert len(few) == 6 and {row["status"] for row in few} == {"ok"}
    assert scored["sr.mp4"]["duration_seconds"] == pytest.approx(58.04)


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize("name", ["mpeg4_cut10.avi", "o_wmv2_cut10.wmv", "o_libvpxvp9_cut10.webm"])
def test_what_lies_before_the_first_keyframe_is_lost(scored: dict[str, Row], name: str) -> None:
    row = scored[name]
    assert row["status"] in ("partial", "failed") and row["frames_decoded"] < row["frames_planned"] == 16
    assert numbers(name)[0] == 50 and numbers(name) == sorted(numbers(name))


def test_vp9_goes_on_at_the_next_keyframe_whatever_is_asked() -> None:
    name = "o_libvpxvp9_cut10.webm"
    assert numbers(name) == list(range(50, 100))
    _, table = probe(str(FAULTS / name))
    frames = decode(str(FAULTS / name), table.seconds[[0, 45, 60]], sizes=[None] * 3)
    assert [number_of(pixels) for pixels in frames.pixels] == [55, 70]


@pytest.mark.slow  # with `scored`
@pytest.mark.parametrize("name", ["seq.avif", "nodur.gif"])
def test_every_frame_of_an_animation_counts(scored: dict[str, Row], name: str) -> None:
    row = scored[name]
    assert (row["status"], row["frames_decoded"]) == ("ok", 10)
    assert (row["fps"], row["duration_seconds"]) == (pytest.approx(10), pytest.approx(1.0))
    assert numbers(name) == list(range(1, 11))


@pytest.mark.slow  # with `scored`
def test_a_clock_that_jumps_is_a_new_clock(scored: dict[str, Row]) -> None:
    row = scored["j_far.ts"]
    assert (row["status"], row["frames_decoded"], row["duration_seconds"]) == ("ok", 16, pytest.approx(6.0))
    before = sum(second < 3 for second in row["keyframe_seconds"])
    assert 6 <= before <= 10


@pytest.mark.slow  # with `scored`
def test_a_block_of_no_track_is_lost_with_what_follows_it(scored: dict[str, Row]) -> None:
    row = scored["v_track20.webm"]
    assert row["status"] == "partial" and row["frames_decoded"] < row["frames_planned"] == 16
    _, table = probe(str(FAULTS / "v_track20.webm"))
    assert (len(table.seconds), table.is_damaged.sum()) == (150, 30)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("name", ["paff_field.ts", "paff_pair.ts"])
def test_fields_make_frames_in_every_container(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(FAULTS / name)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        clock = 0
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, clock, clock
                clock += 1800  # a field
                target.mux(packet)
    info, table = probe(str(path))
    assert (len(table.seconds), info.fps) == (50, pytest.approx(25, rel=1e-3))
    frames = decode(str(path), table.seconds[::-7], sizes=[None] * 8)
    assert [number_of(pixels) for pixels in frames.pixels] == list(range(49, -1, -7))
