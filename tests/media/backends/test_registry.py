"""The same frame for the same time on every back end that loads here; the others give the reason why they do not."""

from typing import get_args

import numpy as np
import pytest

from tests.support import clips
from vqa.errors import UsageError
from vqa.media import decode, probe
from vqa.media.backends.base import BackendName, cause
from vqa.media.backends.registry import BACKENDS, DEFAULT, backend_states, unusable

REASONS = unusable()
VFR = np.cumsum(np.random.default_rng(2).uniform(0.02, 0.2, 40)).tolist()
FILES = {
    "h264.mp4": {"options": {"g": "12", "bf": "3"}},
    "vfr.mkv": {"options": {"g": "12", "bf": "2"}, "seconds": VFR},
    "late.mp4": {"options": {"g": "12", "bf": "3"}, "seconds": (2 + np.arange(40) / 25).tolist()},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none:keyint=12"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8"}},
    "rotated.mp4": {"options": {"g": "12"}, "rotation_degrees": 90},
}


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != DEFAULT])
@pytest.mark.parametrize("name", FILES)
def test_the_same_frame_for_the_same_time_and_nearly_the_same_pixels(tmp_path, name, backend) -> None:
    if REASONS[backend]:
        pytest.skip(REASONS[backend])
    path = str(clips.write_video(tmp_path / name, frames=40, **FILES[name]))
    info, table = probe(path)
    wanted = [30, 2, 17]
    ours, theirs = (
        decode(path, table.seconds[wanted], sizes=[None] * 3, backend=which, info=info, packets=table)
        for which in (DEFAULT, backend)
    )
    assert theirs.requested.tolist() == ours.requested.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(theirs.seconds, ours.seconds)
    for one, other in zip(ours.pixels, theirs.pixels, strict=True):
        upright = np.rot90(other, k=info.rotation_degrees // 90)
        assert clips.read_number(upright) == clips.read_number(np.rot90(one, k=info.rotation_degrees // 90))
        assert np.abs(one.astype(int) - other).mean() < 4


@pytest.mark.parametrize("backend", [name for name in BACKENDS if REASONS[name]])
def test_one_that_cannot_be_used_says_why_and_what_to_do(tmp_path, backend) -> None:
    path = clips.write_video(tmp_path / "v.mp4", frames=5)
    with pytest.raises(UsageError, match=f"{backend}' cannot be used: .+ use 'pyav'"):
        decode(str(path), [0.0], sizes=[None], backend=backend)


def test_each_name_that_a_config_may_give_is_a_back_end() -> None:
    assert set(BACKENDS) == set(get_args(BackendName))


def test_the_inventory_names_every_back_end_its_state_and_the_reason_for_the_default() -> None:
    found = backend_states()
    assert set(found) == set(BACKENDS)
    assert found[DEFAULT].startswith("default: ")
    for name, state in found.items():
        assert name == DEFAULT or state == (REASONS[name] or "usable")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "[01:33:53] /github/workspace/src/video/threaded_decoder.cc:292: [h264] bad packet\nStack",
            "[h264] bad packet",
        ),
        ("threaded_decoder.cc:292: no frame", "no frame"),
        ("cannot open a.cc", "cannot open a.cc"),
        ("", "RuntimeError"),
    ],
)
def test_messages_name_no_place_of_a_build(said: str, told: str) -> None:
    assert cause(RuntimeError(said)) == told
