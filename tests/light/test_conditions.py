"""Other contents, coded as those of a test with people and labelled by the mean opinion of that."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import clips
from vqa.data.people import CodedColumns, Opinion, PeopleSet
from vqa.errors import UsageError
from vqa.light.conditions import ConditionCurve, ConditionsConfig, coded_alike
from vqa.light.config import DistillConfig
from vqa.light.embedding import SIZE
from vqa.light.material import PACKAGE, Embeddings, conditions
from vqa.types import Pixels

LADDER = [(48, 10), (64, 30), (96, 20), (128, 45), (200, 10)]


def drawn(side: int, *, seed: int = 0, count: int = 9) -> list[tuple[tuple[int, int], Pixels]]:
    """A square picture under conditions of LADDER."""
    picture = Image.fromarray(clips.picture(0, width=side + 32, height=side, seed=3, noise=20.0))
    generator = np.random.default_rng(seed)
    return list(coded_alike(picture, LADDER, count=count, shown_size=(160, 160), generator=generator))


def test_the_curve_gives_back_a_smooth_function_of_height_and_crf() -> None:
    generator = np.random.default_rng(0)
    known = np.stack([generator.uniform(144, 896, 200), generator.uniform(3, 45, 200)], axis=1)

    def opinion(at: np.ndarray) -> np.ndarray:
        return 3 + np.log(at[:, 0] / 400) - 0.02 * (at[:, 1] - 20) - 0.3 * np.log(at[:, 0] / 400) * (at[:, 1] / 20 - 1)

    curve = ConditionCurve.fit(known, opinion(known) + 0.01 * generator.standard_normal(200))
    asked = np.array([[200.0, 10.0], [600.0, 8.0], [300.0, 35.0]])
    assert curve.at(asked) == pytest.approx(opinion(asked), abs=0.02)


def test_pictures_are_seen_at_the_shown_size_and_never_coded_larger_than_they_are() -> None:
    made = drawn(128)
    assert sorted(height for (height, _), _ in made) == [48, 64, 96]  # 128 * 1.15 is more than the picture has
    assert {pixels.shape for _, pixels in made} == {(160, 160, 3)}
    assert all(abs(crf - dict(LADDER)[height]) <= 2 for (height, crf), _ in made)
    assert not drawn(50)


def test_a_smaller_coded_picture_has_less_detail() -> None:
    detail = {height: float(np.abs(np.diff(pixels.astype(float), axis=1)).mean()) for (height, _), pixels in drawn(256)}
    assert detail[200] > detail[96] > detail[48]


def test_the_same_seed_gives_the_same_pictures() -> None:
    first, again, other = drawn(256, seed=1, count=2), drawn(256, seed=1, count=2), drawn(256, seed=2, count=2)
    assert all(a[0] == b[0] and (a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert [one[0] for one in first] != [one[0] for one in other]


def test_other_contents_take_the_mean_opinion_of_their_condition(tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    (tmp_path / "photographs").mkdir()
    for n, side in enumerate((96, 128, 30)):  # the last is too small
        clips.write_image(tmp_path / f"photographs/{n}.png", width=side, height=side, seed=n)
    settings = ConditionsConfig(sources=[tmp_path / "photographs"], each=2)
    config = DistillConfig.model_validate(
        {"folder": tmp_path, "cache": tmp_path / "cache", "opinions": [{"people": "pcuid"}]}
    )
    people = PeopleSet(
        name="tiny", table="t.csv", picture="file", opinion="mos", low=1, high=5, group="source", shown_size=(128, 128),
        coded=CodedColumns(height="height", crf="crf"), expected=24, terms="mine", test_fold=0, modulo=2,
    )  # fmt: skip
    opinions = [
        Opinion(path=tmp_path, opinion=1.0 + height / 40, group=str(n), fold=0, shown_size=None, coded=(height, crf))
        for n, (height, crf) in enumerate((height, crf) for height in (32, 48, 64, 80) for crf in range(10, 40, 5))
    ]
    embeddings = Embeddings(config)
    coded = conditions(people, opinions, settings, embeddings, lambda _: None)
    assert coded.embeddings.shape == (4, SIZE)
    means = coded.labelled(opinions, np.array([one.opinion for one in opinions]))
    assert means == pytest.approx(1 + coded.conditions[:, 0] / 40, abs=0.05)
    with pytest.raises(UsageError, match="20 pictures with opinions; it has 19"):
        conditions(people, opinions[:19], settings, embeddings, lambda _: None)
    with pytest.raises(UsageError, match="tiny: conditions need the set's `coded`"):
        conditions(people.model_copy(update={"coded": None}), opinions, settings, embeddings, lambda _: None)
