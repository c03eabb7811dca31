"""A freeze is counted in the global frames, and told to the model."""

import json
from dataclasses import replace

import pytest

from tests.support import clips
from vqa.data.view_cache import pack, unpack
from vqa.prompt import Layout, messages
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look


def see(path, **keys) -> Views:
    return look(Clip(clip_id=path.name, uri=str(path)), ViewsConfig(temporal="uniform", global_pixels=224, **keys))


@pytest.mark.parametrize("kind", ["mosaic", "frames"])
@pytest.mark.parametrize(("name", "repeats"), [("moving", 0), ("frozen", 5), ("still", None)])
def test_frames_that_repeat_the_one_before_are_counted_where_asked_for(freezing, kind, name, repeats):
    """Sixteen of 32 frames are shown; 6 of them lie in the freeze. What never moves is a still, not a freeze."""
    assert see(freezing[name], global_kind=kind, count_repeats=True).told_repeats == repeats
    assert see(freezing[name], global_kind=kind).told_repeats is None


def test_the_count_outlives_preparation_and_is_told_behind_the_global_picture(freezing):
    views = see(freezing["frozen"], count_repeats=True, local_pictures=1)
    kept = unpack(pack(views), views.clip)
    assert kept.told_repeats == 5
    (turn,) = messages("preresq_video", **kept.counts)
    assert [part.get("text", "") for part in turn["content"]][:4] == [
        "Global multiframe picture:",
        "",
        "5 of its frames repeat the one before.",
        "Local single frame picture 1:",
    ]
    (none,) = messages("preresq_video", **see(freezing["moving"], count_repeats=True, local_pictures=1).counts)
    assert none["content"][2]["text"] == "Its frames differ."
    (plain,) = messages("preresq_video", **see(freezing["moving"], local_pictures=1).counts)
    assert plain["content"] == [part for part in turn["content"] if "repeat" not in part.get("text", "")]


def test_of_a_single_picture_nothing_is_told(tmp_path):
    views = see(clips.write_image(tmp_path / "still.png"), count_repeats=True, local_pictures=1)
    assert views.told_repeats is None
    (turn,) = messages("preresq_video", **views.counts)
    assert "repeat" not in str(turn["content"])


def test_views_that_an_earlier_version_packed_are_asked_about_as_then(freezing):
    views = see(freezing["moving"], count_repeats=True)
    facts = json.loads(pack(views).facts)
    del facts["told_repeats"]
    for before, now in ((0, None), (5, 5)):
        old = replace(pack(views), facts=json.dumps(facts | {"repeats": before}))
        assert unpack(old, views.clip).told_repeats == now


def test_separate_pictures_are_not_called_frames_of_one(freezing):
    views = see(freezing["frozen"], global_kind="frames", count_repeats=True, local_pictures=1)
    (turn,) = messages("preresq_video", **views.counts)
    (told,) = [place for place, part in enumerate(turn["content"]) if "repeat" in part.get("text", "")]
    assert turn["content"][told]["text"] == "5 of these pictures repeat the one before."
    assert turn["content"][told - 2]["text"] == f"Global picture {len(views.global_pictures)}:"
    (film,) = messages("preresq_video", Layout(is_video=True), **views.counts)
    assert "5 of its frames repeat the one before." in [part.get("text") for part in film["content"]]


def test_the_setting_is_in_the_key_and_keys_without_it_stay():
    assert "count_repeats" not in ViewsConfig().identity()
    assert ViewsConfig(count_repeats=True).identity()["count_repeats"] is True
