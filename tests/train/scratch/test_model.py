"""The model made from nothing starts on cosines, and a ladder's answers state facts."""

from pathlib import Path

import numpy as np

from vqa.data.synthetic.ladder import read_ladder
from vqa.prompt import dimensions, parse
from vqa.train.clips.dataset import list_training_clips, load_clips
from vqa.train.clips.ladder import NAMES, ladder_answer
from vqa.train.scratch.model import cosine_patches
from vqa.views import ViewsConfig


def test_cosine_patches_are_orthogonal_and_equally_long() -> None:
    filters = cosine_patches(96).reshape(96, -1)
    norms = np.linalg.norm(filters, axis=1)
    cosines = filters @ filters.T / np.outer(norms, norms)
    grey = slice(0, 96 - 96 // 4)
    assert np.allclose(cosines[grey, grey], np.eye(grey.stop), atol=1e-5)
    assert np.allclose(norms[grey], norms[0])


def test_an_answer_states_facts_and_reads_back(ladder: Path) -> None:
    rows = read_ladder(ladder)
    assert len(rows) == 6
    for row in rows:
        text = ladder_answer(
            np.random.default_rng(0), "preresq_video", row["opinion"], row["distortions"], row["severities"]
        )
        assert parse(text, dimensions("preresq_video")) == (row["opinion"], row["opinion"])
        true = {word for name in row["distortions"] for word in NAMES[name]}
        words = {word for synonyms in NAMES.values() for word in synonyms} - true
        assert ("no damage" in text) == (not row["distortions"])
        if row["distortions"]:
            assert any(word in text for word in NAMES["noise"])
            assert not any(f" {word}" in text for word in words)


def test_damage_of_one_look_is_named_once_at_its_worst() -> None:
    said = {
        ladder_answer(np.random.default_rng(seed), "visualquality_r1", 2.0, ["x264", "av1", "noise"], [0.2, 0.9, 0.5])
        for seed in range(9)
    }
    for text in said:
        assert sum(text.count(word) for word in NAMES["x264"]) == 1 == sum(text.count(word) for word in NAMES["noise"])
        assert any(f"heavy {word}" in text for word in NAMES["av1"]) and "slight" not in text


def test_later_looks_show_other_numbers_of_pictures(ladder: Path) -> None:
    settings = ViewsConfig(keyframes=4, global_pixels=128, local_pictures=6, crop_pixels=32)
    clips = list_training_clips([str(ladder)])

    def shown() -> list[tuple[int, int]]:
        found = [one.views() for one in load_clips(clips, views=settings, seed=0, views_per_clip=4)]
        return [(len(views.local_pictures), views.global_pictures[0].shape[1]) for views in found]

    first, later = shown()[: len(clips)], shown()[len(clips) :]
    assert len(later) == 3 * len(clips)
    assert {count for count, _ in first} == {6}
    assert {count for count, _ in later} <= set(range(1, 7)) and len({count for count, _ in later}) > 2
    assert len({width for _, width in later}) > len({width for _, width in first})
    assert shown() == first + later


def test_grades_follow_the_opinion_scale() -> None:
    for opinion, grade in [
        (1.0, "bad"),
        (1.49, "bad"),
        (1.5, "poor"),
        (3.0, "fair"),
        (4.49, "good"),
        (5.0, "excellent"),
    ]:
        assert grade in ladder_answer(np.random.default_rng(0), "preresq_video", opinion, (), ())
