"""The packet table against what a full decode shows, and the name of every kind of wrong file."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support import clips
from vqa.errors import ClipError
from vqa.media import probe

X265_QUIET = "log-level=none:pools=none"


def shown_times(path: Path) -> list[float]:
    """Times of all frames by a full decode, from the first one on."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def kind_of(path: Path | str, **limits: int) -> str:
    with pytest.raises(ClipError) as caught:
        probe(str(path), **limits)
    message = str(caught.value)
    assert message.startswith(str(path)), "the message names the file"
    assert message.endswith(".") and ". " in message.removeprefix(str(path)), "a second sentence names a way out"
    return caught.value.kind


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3", "g": "12"}),
        ("b.mkv", "libx264", {"bf": "3", "g": "12"}),
        ("open.ts", "libx264", {"bf": "3", "g": "12", "x264-params": "open_gop=1"}),
        ("h.mp4", "libx265", {"x265-params": f"{X265_QUIET}:bframes=4:keyint=12"}),
        ("v.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
        ("m.mpg", "mpeg2video", {"bf": "2"}),
    ],
)
def test_times_are_those_that_a_full_decode_shows(tmp_path, name, codec, options) -> None:
    path = clips.write_video(tmp_path / name, codec=codec, frames=30, options=options)
    info, table = probe(str(path))
    assert table.seconds == pytest.approx(shown_times(path), abs=1e-9)
    assert (info.frame_count, len(table.sizes), len(table.is_key)) == (30, 30, 30)
    assert info.fps == pytest.approx(25.0, rel=1e-3)
    assert info.duration_seconds == pytest.approx(1.2, abs=2e-3)
    assert table.is_key[0]
    assert table.is_key.sum() >= 3 or codec == "mpeg2video"
    assert 0 < table.sizes.sum() <= path.stat().st_size


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate_times_are_exact_and_start_at_zero(tmp_path, suffix) -> None:
    seconds = [1.5, 1.51, 1.9, 2.0, 2.5, 2.52, 3.7]
    path = clips.write_video(tmp_path / f"v{suffix}", seconds=seconds, options={"bf": "2"})
    info, table = probe(str(path))
    assert table.seconds == pytest.approx(np.array(seconds) - 1.5, abs=1e-3)
    assert info.fps == pytest.approx(6 / 2.2, rel=1e-3)


def test_keyframes_cost_more_bytes_and_stand_where_the_encoder_put_them(tmp_path) -> None:
    path = clips.write_video(tmp_path / "k.mp4", frames=40, options={"g": "10", "sc_threshold": "0", "bf": "0"})
    _, table = probe(str(path))
    assert np.flatnonzero(table.is_key).tolist() == [0, 10, 20, 30]
    assert table.sizes[table.is_key].min() > table.sizes[~table.is_key].max()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sizes_are_as_shown_after_rotation(tmp_path, degrees, suffix) -> None:
    path = clips.write_video(tmp_path / f"r{suffix}", width=160, height=96, frames=2, rotation_degrees=degrees)
    info, _ = probe(str(path))
    assert info.rotation_degrees == degrees
    assert (info.width, info.height) == ((96, 160) if degrees in (90, 270) else (160, 96))


def test_sound_beside_the_video_changes_nothing(tmp_path) -> None:
    silent, _ = probe(str(clips.write_video(tmp_path / "silent.mp4", frames=25)))
    loud, table = probe(str(clips.write_video(tmp_path / "loud.mp4", frames=25, audio=True)))
    assert (loud.frame_count, loud.fps, loud.width) == (silent.frame_count, silent.fps, silent.width)
    assert len(table.seconds) == 25


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif"])
def test_a_still_picture_is_a_clip_of_one_frame(tmp_path, suffix) -> None:
    info, table = probe(str(clips.write_image(tmp_path / f"i{suffix}", width=150, height=97)))
    assert info.is_image
    assert (info.width, info.height, info.frame_count) == (150, 97, 1)
    assert (info.fps, info.duration_seconds) == (0.0, 0.0)
    assert table.seconds.tolist() == [0.0]


