"""Comparisons are asked in both orders, read only from answers, and sorted within a budget."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.references.make_checkpoints import Family
from tests.support.clips import write_image
from tests.support.forced import saying
from tests.support.samples import random_views
from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.comparer import Comparer, Winner, rank, read_choice
from vqa.model.load import Policy, load_model
from vqa.types import Views

CHOICES = ("Image A", "Image B", "Similar")
QUESTION = "Which is better? Say it in <answer></answer>."


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[Family], Path]) -> Policy:
    return load_model(ModelCard(source=str(checkpoint("qwen2_5_vl")), device_map="cpu"))


def comparer(policy: Policy, **more: Any) -> Comparer:
    values = {
        "source": "x",
        "task": "comparison",
        "question": QUESTION,
        "labels": "none",
        "answer": {"choices": CHOICES},
    }
    generation = GenerationConfig(max_new_tokens=80, **more.pop("generation", {}))
    return Comparer(policy, card=ModelCard(**(values | more)), generation=generation)


def grey(level: int, name: str) -> Views:
    return random_views(name, [np.full((56, 56, 3), level, np.uint8)])


def brighter(named: Mapping[str, Any]) -> str:
    """The honest answer about two pictures of one size, the last ones of the prompt."""
    first, second = named["pixel_values"].chunk(len(named["image_grid_thw"]))[-2:]
    if first.mean() == second.mean():
        return "<think>the same</think><answer>Similar</answer>"
    return f"<think>light</think><answer>Image {'A' if first.mean() > second.mean() else 'B'}</answer>"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("<think>Image B is worse</think><answer>Image A</answer>", 0),
        ("<answer>\n b. </answer>", 1),
        ("<answer>'similar'</answer>", 2),
        ("Image A", None),
        ("<answer>Image C</answer>", None),
        ("<answer>Image A or Image B</answer>", None),
        ("<answer>A</answer> <answer>B</answer>", None),
    ],
)
def test_a_choice_is_read_from_the_one_answer_block_alone(text: str, choice: int | None) -> None:
    assert read_choice(text, CHOICES) == choice


def test_the_better_one_wins_whatever_stands_first(loaded: Policy) -> None:
    model, dark, light = comparer(loaded, generation={"k": 2}), grey(40, "dark"), grey(200, "light")
    with saying(loaded, brighter) as prompts:
        verdict = model.compare(dark, light)
        assert (verdict.winner, verdict.preference, verdict.is_swayed) == ("second", 0.0, False)
        assert (verdict.answers_parsed, verdict.answers_total, verdict.reason) == (4, 4, "light")
        assert model.compare(light, dark).winner == "first"
        assert model.compare(light, grey(200, "other")).winner == "tie"
    assert len(prompts) == 6
    assert prompts[0].index("Image A:") < prompts[0].index("Image B:") < prompts[0].index(QUESTION)


def test_a_model_that_prefers_a_place_decides_nothing(loaded: Policy) -> None:
    with saying(loaded, lambda _: "<answer>Image A</answer>"):
        verdict = comparer(loaded).compare(grey(40, "dark"), grey(200, "light"))
    assert (verdict.winner, verdict.preference, verdict.is_swayed) == ("tie", 0.5, True)


def test_without_an_answer_there_is_no_verdict(loaded: Policy) -> None:
    with saying(loaded, lambda _: "Image A, surely"):
        verdict = comparer(loaded).compare(grey(40, "dark"), grey(200, "light"))
    assert (verdict.winner, verdict.preference, verdict.is_swayed, verdict.answers_parsed) == (None, None, None, 0)


def test_a_reference_is_shown_first_with_the_words_before_it(loaded: Policy) -> None:
    model = comparer(loaded, reference=True, intro="Made from this:", system="Be fair.")
    with pytest.raises(UsageError, match="give --reference"):
        model.compare(grey(40, "dark"), grey(200, "light"))
    with pytest.raises(UsageError, match="leave --reference out"):
        comparer(loaded).compare(grey(40, "dark"), grey(200, "light"), reference=grey(90, "first"))
    with saying(loaded, brighter) as prompts:
        assert model.compare(grey(40, "dark"), grey(200, "light"), reference=grey(90, "first")).winner == "second"
    places = [prompts[0].index(words) for words in ("Be fair.", "Made from this:", "Image A:", "Image B:", QUESTION)]
    assert places == sorted(places)


def test_videos_are_compared_as_videos(loaded: Policy) -> None:
    model = comparer(loaded, modality="video", answer={"choices": ("Video A", "Video B")})

    def first(named: Mapping[str, Any]) -> str:
        assert named["video_grid_thw"][:, 0].tolist() == [1, 1]
        return "<answer>Video B</answer>"

    with saying(loaded, first) as prompts:
        assert model.compare(grey(40, "dark"), grey(200, "light")).winner == "tie"
    assert prompts[0].index("Video A:") < prompts[0].index("Video B:")


@pytest.mark.parametrize("budget", [11, 20, 100])
def test_a_budget_of_comparisons_sorts_as_far_as_it_goes(budget: int) -> None:
    worth = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    asked = []

    def better(one: int, other: int) -> Winner:
        asked.append((one, other))
        return "first" if worth[one] > worth[other] else "second" if worth[one] < worth[other] else "tie"

    groups = rank(len(worth), better, budget=budget)
    assert len(asked) <= budget
    assert sorted(number for group in groups for number in group) == list(range(12))
    for higher, lower in pairwise(groups):
        assert min(worth[number] for number in higher) > max(worth[number] for number in lower)
    if budget == 100:
        assert [worth[group[0]] for group in groups] == [9, 8, 6, 5, 4, 3, 2, 1]


def test_a_budget_too_small_for_one_round_is_refused() -> None:
    with pytest.raises(UsageError, match="--budget 2: 4 clips take at least 3"):
        rank(4, lambda _one, _other: "tie", budget=2)


def test_the_command_compares_and_refuses(
    vqa: Callable[..., tuple[int, str, str]], checkpoint: Callable[[Family], Path], tmp_path: Path
) -> None:
    """A random model says nothing that can be read: no verdict, exit code 3."""
    (tmp_path / "in").mkdir()
    one, other = write_image(tmp_path / "in/a.png"), write_image(tmp_path / "in/b.png")
    card = tmp_path / "card.yaml"
    values = {"source": str(checkpoint("qwen2_5_vl")), "task": "comparison", "answer": {"choices": list(CHOICES)}}
    views = {"local_pictures": 0, "global_pixels": 64}
    card.write_text(yaml.safe_dump(values | {"views": views, "generation": {"max_new_tokens": 4}}), encoding="utf-8")
    code, _, err = vqa("compare-clips", one, other, "--model", card)
    assert code == 2
    assert "no question is known for it; --question FILE gives one by hand" in err
    (tmp_path / "q.txt").write_text("Which? {answer_format}", encoding="utf-8")
    asking = ("--model", card, "--question", tmp_path / "q.txt", "--set", "model.device_map=cpu")
    code, out, err = vqa("compare-clips", one, other, *asking)
    assert (code, out) == (3, "no answer could be read\n")
    code, out, err = vqa("compare-clips", tmp_path / "in", "--budget", 1, *asking)
    assert (code, out) == (3, "1\ta.png\n1\tb.png\n")
    assert "1 comparisons, 0 changed with the order, 1 could not be read" in err
    code, _, err = vqa("compare-clips", one, "--budget", 1, "--model", "q-insight", "--set", "device_map=cpu")
    assert code == 2
    assert "its task is score, not comparison" in err
    code, _, err = vqa("compare-clips", one, *asking)
    assert (code, "1 clips in" in err) == (2, True)
