"""The ladder: contents stay together, the same seed makes the same bytes, VMAF falls with harm."""

import contextlib
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vqa.data.sources import Selection
from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import CODECS, encode_video, vmaf, without_realtime
from vqa.data.synthetic.ladder import WEIGHTS, find_contents, plan_ladder, sample_distortions, synthesise
from vqa.data.synthetic.sources import read_pristine
from vqa.errors import UsageError


def texture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return np.clip(smooth + generator.integers(-12, 13, (height, width, 1)), 0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "Flow" / "images").mkdir(parents=True)
    for index, name in enumerate(["a", "b-1", "b-2", "Flow/images/600x400", "Flow/images/640x420"]):
        Image.fromarray(texture(400, 640, seed=index)).save(folder / f"{name}.png")
    Image.fromarray(texture(64, 64)).save(folder / "thumbnail.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def moving(count: int = 12) -> np.ndarray:
    wide = texture(96, 160)
    return np.stack([np.roll(wide, 2 * step, axis=1) for step in range(count)])


def test_versions_of_a_picture_are_one_content_and_thumbnails_none(photographs: Path) -> None:
    contents = find_contents([photographs])
    assert {name: len(paths) for name, paths in contents.items()} == {"Flow": 2, "a": 1, "b": 2}
    assert set(find_contents([photographs], selection=Selection(exclude=("Flow", "b*")))) == {"a"}


def test_a_missing_source_is_named_and_nothing_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"nowhere.*does not exist"):
        list(synthesise([tmp_path / "nowhere"], out=out, clips_per_content=1, seed=0, workers=1))
    assert not out.exists()


def test_splits_go_by_content_and_rounds_come_first() -> None:
    contents = {f"c{index:02d}": (Path(f"c{index}.png"),) for index in range(20)}
    rungs = plan_ladder(contents, clips_per_content=3, seed=5)
    assert len({rung.clip_id for rung in rungs}) == len(rungs) == 60
    assert {rung.content_id for rung in rungs[:20]} == set(contents)
    splits = {rung.content_id: {r.split for r in rungs if r.content_id == rung.content_id} for rung in rungs}
    assert all(len(names) == 1 for names in splits.values())
    counts = [sum(names == {split} for names in splits.values()) for split in ("test", "validation", "train")]
    assert counts == [4, 2, 14]
    assert (
        rungs
        == plan_ladder(contents, clips_per_content=3, seed=5)
        != plan_ladder(contents, clips_per_content=3, seed=6)
    )
    assert {rung.split for rung in plan_ladder(contents, clips_per_content=3, seed=5, split="train")} == {"train"}