def test_a_video_of_one_frame_is_not_a_picture(tmp_path) -> None:
    info, _ = probe(str(clips.write_video(tmp_path / "one.mp4", frames=1)))
    assert not info.is_image
    assert info.frame_count == 1


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_are_clips_with_times_of_their_own(tmp_path, suffix) -> None:
    path = clips.write_animation(tmp_path / f"a{suffix}", frames=5, durations_ms=[40, 200, 40, 80, 120])
    info, table = probe(str(path))
    assert not info.is_image
    assert table.seconds == pytest.approx([0.0, 0.04, 0.24, 0.28, 0.36])
    assert info.duration_seconds == pytest.approx(0.48)
    assert (table.sizes > 0).all()


def test_frames_cut_off_an_mp4_stay_in_the_table_as_damaged(tmp_path) -> None:
    whole = clips.write_video(tmp_path / "whole.mp4", frames=50, container_options={"movflags": "faststart"})
    cut = clips.cut_off(whole, 0.6, out=tmp_path / "cut.mp4")
    (info, table), (whole_info, whole_table) = probe(str(cut)), probe(str(whole))
    assert info.frame_count == whole_info.frame_count == 50
    assert info.duration_seconds == pytest.approx(whole_info.duration_seconds, abs=0.1)
    assert not whole_table.is_damaged.any()
    assert 5 < table.is_damaged.sum() < 45
    assert (np.diff(table.seconds) >= 0).all()
    intact = ~table.is_damaged
    assert np.isin(table.seconds[intact], whole_table.seconds).all()


@pytest.mark.parametrize(
    "name", ["a file.mp4", "line\nbreak.mp4", "quote'\".mp4", "smile 😀.mp4", "%41.mp4", "a%d.mp4"]
)
def test_any_name_is_only_a_name(tmp_path, name) -> None:
    source = clips.write_video(tmp_path / "plain.mp4", frames=3)
    path = tmp_path / name
    shutil.copy(source, path)
    assert probe(str(path))[0].frame_count == 3
    assert probe(path.as_uri())[0].frame_count == 3


def test_a_name_that_is_not_unicode_can_be_given_as_a_url(tmp_path) -> None:
    source = clips.write_video(tmp_path / "plain.mp4", frames=3)
    shutil.copy(source, tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert probe(f"{tmp_path.as_uri()}/caf%E9.mp4")[0].frame_count == 3


def test_links_are_followed(tmp_path) -> None:
    (tmp_path / "link.mp4").symlink_to(clips.write_video(tmp_path / "target.mp4", frames=3))
    assert probe(str(tmp_path / "link.mp4"))[0].frame_count == 3


# --- wrong files ----------------------------------------------------------------------------------------------------


def test_missing_files_are_not_found(tmp_path) -> None:
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "file").write_text("")
    assert kind_of(tmp_path / "missing.mp4") == "not_found"
    assert kind_of(tmp_path / "dangling.mp4") == "not_found"
    assert kind_of(tmp_path / "file" / "below.mp4") == "not_found"
    assert kind_of(tmp_path / ("x" * 300)) == "not_found"
    with pytest.raises(ClipError) as caught:
        probe("nul\0.mp4")
    assert caught.value.kind == "not_found"


def test_what_is_no_regular_file_is_not_readable_and_never_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.mp4"))
        assert kind_of(tmp_path / "socket.mp4") == "not_readable"
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    for name in ("pipe.mp4", "loop.mp4", ""):
        assert kind_of(tmp_path / name) == "not_readable"
    assert kind_of("/dev/zero") == "not_readable"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_is_not_readable(tmp_path) -> None:
    path = clips.write_video(tmp_path / "secret.mp4", frames=2)
    path.chmod(0)
    assert kind_of(path) == "not_readable"


