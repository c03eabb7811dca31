"""The presets: weights, stages, odd batches, and what holds for each of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import reward_loops as slow
from vqa.errors import UsageError
from vqa.prompt import PROMPTS
from vqa.rewards import REWARD_PRESETS, compute

NAN = float("nan")
NAMES = sorted(REWARD_PRESETS)


def draw(seed, *, clips=6, answers=5, numbers=2, lost=0.2):
    generator = np.random.default_rng(seed)
    values = generator.uniform(1, 5, (clips, answers, numbers)).round(2)
    values[generator.random((clips, answers)) < lost] = NAN
    return values, generator.uniform(1, 5, clips), generator.choice(["a", "b"], clips).tolist()


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_preresq_video_adds_up_as_published(seed, stage):
    values, opinions, datasets = draw(seed, lost=0)
    scores = values.mean(axis=2)
    terms = compute("preresq_video", values, opinions, datasets, stage=stage)
    assert list(terms) == ["pairwise", "spread", "balance", "triplet", "format", "total"]
    expected = 0.375 * slow.pairwise(scores, opinions, datasets) - (stage == 1) * slow.spread(values)
    expected += 0.5 * slow.balance(values, 2) + 0.125 * np.nan_to_num(slow.triplet(scores, opinions, datasets)) + 1
    np.testing.assert_allclose(terms["total"], expected, rtol=1e-9)


def test_preresq_image_adds_up_as_published():
    values, opinions, datasets = draw(0, numbers=5, lost=0)
    scores = values.mean(axis=2)
    terms = compute("preresq_image", values, opinions, datasets)
    accuracy = 0.375 * slow.pairwise(scores, opinions, datasets) - slow.spread(values) + 0.5 * slow.balance(values, 4)
    accuracy += 0.125 * np.nan_to_num(slow.triplet(scores, opinions, datasets)) + slow.rank_to_truth(scores, opinions)
    np.testing.assert_allclose(terms["total"], accuracy / 3 + 1, rtol=1e-9)


def test_visualquality_r1_adds_up_as_published():
    values, opinions, datasets = draw(0, numbers=1)
    terms = compute("visualquality_r1", values, opinions, datasets)
    assert list(terms) == ["fidelity", "format", "total"]
    expected = slow.fidelity(values.mean(axis=2), opinions, datasets) + ~np.isnan(values[..., 0])
    np.testing.assert_allclose(terms["total"], expected, rtol=1e-9)


def test_the_others_add_up_by_hand():
    # One clip of opinion 3, answers 3.25 and unparsed; nothing to compare with, so fidelity is 0.
    values = [[[3.25], [NAN]]]
    expected = {
        "vqathinker": np.exp(-0.125) + 1,  # exp(-0.25^2 / (2 * 0.5^2)), two decimals
        "q_insight": 1 + 1,  # 0.25 < 0.35
        "vq_insight": 1 - 6.25 / 50 + 1,  # on 0-100: 56.25 for 50
        "q_hawkeye": np.exp(-0.25 / 0.30) + 0.8,
        "omniquality_r": np.exp(-(0.25**2) / (2 * 0.64**2)) + 0.5,  # 0.8 of 0-5
        "aes_r1": np.exp(-0.5 * (0.25 / 0.4) ** 2) + 1e-5 + 1,
        "refine_iqa": 1 + 1,
        "q_ponder": 1 - 0.25 / 4 + 1,
        "cappo": np.exp(-0.125) + 1,
    }
    for preset, total in expected.items():
        np.testing.assert_allclose(compute(preset, values, [3.0], ["a"])["total"], [[total, 0.0]], err_msg=preset)


def test_context_pays_its_terms():
    # By hand as above, plus: two answers of fit length 0.2 each; better than on shuffled frames 0.3.
    values, opinions, sets = [[[3.25], [3.0]]], [3.0], ["a"]
    terms = compute("vq_insight", values, opinions, sets, tokens=[[400, 512]], perturbed=[[[5.0]]])
    assert terms["length"].tolist() == [[0.2, 0.2]]
    assert terms["temporal"].tolist() == [[0.3, 0.3]]
    terms = compute("vqathinker", values, opinions, sets, perturbed=[[[5.0]]])
    assert terms["temporal"].tolist() == [[0.0, 0.0]]  # exp(-0.125) and 0.8 are not above 0.9, no rank
    terms = compute("refine_iqa", values, opinions, sets, think=[[0.9, 0.4]], no_think=[[0.5, 0.5]])
    np.testing.assert_allclose(terms["probability"], [[0.4, 0.0]])
    terms = compute("q_ponder", values, opinions, sets, reason_scores=[[2.25, NAN]])
    assert terms["consistency"].tolist() == [[0.75, 0.0]]
    terms = compute("q_hawkeye", values, opinions, sets, texts=[["<answer>3.25</answer>", "aaaaaa"]])
    assert terms["repetition"].tolist() == [[0.0, -1.5]]


def test_a_damage_question_has_no_opinion_and_is_paid_by_its_labels():
    damage = {
        "true_classes": ["blur", ""],
        "true_severities": ["slight", ""],
        "classes": [["blur", "noise"], ["", ""]],
        "severities": [["slight", "slight"], ["", ""]],
    }
    json = '<think>\nI see it.\n</think>\n<answer>\n{"%s": "%s"}\n</answer>'
    damage["texts"] = [[json % ("distortion_class", "blur")] * 2, [json % ("rating", 3)] * 2]
    values = [[[NAN], [NAN]], [[3.0], [4.0]]]
    terms = compute("q_insight", values, [NAN, 3.0], ["a", "a"], **damage)
    assert terms["total"].tolist() == [[2.0, 1.0], [2.0, 1.0]]
    assert np.isfinite(compute("visualquality_r1", values, [NAN, 3.0], ["a", "a"], **damage)["total"]).all()


# What each released script's pattern takes (methods: 1.2f, 2.1, 4.1, 6), and what a lenient parser of scores reads too.
TAGS = "<think>Sharp.</think> <answer>{}</answer>"
LINES = "<think>\nSharp.\n</think>\n<answer>\n{}\n</answer>"
PAID = {
    "preresq_video": [TAGS.format("3.2\n4.00\n"), LINES.format("3\n4")],
    "preresq_image": [TAGS.format("3.2\n4\n3\n3\n3.00"), LINES.format("3.2\n4\n3\n3\n3")],
    "q_insight": [LINES.format('{"rating": 3.2}'), LINES.format('{"distortion_class": "blur", "severity": "slight"}')],
    "refine_iqa": [TAGS.format("Score: 3.25"), LINES.format("Score: 3.00")],
}
UNPAID = {
    "preresq_video": [TAGS.format("3.2\n4.00"), TAGS.format("3.2 4.0\n"), TAGS.format("3.2\n"), "3\n4\n"],
    "preresq_image": [TAGS.format("3.2"), TAGS.format("3\n3\n3\n3"), TAGS.format("Saturation: 3\n3\n3\n3\n3")],
    "q_insight": [TAGS.format('{"rating": 3.2}'), LINES.format("3.2"), LINES.format('{"a": {"rating": 3}}')],
    "refine_iqa": [TAGS.format("3.25"), TAGS.format("Score: 3.5"), TAGS.format("Score: 3.25/5")],
}


@pytest.mark.parametrize("preset", NAMES)
def test_format_pays_what_the_paper_pays(preset):
    paid = PAID.get(preset, [TAGS.format("3.25"), LINES.format("no number at all")])
    bare = ["3.25", "3.00\n3.00", "<answer>3.25</answer>", "<think>Sharp.</think>3.25", TAGS.format("3") + " Bye."]
    texts = [[*paid, *UNPAID.get(preset, []), *bare]]
    dimensions = PROMPTS[preset].dimensions if preset in PROMPTS else 1
    values = np.full((1, len(texts[0]), dimensions), 3.25)  # all of them could be read
    terms = compute(preset, values, [3.0], ["a"], texts=texts)
    assert terms["format"].tolist() == [[1.0] * len(paid) + [0.0] * (len(texts[0]) - len(paid))]
    assert compute(preset, values, [3.0], ["a"])["format"].all()  # without texts there is no form to judge


def test_released_code_differs_from_the_paper_where_a_preset_says_so():
    _, opinions, datasets = draw(0, lost=0)
    values = np.repeat(opinions[:, None, None] + 0.003, 5, axis=1)
    more = {"perturbed": np.ones_like(values)}
    for preset, name in {"preresq_video": "spread", "preresq_image": "spread", "vqathinker": "temporal"}.items():
        terms = {
            mode: compute(preset, values, opinions, datasets, stage=2, mode=mode, **more)[name]
            for mode in ("paper", "released")
        }
        assert terms["released" if name == "spread" else "paper"].any()
        assert not terms["paper" if name == "spread" else "released"].any()
        assert "released" in REWARD_PRESETS[preset].modes
    assert sum(bool(one.modes) for one in REWARD_PRESETS.values()) == 3


def test_vqathinker_compares_the_micro_batch_and_vq_insight_each_clip():
    # Regression pays 1 for an exact answer of two decimals; on perturbed frames clip b alone is right.
    values, opinions, sets = [[[3.25]], [[1.75]]], [3.25, 1.75], ["a", "b"]
    other = [[[1.0]], [[1.75]]]
    alone = compute("vqathinker", values, opinions, sets, perturbed=other, compared=1)["temporal"]
    assert alone.tolist() == [[0.3], [0.3]]
    worse = [[[1.0]], [[1.85]]]  # clip b does better on perturbed frames, both together do not
    values = [[[3.25]], [[1.95]]]
    each = compute("vqathinker", values, opinions, sets, perturbed=worse, compared=1)["temporal"]
    both = compute("vqathinker", values, opinions, sets, perturbed=worse, compared=2)["temporal"]
    assert each.tolist() == [[0.3], [0.0]] and both.tolist() == [[0.3], [0.3]]


@pytest.mark.parametrize("preset", NAMES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 99), clips=st.integers(0, 5), answers=st.integers(1, 5), lost=st.sampled_from([0, 0.4, 1]))
def test_finite_zero_where_unparsed_and_the_weighted_sum(preset, seed, clips, answers, lost):
    values, opinions, datasets = draw(seed, clips=clips, answers=answers, lost=lost)
    opinions = np.round(opinions)  # ties
    terms = compute(preset, values, opinions, datasets)
    unparsed = np.isnan(values).any(axis=2)
    for name, term in terms.items():
        assert term.shape == (clips, answers)
        assert np.isfinite(term).all(), name
        assert not term[unparsed].any(), name
    total = sum(weight * terms[name] for name, weight in REWARD_PRESETS[preset].weights.items())
    np.testing.assert_allclose(terms["total"], total)
    assert (terms["total"][~unparsed] > 0).all()  # an answer that can be read is never worse than none
    np.testing.assert_array_equal(terms["format"], ~unparsed)


@pytest.mark.parametrize("preset", NAMES)
def test_another_data_set_in_the_batch_changes_nothing(preset):
    values, opinions, _ = draw(1, clips=8)
    sets = ["a", "b", "a", "b", "a", "b", "a", "b"]
    mixed = compute(preset, values, opinions, sets)
    for start in (0, 1):
        alone = compute(preset, values[start::2], opinions[start::2], sets[start::2])
        for name, term in alone.items():
            np.testing.assert_allclose(mixed[name][start::2], term, atol=1e-12)


@pytest.mark.parametrize("preset", NAMES)
def test_the_order_of_clips_and_answers_does_not_matter(preset):
    values, opinions, datasets = draw(2, clips=6, lost=0)
    generator = np.random.default_rng(0)
    clips, answers = generator.permutation(6), generator.permutation(5)
    before = compute(preset, values, opinions, datasets)
    after = compute(preset, values[clips][:, answers], opinions[clips], [datasets[i] for i in clips])
    for name in before:
        np.testing.assert_allclose(after[name], before[name][clips][:, answers], atol=1e-12)


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("truth", [2.5, 3.5])
def test_the_truth_is_paid_best(preset, truth):
    """Other clips exact and dense on the scale; the answer at the opinion beats those off by more than half a point."""
    others = np.linspace(1.05, 4.95, 40)
    opinions = np.append(others, truth)
    off = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])
    exact = np.repeat(opinions[:, None] + 0.01, 5, axis=1)

    def paid(error):
        values = exact.copy()
        values[-1] = truth + error + 0.01
        return compute(preset, values[:, :, None], opinions, ["a"] * 41)["total"][-1].mean()

    assert np.argmax([paid(error) for error in off]) == 2


def test_the_callers_arrays_stay_as_they_are():
    values, opinions, datasets = draw(3)
    values[0, 0, 0] = NAN
    before = values.copy()
    compute("vqathinker", values, opinions, datasets, perturbed=values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preset": "magic"}, "Known are: preresq_video"),
        ({"values": [[3.0]]}, "shape"),
        ({"values": [[]]}, "shape"),
        ({"values": [np.zeros((0, 2))]}, r"shape \[1, 0, 2\]"),
        ({"opinions": [3.0, 4.0]}, "one of each per clip"),
        ({"datasets": []}, "one of each per clip"),
        ({"opinions": [NAN]}, "opinion nan"),
        ({"stage": 3}, "1, 2"),
        ({"mode": "paper_code"}, "paper, released, strict"),
        ({"colour": 1}, "colour is not known"),
        ({"preset": "vq_insight", "tokens": [3]}, "tokens has shape"),
        ({"preset": "vq_insight", "perturbed": [[3.0]]}, "perturbed has shape"),
    ],
)
def test_wrong_use_is_refused_with_name_and_value(change, words):
    given_ = {"preset": "preresq_video", "values": [[[3.0, 3.0]]], "opinions": [3.0], "datasets": ["a"]} | change
    with pytest.raises(UsageError, match=words):
        compute(given_.pop("preset"), given_.pop("values"), given_.pop("opinions"), given_.pop("datasets"), **given_)


def test_weights_of_a_run_stand_in_place_of_the_presets():
    values, opinions, sets = draw(3)
    own = compute("vqathinker", values, opinions, sets)
    rank = compute("vqathinker", values, opinions, sets, {"regression": 0.0, "format": 2.0})
    np.testing.assert_allclose(rank["total"], own["fidelity"] + 2 * own["format"])
    np.testing.assert_array_equal(rank["regression"], own["regression"])  # still there to be logged
    with pytest.raises(UsageError, match="reward_weights names score; reward vqathinker has fidelity, regression"):
        compute("vqathinker", values, opinions, sets, {"score": 0.0})
    with pytest.raises(UsageError, match="reward_weights leaves no term of reward visualquality_r1"):
        compute("visualquality_r1", values, opinions, sets, {"fidelity": 0.0, "format": 0.0})


def test_visualquality_r1_reads_no_scale():
    """Any mapping of a set's opinions that keeps their order earns the same (arXiv 2505.14460); a score reward not."""
    values, opinions, sets = draw(4)
    other = 1 + 4 * ((opinions - 1) / 4) ** 2
    for preset, is_same in (("visualquality_r1", True), ("omniquality_r", False)):
        one, two = (compute(preset, values, labels, sets)["total"] for labels in (opinions, other))
        assert (one.tobytes() == two.tobytes()) == is_same