@pytest.mark.parametrize("name", sorted(DISTORTIONS))
def test_a_distortion_keeps_shape_repeats_by_seed_and_leaves_its_input(name: str) -> None:
    frames = moving()
    before = frames.copy()
    first, again = (DISTORTIONS[name](frames, 0.7, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == frames.shape
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (frames == before).all()
    assert (first != frames).any()


@pytest.mark.parametrize("name", ["scaling", "defocus", "motion_blur", "noise", "contrast", "banding"])
def test_more_severity_is_more_harm(name: str) -> None:
    frames = moving().astype(np.int16)
    mild, strong = (
        np.abs(DISTORTIONS[name](moving(), severity, np.random.default_rng(1)).astype(np.int16) - frames).mean()
        for severity in (0.1, 0.9)
    )
    assert strong > mild > 0


@pytest.mark.parametrize("seed", range(3))
def test_rate_switches_alternate_in_fidelity_and_harm_more_with_severity(seed: int) -> None:
    frames = moving(24)
    lost = []
    for severity in (0.1, 0.5, 0.9):
        coded = DISTORTIONS["rate_switches"](frames, severity, np.random.default_rng(seed))
        errors = ((coded.astype(np.float64) - frames) ** 2).mean((1, 2, 3))
        psnr = 10 * np.log10(255**2 / errors)
        is_bad = psnr < (psnr.min() + psnr.max()) / 2
        assert psnr[~is_bad].mean() - psnr[is_bad].mean() > 1.5
        runs = 1 + np.count_nonzero(np.diff(is_bad))
        assert runs in (2, 4, 6), "one to three turns, each from the one rate to the other"
        assert abs(is_bad.mean() - (0.25 + 0.5 * severity)) < 0.1
        lost.append((is_bad.mean(), -psnr[is_bad].mean(), errors.mean()))
    assert all(np.greater(later, earlier).all() for earlier, later in pairwise(lost))


def test_seeds_drew_the_same_before_there_were_rate_switches() -> None:
    now = [sample_distortions(np.random.default_rng(seed)) for seed in range(1000)]
    before = {name: weight for name, weight in WEIGHTS.items() if name != "rate_switches"} | {"x264": 3.0}
    then = [sample_distortions(np.random.default_rng(seed), weights=before) for seed in range(1000)]
    changed = [names for names, old in zip(now, then, strict=True) if names != old]
    assert 0 < len(changed) < 30
    assert sum("rate_switches" in dict(names) for names in changed) > 0.8 * len(changed)


def test_at_most_one_codec_and_it_comes_last() -> None:
    generator = np.random.default_rng(0)
    draws = [[name for name, _ in sample_distortions(generator)] for _ in range(400)]
    assert {len(names) for names in draws} >= {0, 1, 2}
    for names in draws:
        assert sum(name in CODECS for name in names) <= 1
        assert not any(name in CODECS for name in names[:-1])


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_vmaf_of_every_codec_falls_with_its_quality_number(codec: str, tmp_path: Path) -> None:
    frames = moving()
    how = CODECS[codec]
    scores = []
    for quality in (how.best, how.worst):
        path = tmp_path / f"{quality}.{how.container}"
        encode_video(frames, path, codec=codec, quality=quality)
        values = vmaf(frames, path)
        assert len(values) == len(frames)
        scores.append(np.mean(values))
    assert scores[0] > scores[1] + 1


def policies(process: psutil.Process) -> set[int]:
    """The scheduling policies of its threads."""
    return {os.sched_getscheduler(thread.id) for thread in process.threads()}


@pytest.mark.skipif(sys.platform != "linux", reason="the policies of Linux")
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_no_thread_of_an_encoder_is_real_time(codec: str, tmp_path: Path) -> None:
    # SVT-AV1 run by root makes its threads so, and the one that calls it.
    frames = np.concatenate([moving(48)] * 4)
    suffix = CODECS[codec].container
    work = threading.Thread(target=lambda: encode_video(frames, tmp_path / f"a.{suffix}", codec=codec, quality=32))
    threads, seen = 0, policies(psutil.Process())
    work.start()
    while work.is_alive():
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                threads = max(threads, child.num_threads())
                seen |= policies(child)
    work.join()
    assert threads >= 5, "FFmpeg's own and the encoder's"
    assert seen | policies(psutil.Process()) == {os.SCHED_OTHER}


@pytest.mark.skipif(sys.platform != "linux", reason="the policies of Linux")
def test_a_command_without_realtime_cannot_have_it_and_is_otherwise_itself(tmp_path: Path) -> None:
    ask = "import os, sys; print(sys.argv[1:]); os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))"
    command = without_realtime([sys.executable, "-c", ask, "a b", "-I"])
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "['a b', '-I']\n")
    assert "PermissionError" in done.stderr


def test_frames_are_paired_by_number(tmp_path: Path) -> None:
    # A wrong pairing (by clocks of two containers) once gave 4 where 90 was right.
    frames = moving(24)
    encode_video(frames, tmp_path / "a.mp4", codec="x264", quality=5)
    assert np.mean(vmaf(frames, tmp_path / "a.mp4")) > 90


def test_a_pan_over_a_photograph_moves_and_has_even_sides(photographs: Path) -> None:
    clip = read_pristine(photographs / "a.png", np.random.default_rng(2))
    count, height, width, _ = clip.shape
    assert (count, height % 2, width % 2) == (48, 0, 0)
    assert (clip[0] != clip[-1]).any()


@pytest.mark.slow
def test_ladder_resumes_and_repeats(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ladder"
    arguments = {"clips_per_content": 1, "seed": 3, "workers": 1}
    assert [done for done, _, _ in synthesise([photographs], out=out, **arguments)] == [1, 2, 3]
    table = pq.read_table(out / "ladder.parquet")
    assert table.num_rows == 3
    assert all(1 <= opinion <= 5 for opinion in table["opinion"].to_pylist())
    kept, removed = sorted((out / "labels").iterdir())[:2]
    stamp, content = kept.stat().st_mtime_ns, removed.read_bytes()
    clip = out / table["uri"].to_pylist()[1]
    pixels = clip.read_bytes()
    removed.unlink()
    list(synthesise([photographs], out=out, **arguments))
    assert kept.stat().st_mtime_ns == stamp
    assert removed.read_bytes() == content
    assert clip.read_bytes() == pixels
    assert pq.read_table(out / "ladder.parquet").equals(table)
