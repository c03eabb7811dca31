"""One function of sets that do not share a scale."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from vqa.light.config import RegressionConfig
from vqa.light.embedding import SIZE
from vqa.light.regression import LabelledSet, fit_regressor

Array = NDArray[np.float64]
PLAIN = RegressionConfig(strength=1e-6, radial=0.0, emphasis={})


def drawn(seed: int, truth: Array, *, count: int, gain: float, offset: float) -> LabelledSet:
    embeddings = np.zeros((count, SIZE))
    embeddings[:, :3] = np.random.default_rng(seed).standard_normal((count, 3))
    return LabelledSet(embeddings=embeddings, labels=gain * (embeddings[:, :3] @ truth) + offset)


def test_sets_on_other_scales_agree_on_the_weights() -> None:
    truth = np.array([1.0, -2.0, 0.5])
    sets = [drawn(0, truth, count=60, gain=1.0, offset=3.0), drawn(1, truth, count=90, gain=40.0, offset=-7.0)]
    found = fit_regressor(sets, PLAIN).weights[:3]
    assert found / np.linalg.norm(found) == pytest.approx(truth / np.linalg.norm(truth), abs=5e-3)


def test_a_ladder_of_weight_zero_changes_no_order_and_a_heavy_one_wins() -> None:
    people = drawn(0, np.array([1.0, 0.0, 0.0]), count=60, gain=1.0, offset=0.0)
    other = drawn(1, np.array([0.0, 1.0, 0.0]), count=60, gain=1.0, offset=0.0)
    test = drawn(2, np.array([1.0, 0.0, 0.0]), count=50, gain=1.0, offset=0.0)

    def weighted(weight: float) -> Array:
        """Places of the test on the common scale."""
        ladder = LabelledSet(embeddings=other.embeddings, labels=other.labels, weight=weight)
        return fit_regressor([people, ladder], PLAIN).along(test.embeddings)

    assert spearmanr(weighted(0.0), test.labels).statistic > 0.999
    assert spearmanr(weighted(100.0), test.embeddings[:, 1]).statistic > 0.99


def test_what_bends_needs_the_radial_part() -> None:
    """What is best in the middle, as the light of a picture is, has no direction."""
    rows = drawn(0, np.zeros(3), count=400, gain=1.0, offset=0.0).embeddings
    labels = -np.abs(rows[:, 0]) + 0.2 * rows[:, 1]
    people = LabelledSet(embeddings=rows[:300], labels=labels[:300])

    def agreement(radial: float) -> float:
        config = RegressionConfig(strength=1e-7, radial=radial, emphasis={})
        return float(spearmanr(fit_regressor([people], config).along(rows[300:]), labels[300:]).statistic)

    assert agreement(0.5) > 0.95
    assert agreement(0.0) < 0.5


@pytest.mark.parametrize("radial", [0.0, 0.5])
def test_a_set_that_is_about_a_part_leaves_the_rest_to_the_others(radial: float) -> None:
    """As VMAF, which compares with an original, and says nothing of what people like in a picture itself."""
    people = drawn(0, np.array([1.0, 1.0, 0.0]), count=60, gain=1.0, offset=0.0)
    fidelity = replace(drawn(1, np.array([0.0, 1.0, 0.0]), count=300, gain=30.0, offset=50.0), weight=10.0)
    test = drawn(2, np.array([1.0, 1.0, 0.0]), count=200, gain=1.0, offset=0.0)
    config = PLAIN.model_copy(update={"radial": radial, "strength": 1e-4})

    def found(part: float, opinions: LabelledSet = people) -> Array:
        return fit_regressor([opinions, replace(fidelity, part=part)], config).along(test.embeddings)

    def agreement(places: Array, truth: Array = test.labels) -> float:
        return float(spearmanr(places, truth).statistic)

    assert agreement(found(1.0)) < 0.8
    assert agreement(found(0.5)) > 0.9
    assert agreement(found(0.1)) > 0.99
    few = replace(people, embeddings=people.embeddings[:4], labels=people.labels[:4])
    alone = fit_regressor([few], config).along(test.embeddings)
    assert agreement(found(0.5, few), test.embeddings[:, 1]) > agreement(alone, test.embeddings[:, 1])


@pytest.mark.parametrize("radial", [0.0, 0.5])
def test_of_a_group_the_order_alone_counts(radial: float) -> None:
    people = drawn(0, np.array([1.0, 0.0, 0.0]), count=60, gain=1.0, offset=0.0)
    ladder = drawn(1, np.array([1.0, 1.0, 0.0]), count=60, gain=1.0, offset=0.0)
    test = drawn(2, np.array([1.0, 0.0, 0.0]), count=50, gain=1.0, offset=0.0).embeddings
    groups = np.arange(60) % 6
    config = PLAIN.model_copy(update={"radial": radial})

    def places(groups_: NDArray[np.int64] | None, shift: Array) -> Array:
        moved = LabelledSet(embeddings=ladder.embeddings, labels=ladder.labels + shift, groups=groups_)
        return fit_regressor([people, moved], config).along(test)

    shift = np.array([0.0, 3.0, -5.0, 1.0, 40.0, 2.0])[groups]
    assert places(groups, shift) == pytest.approx(places(groups, 0 * shift), abs=1e-6)
    assert not np.allclose(places(None, shift), places(None, 0 * shift), atol=1e-2)
    halved = replace(ladder, groups=groups, apart=0.5)  # a group's mean counts for less, and still counts
    raised = replace(halved, labels=ladder.labels + shift)
    one, other = (fit_regressor([people, some], config).along(test) for some in (halved, raised))
    assert not np.allclose(one, other, atol=1e-2)
    alike = fit_regressor([people, replace(halved, apart=0.0)], config).along(test)
    assert np.ptp(alike - places(None, 0 * shift)) < 0.1, "as without groups, but for the median distance"
    same = places(np.repeat(3, 60), 0 * shift) - places(None, 0 * shift)
    assert np.ptp(same) < 0.1, "one group is no group, but for the median distance"
