"""Each term against its formula: by hand in the comments, and against the slow loops of reward_loops.py."""

import math

import numpy as np
import pytest

from tests.support import reward_loops as slow
from vqa.rewards import format as form
from vqa.rewards import preference, regression, response, temporal

NAN = float("nan")


def batch(seed, clips=7, answers=6, numbers=2, sets=("a", "b"), lost=0.0):
    generator = np.random.default_rng(seed)
    values = generator.uniform(1, 5, (clips, answers, numbers)).round(2)
    values[generator.random((clips, answers)) < lost] = NAN
    datasets = generator.choice(sets, clips).tolist()
    opinions = generator.integers(2, 10, clips) / 2  # ties included
    peers = np.array([[a == b for b in datasets] for a in datasets]) & ~np.eye(clips, dtype=bool)
    return values, values.mean(axis=2), opinions, datasets, peers


def test_pairwise_by_hand():
    # g = 2, 4 (gap 2). Lowest answers 2.5 and 3: right order, errors 0.5 and 1, m = 2 / 3.5.
    # Highest answers 3.5 and 3.2: wrong order, errors 1.5 and 0.8, m = 2 / 4.3, pays sqrt(1 - m).
    scores, opinions, peers = np.array([[3.5, 2.5], [3.0, 3.2]]), np.array([2.0, 4.0]), ~np.eye(2, dtype=bool)
    right, wrong = math.sqrt(2 / 3.5), math.sqrt(1 - 2 / 4.3)
    np.testing.assert_allclose(preference.pairwise(scores, opinions, peers), [[wrong, right], [right, wrong]])
    strict = preference.pairwise(scores, opinions, peers, is_strict=True)
    np.testing.assert_allclose(strict, [[0, right], [right, 0]])


def test_equal_opinions_make_no_pair():
    scores, peers = np.array([[3.0, 2.0], [3.0, 4.0]]), ~np.eye(2, dtype=bool)
    assert not preference.pairwise(scores, np.array([3.0, 3.0]), peers).any()


def test_a_rank_that_no_peer_has_is_paid_as_its_group():
    # Clip 0 has two answers, clip 1 one: lowest 2 meets 4, m = 1 as both are exact. The other met nobody.
    scores = np.array([[3.0, 2.0], [NAN, 4.0]])
    paid = preference.pairwise(scores, np.array([2.0, 4.0]), ~np.eye(2, dtype=bool))
    np.testing.assert_allclose(paid, [[1.0, 1.0], [0.0, 1.0]])


def test_spread_by_hand():
    # std of (2, 3) is 0.5: nothing; of (3, 3.4) it is 0.2: 0.5 * 0.3; equal numbers pay the full 0.25.
    values = np.array([[[2.0, 3.0], [3.0, 3.4], [3.0, 3.0], [NAN, NAN]]])
    np.testing.assert_allclose(response.spread(values), [[0.0, 0.15, 0.25, 0.0]], atol=1e-12)


def test_balance_by_hand():
    # One triple, one aspect: the median gets all; 2.04 is less than 0.05 from it, 4 is not.
    values = np.array([2.0, 2.04, 4.0])[None, :, None]
    np.testing.assert_allclose(response.balance(values), [[0.5, 0.5, 0.0]])
    # Four answers 1, 2, 3, 4: each is in 3 triples; 2 and 3 are each the median of two.
    values = np.array([1.0, 2.0, 3.0, 4.0])[None, :, None]
    np.testing.assert_allclose(response.balance(values), [[0.0, 1 / 3, 1 / 3, 0.0]])
    assert not response.balance(np.array([[[2.0], [3.0], [NAN]]])).any()  # fewer than three


def test_triplet_by_hand():
    # g = 1, 3, 5 and answers 2, 4, 3: orders (0,1) and (0,2) right, (1,2) wrong; each clip has one pair of others.
    scores = np.array([[2.0], [4.0], [3.0]])
    paid = preference.triplet(scores, np.array([1.0, 3.0, 5.0]), ~np.eye(3, dtype=bool))
    np.testing.assert_allclose(paid, np.full((3, 1), 2 / 3))
    assert not preference.triplet(scores[:2], np.array([1.0, 3.0]), ~np.eye(2, dtype=bool)).any()  # B < 3