def test_files_that_are_something_else_are_not_video(tmp_path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    (tmp_path / "terminal.mp4").write_text("\x1b[31mred\x1b[0m\n" * 500)
    (tmp_path / "subtitles.mkv").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    for path in (clips.write_text(tmp_path / "text.mp4"), *tmp_path.glob("*")):
        assert kind_of(path) == "not_video"


@pytest.mark.parametrize("name", ["sound.m4a", "sound.mp3"])
def test_sound_only_is_not_video(tmp_path, name) -> None:
    assert kind_of(clips.write_audio(tmp_path / name)) == "not_video"


def test_cover_art_is_not_video(tmp_path) -> None:
    with pytest.raises(ClipError, match="cover art") as caught:
        probe(str(clips.write_audio(tmp_path / "song.mp3", cover=True)))
    assert caught.value.kind == "not_video"


def test_playlists_open_no_other_file(tmp_path) -> None:
    target = clips.write_video(tmp_path / "target.mp4", frames=3)
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"ffconcat version 1.0\nfile '{target}'\n",
        "list.mpd": f'<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>',
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        assert kind_of(tmp_path / name) == "not_video"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_files_without_a_frame_are_no_frames(tmp_path, suffix) -> None:
    (tmp_path / "empty.mp4").touch()
    assert kind_of(tmp_path / "empty.mp4") == "no_frames"
    assert kind_of(clips.write_header_only(tmp_path / f"header{suffix}")) == "no_frames"


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 0.5), ("a.mkv", 0.002), ("a.webm", 0.002), ("a.png", 0.0006)])
def test_a_known_format_with_a_broken_header_is_corrupt_or_has_no_frames(tmp_path, name, share) -> None:
    if name.endswith(".png"):
        path = clips.write_image(tmp_path / name)
    else:
        path = clips.write_video(tmp_path / name, codec="libvpx-vp9" if name.endswith("webm") else "libx264", frames=20)
    assert kind_of(clips.cut_off(path, share)) in ("corrupt", "no_frames")


def test_an_mp4_without_its_index_is_corrupt(tmp_path) -> None:
    assert kind_of(clips.cut_off(clips.write_video(tmp_path / "cut.mp4"), 0.7)) == "corrupt"


def test_an_unknown_codec_is_unsupported(tmp_path) -> None:
    path = clips.rename_codec(clips.write_video(tmp_path / "odd.mp4", frames=3))
    assert kind_of(path) == "unsupported"
    assert kind_of("gs://bucket/key.mp4") == "unsupported"


def test_limits_on_pixels_and_frames_are_kept(tmp_path) -> None:
    path = clips.write_video(tmp_path / "big.mp4", width=160, height=96, frames=20)
    assert kind_of(path, max_pixels=160 * 96 - 1) == "too_large"
    assert kind_of(path, max_frames=19) == "too_large"
    assert probe(str(path), max_pixels=160 * 96, max_frames=20)[0].frame_count == 20
    webp = clips.write_image(tmp_path / "big.webp")
    assert kind_of(webp, max_pixels=160 * 96 - 1) == "too_large"


def test_wrong_files_are_named_in_silence(tmp_path, capfd) -> None:
    kind_of(clips.cut_off(clips.write_video(tmp_path / "cut.mp4"), 0.7))
    kind_of(clips.write_text(tmp_path / "text.mp4"))
    capture = capfd.readouterr()
    assert (capture.out, capture.err) == ("", "")


def test_the_log_level_that_a_program_sets_for_ffmpeg_stays(tmp_path) -> None:
    path = clips.write_video(tmp_path / "a.mp4", frames=3)
    code = (
        "import sys, av; av.logging.set_level(av.logging.ERROR); from vqa.media import decode, probe; "
        "decode(sys.argv[1], [0.0], sizes=[None]); print(av.logging.get_level() == av.logging.ERROR)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_bit_flips_anywhere_end_in_a_table_or_a_clip_error(tmp_path) -> None:
    for name, codec in [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]:
        path = clips.write_video(tmp_path / name, codec=codec, frames=20)
        for seed in range(10):
            bad = clips.flip_bits(path, seed=seed, count=40, start_share=0.0, out=tmp_path / f"bad-{name}")
            try:
                info, table = probe(str(bad))
            except ClipError:
                continue
            assert info.frame_count == len(table.seconds) >= 1
            assert table.seconds[0] == 0.0
            assert (np.diff(table.seconds) >= 0).all()
