"""Mutated files: each ends in views that keep their contract or in an error that names the file; nothing else."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.fuzzing import Runner, broken, difference
from tests.support.mutations import SEEDS, mutant
from tests.support.scale import full
from tests.support.structure import packets
from tests.support.zoo_edits import zeroed
from tests.support.zoo_good import good
from vqa.media import decode, probe
from vqa.types import Clip
from vqa.views import ViewsConfig, look

COUNT = 5 * len(SEEDS)
STEP = full(1, gate=4)  # the good files take turns, and are no multiple of 4: each of them is mutated in the gate too


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("fuzz"), deadline_seconds=20) as runner:
        yield runner


def test_mutations_of_every_good_file_end_in_a_row_and_the_child_lives(runner: Runner) -> None:
    rows = [runner.row(mutant(number)) for number in range(0, COUNT, STEP)]
    assert [row for row in rows if row["outcome"] in ("fault", "crashed", "timeout") or row["is_new_child"]] == []
    found = Counter(row["outcome"] for row in rows)
    assert {"ok", "partial", "corrupt", "not_video", "no_frames"} <= set(found), found


def test_the_good_files_themselves_are_good(runner: Runner) -> None:
    for seed in SEEDS:
        row = runner.row(mutant(SEEDS.index(seed))._replace(data=good(seed)))
        assert (row["outcome"], row["difference"]) == ("ok", 0.0), seed


def test_a_mutation_is_known_by_its_number() -> None:
    assert mutant(7) == mutant(7)
    assert len({mutant(number).data for number in range(COUNT)}) > 0.9 * COUNT
    assert all(mutant(number).data != good(mutant(number).seed) for number in range(len(SEEDS)) if mutant(number).steps)


def test_what_views_promise_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(good("h264.mp4"))
    views = look(Clip(clip_id="a", uri=str(path)), ViewsConfig(keyframes=4, local_pictures=1))
    times, picture = views.keyframe_seconds, views.global_pictures[0]
    assert broken(views) is None
    assert difference(views, views) == 0
    wrong = {
        "keyframes out of order": {"keyframe_seconds": times[::-1]},
        "a keyframe twice": {"keyframe_seconds": (times[0], *times[:-1])},
        "frames": {"frames_decoded": views.frames_planned + 1},
        "too few frames": {"frames_decoded": 1},
        "no picture": {"global_pictures": (picture.astype(np.float32),)},
    }
    for name, change in wrong.items():
        assert broken(replace(views, **change)) == name


@pytest.mark.parametrize("name", ["h264.mp4", "fragments.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi", "flv1.flv"])
def test_what_a_decoder_makes_from_a_lost_frame_is_not_shown(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(good(name))
    info, table = probe(str(path))
    whole = decode(str(path), table.seconds, sizes=[None] * info.frame_count)
    for lost in packets(good(name))[1::4]:
        path.write_bytes(zeroed(good(name), lost))
        left = decode(str(path), table.seconds, sizes=[None] * info.frame_count)
        assert 0 < len(left.pixels) < info.frame_count
        for request, pixels in zip(left.requested.tolist(), left.pixels, strict=True):
            np.testing.assert_array_equal(pixels, whole.pixels[request])