def test_fidelity_by_hand():
    # Clip means 2 and 4, unbiased variances 2 and 0: x = (1 - 4) / sqrt(2 + 1e-6) for the answer 1, and so on.
    scores, opinions = np.array([[1.0, 3.0], [4.0, 4.0]]), np.array([2.0, 4.0])
    loss = [0.5 * math.erfc(-(s - m) / math.sqrt(2.000001) / math.sqrt(2)) for s, m in ((1, 4), (3, 4), (4, 2))]
    low, high = (math.sqrt(1e-6) + math.sqrt(1 - p + 1e-6) for p in loss[:2])
    beaten = math.sqrt(loss[2] + 1e-6) + math.sqrt(1e-6)
    paid = preference.fidelity(scores, opinions, ~np.eye(2, dtype=bool))
    np.testing.assert_allclose(paid, [[low, high], [beaten, beaten]], rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_arrays_equal_the_loops(seed):
    values, scores, opinions, datasets, peers = batch(seed)
    same = {"rtol": 1e-9, "atol": 1e-9}
    paid = preference.pairwise(scores, opinions, peers)
    np.testing.assert_allclose(paid, slow.pairwise(scores, opinions, datasets), **same)
    paid = preference.pairwise(scores, opinions, peers, is_strict=True)
    np.testing.assert_allclose(paid, slow.pairwise(scores, opinions, datasets, strict=True), **same)
    np.testing.assert_allclose(response.spread(values), slow.spread(values), **same)
    np.testing.assert_allclose(regression.rank_to_truth(scores, opinions), slow.rank_to_truth(scores, opinions), **same)


@pytest.mark.parametrize("seed", range(6))
def test_arrays_equal_the_loops_with_unparsed_answers(seed):
    values, scores, opinions, datasets, peers = batch(seed, numbers=5, lost=0.3)
    same = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(response.balance(values, aspects=4), slow.balance(values, 4), **same)
    near = np.round(values * 20) / 20  # many within 0.05, and equal ones
    np.testing.assert_allclose(response.balance(near / 4), slow.balance(near / 4, 5), **same)
    paid, expected = preference.triplet(scores, opinions, peers), slow.triplet(scores, opinions, datasets)
    met = ~np.isnan(expected)
    np.testing.assert_allclose(paid[met], expected[met], **same)
    for ties_win in (False, True):
        paid = preference.fidelity(scores, opinions, peers, ties_win=ties_win)
        np.testing.assert_allclose(paid, slow.fidelity(scores, opinions, datasets, ties_win=ties_win), **same)


def test_regressions_by_hand():
    scores, opinions = np.array([[2.0, 2.35, 2.5, 4.5, NAN]]), np.array([2.0])
    np.testing.assert_allclose(regression.threshold(scores, opinions, within=0.35), [[1, 0, 0, 0, 0]])  # 0.35 is not <
    np.testing.assert_allclose(regression.threshold(scores, opinions, within=0.5, inclusive=True), [[1, 1, 1, 0, 0]])
    np.testing.assert_allclose(regression.relative(scores, opinions), [[1, 0.65, 0.5, 0, 0]])  # 25, 33.75, 37.5 of 100
    # exp(-0.3 / 0.3) would be at 2.3; here 0.35, 0.5 and 2.5.
    away = np.array([0.0, 0.35, 0.5, 2.5])
    np.testing.assert_allclose(regression.laplace(scores, opinions)[0, :4], np.exp(-away / 0.3))
    np.testing.assert_allclose(regression.gaussian(scores, opinions, sigma=0.5)[0, :4], np.exp(-2 * away**2))
    assert regression.relative(np.array([[0.0, 1.0, NAN]]), np.array([0.0])).tolist() == [[1.0, 0.0, 0.0]]
    np.testing.assert_allclose(regression.linear(scores, opinions), [[1, 1 - 0.35 / 4, 0.875, 0.375, 0]])


def test_short_decimals_are_paid_less():
    values = np.array([[[3.45], [3.4], [3.0], [NAN]]])
    assert regression.decimals(values).tolist() == [[1.0, 0.8, 0.8, 1.0]]
    assert regression.decimals(values.astype(np.float32).astype(float)).tolist() == [[1.0, 0.8, 0.8, 1.0]]


def test_rank_to_truth_by_hand():
    # 1, g=2, 3, 4 of three answers: ranks 0, 2, 3 against 1, over n + 1 = 4; equal to g is a hit.
    paid = regression.rank_to_truth(np.array([[1.0, 3.0, 4.0]]), np.array([2.0]))
    np.testing.assert_allclose(paid, [[math.exp(-1 / 4), math.exp(-1 / 4), math.exp(-2 / 4)]])
    assert regression.rank_to_truth(np.array([[2.01, NAN]]), np.array([2.0])).tolist() == [[1.0, 0.0]]


def test_damage_pays_the_class_and_then_the_severity():
    classes, severities = np.array([["blur", "blur", "noise"]]), np.array([["slight", "serious", "serious"]])
    truth = np.array(["blur"]), np.array(["serious"])
    assert regression.degradation(classes, severities, *truth).tolist() == [[0.25, 1.0, 0.0]]
    none = np.array([""]), np.array([""])
    assert not regression.degradation(np.array([["", ""]]), np.array([["", ""]]), *none).any()


def test_probability_is_paid_only_with_a_right_and_well_formed_answer():
    think, no_think = np.array([[0.9, 0.9, 0.2]]), np.array([[0.3, 0.3, 0.5]])
    np.testing.assert_allclose(regression.probability(think, no_think, np.array([[2.0, 1.0, 2.0]])), [[0.6, 0.0, 0.0]])


def test_length_band_needs_two():
    tokens = np.array([[320, 512, 513], [320, 100, 100]])
    assert form.length_band(tokens, np.full((2, 3), 0.5)).tolist() == [[0.2, 0.2, 0.0], [0.0, 0.0, 0.0]]
    assert not form.length_band(tokens, np.full((2, 3), 0.1)).any()  # only above 0.1


def test_repetition_by_hand():
    # "ok" six times: six words and, of each letter, six: 3 x 6 x 0.25 = 4.5, and five blanks are not more than five.
    texts = [["<answer>" + " ".join(["ok"] * 6) + "</answer>", "<think>ok ok</think><answer>3.25</answer>", "aaaaaa"]]
    assert form.repetition(texts).tolist() == [[-2.0, 0.0, -1.5]]


def test_temporal_contrast_needs_a_better_group():
    paid, yes = np.array([[0.95, 0.2], [0.3, 0.2]]), np.ones((2, 2), bool)
    perturbed = np.array([[0.5], [0.9]])
    bonus = temporal.order_bonus(paid, perturbed, yes, yes[:, :1], share=1.0, above=0.5)
    assert bonus.tolist() == [[0.3, 0.0], [0.0, 0.0]]
    nothing = np.zeros((2, 1), bool)
    assert not temporal.order_bonus(
        paid, perturbed, yes, nothing, share=1.0, above=0.5
    ).any()  # nothing to compare with
