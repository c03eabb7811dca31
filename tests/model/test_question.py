"""Published questions are read where they stand, kept with their digest, asked, and never replaced in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.request import ScoreRequest, inputs_of
from tests.support.clips import write_image
from tests.support.web import serve
from vqa.config import configs_folder
from vqa.errors import ModelError, UsageError
from vqa.model.card import ModelCard, find_card, settle
from vqa.model.question import check_askable, fetch_question, kept_path, with_words, words_digest
from vqa.prompt import PROMPTS

Command = Callable[..., tuple[int, str, str]]

# Files of the same structure as the public ones, with words of our own.
DEMO = """
import torch
SYSTEM_PROMPT = (
    "Think in <think> </think> "
    "then say it in <answer> </answer>."
)
template = "not asked"
SCORE_QUESTION_PROMPT = 'Rate it between 1 and 5. JSON: "rating".'
message = [
    {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
    {"role": "user", "content": [{"type": "text", "text": "Reference:"}, {"type": "image", "image": f"file://{x}"}]},
]
VIDEO_CONFIG = {"natural": {"subfolder": "n", "prompt": ("Rate the video " "between 0 and 100.")}}
"""
DAMAGE = """
question = "What damages it?"
message = [
    {"role": "system", "content": [{"type": "text", "text": "S"}]},
    {"role": "user", "content": [{"type": "text", "text": question}, {"type": "image", "image": f"file://{x}"}]},
]
"""
README = """
# A model
```python
def score(image):
    PROMPT = ("Without thinking.")
    QUESTION_TEMPLATE = "{Question} Answer in <answer> </answer>."
```
## With thinking
```python
def score(image):
    PROMPT = (
        # "An older wording."
        "How good is it, between 1 and 5?"
    )
    QUESTION_TEMPLATE = "{Question} Think in <think> </think>, answer in <answer> </answer>."
    # QUESTION_TEMPLATE = "Describe it."
```
"""
SOURCE: dict[str, Any] = {
    "repository": "some/scorer",
    "revision": "abc",
    "after": "With thinking",
    "question": "QUESTION_TEMPLATE",
    "filled": {"Question": "PROMPT"},
}
ASKED = "How good is it, between 1 and 5? Think in <think> </think>, answer in <answer> </answer>."


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where a server has the files: OWNER/NAME/REVISION/PATH."""
    folder = tmp_path / "web" / "some" / "scorer" / "abc"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(README, encoding="utf-8")
    (folder / "demo.py").write_text(DEMO, encoding="utf-8")
    (folder / "damage.py").write_text(DAMAGE, encoding="utf-8")
    return folder


def write_card(folder: Path, **more: object) -> Path:
    path = folder / "mine.yaml"
    values = {"source": "some/weights", "prompt": "visualquality_r1", "published": SOURCE} | more
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def card_of(path: Path) -> ModelCard:
    return settle(str(path), {})[0]


def test_a_question_is_fetched_shown_kept_and_asked(vqa: Command, repository: Path, tmp_path: Path, home: Path) -> None:
    path = write_card(tmp_path)
    assert with_words(card_of(path)).asked == "own"
    with serve(tmp_path / "web") as server:
        code, out, err = vqa("model", "fetch-question", path, "--from", f"http://127.0.0.1:{server.server_port}/fine")
    assert (code, out) == (0, f"question:\n  {ASKED}\n")
    card = with_words(card_of(path))
    assert (card.question, card.asked) == (ASKED, "published")
    assert kept_path("mine") == home / "vqa" / "questions" / "mine.json"
    kept = json.loads(kept_path("mine").read_text(encoding="utf-8"))
    assert kept["digest"] == words_digest(card)
    assert err == f"{words_digest(card)}, kept in {kept_path('mine')}\n"
    own = with_words(settle(str(path), {"asked": "own"})[0])
    assert (own.question, own.asked) == (None, "own")
    assert words_digest(own) != words_digest(card)
    assert with_words(settle(str(path), {"question": "Q <answer>"})[0]).asked == "own"


def test_names_are_found_in_code_lists_and_chats(repository: Path, tmp_path: Path) -> None:
    source = {"repository": "some/scorer", "path": "demo.py", "system": "SYSTEM_PROMPT"}
    score = source | {"question": "SCORE_QUESTION_PROMPT", "intro": "message.1.content.0.text"}
    damage = {"repository": "some/scorer", "path": "damage.py", "question": "chat"}
    path = write_card(tmp_path, published=score, published_description=damage)
    card, _ = fetch_question(card_of(path), base=str(repository))
    assert card.question == 'Rate it between 1 and 5. JSON: "rating".'
    assert card.system == "Think in <think> </think> then say it in <answer> </answer>."
    assert (card.intro, card.description) == ("Reference:", "What damages it?")
    wide = {"low": 0, "high": 100}
    path = write_card(tmp_path, published=source | {"question": "VIDEO_CONFIG.natural.prompt"}, answer=wide)
    assert fetch_question(card_of(path), base=str(repository))[0].question == "Rate the video between 0 and 100."


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": "NOT_THERE"}, "NOT_THERE is no text there"),
        ({"after": "No such line"}, "no line with 'No such line'"),
        ({"path": "gone.md"}, r"gone\.md: cannot be read .*--from .*--question FILE"),
    ],
)
def test_a_file_that_has_changed_is_refused_by_name(
    change: dict[str, str], says: str, repository: Path, tmp_path: Path
) -> None:
    path = write_card(tmp_path, published=SOURCE | change)
    with pytest.raises((UsageError, ModelError), match=says):
        fetch_question(card_of(path), base=str(repository))
    assert not kept_path("mine").exists()


def test_what_was_kept_for_another_place_is_not_asked(repository: Path, tmp_path: Path) -> None:
    fetch_question(card_of(write_card(tmp_path)), base=str(repository))
    path = write_card(tmp_path, published=SOURCE | {"revision": "def"})
    with pytest.raises(UsageError, match="read elsewhere than the card mine says now"):
        with_words(card_of(path))


def test_a_card_that_demands_the_published_words_is_refused_without(tmp_path: Path) -> None:
    path = write_card(tmp_path, asked="published")
    with pytest.raises(UsageError, match="not kept here; `vqa model fetch-question mine`"):
        with_words(card_of(path))


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, r"no question is known for it; --question FILE gives one by hand, --set model\.prompt=NAME asks a preset$"),
    ({"question": "How good?"}, r"neither <answer> nor \{answer_format\}"),
    ({"question": "0 or 1? <answer>", "unsupported": "it flies"}, "it flies"),
    ({"question": "Rate it between 0 and 100. <answer>"}, r"asks for 0 to 100, its card reads 1 to 5; .*high=100"),
    ({"question": "On a scale of 0-100? <answer>"}, r"asks for 0 to 100, its card reads 1 to 5; .*high=100"),
    ({"question": "Use a 1 to 10 scale. <answer>"}, r"asks for 1 to 10, its card reads 1 to 5; .*high=10"),
    ({"question": "Rate it from 0 to 100. {answer_format}"}, r"asks for 0 to 100, its card reads 1 to 5; .*high=100"),
    ({"task": "comparison"}, "its task is comparison, not score; vqa compare-clips"),
]


@pytest.mark.parametrize(("values", "says"), BAD)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(
    values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump({"source": "no/weights"} | values), encoding="utf-8")
    picture = write_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match=says):
        inputs_of(ScoreRequest(sources=(str(picture),), out=tmp_path / "out", model=str(path)))


@pytest.mark.parametrize("words", ["a scale of 1-5", "a scale from 1 to 5", "a 1-5 scale", "2 to 3 sentences"])
def test_a_question_with_the_card_s_scale_is_asked(words: str) -> None:
    check_askable(ModelCard(source="no/weights", question=f"Rate it: {words}. <answer>"))


def test_a_hub_id_without_a_card_is_named_whole() -> None:
    with pytest.raises(UsageError, match=r"^model no/weights: no question is known for it"):
        check_askable(ModelCard(**find_card("no/weights")))


def test_a_question_by_hand_goes_over_the_card_and_takes_our_form_of_answer(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("How good is it? {answer_format}\n", encoding="utf-8")
    (tmp_path / "s.txt").write_text("Be strict.", encoding="utf-8")
    weights = {"source": "embedded", "prompt": "preresq_video", "asked": "published"}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(weights | {"answer": {"low": 0, "high": 10, "numbers": 1}}))
    picture = write_image(tmp_path / "a.png")
    request = ScoreRequest(sources=(str(picture),), out=tmp_path / "out", model=str(tmp_path / "card.yaml"))
    plain = inputs_of(request)
    assert (plain.config.model.asked, plain.config.model.question) == ("published", None)
    by_hand = ScoreRequest(
        sources=(str(picture),),
        out=tmp_path / "out",
        model=str(tmp_path / "card.yaml"),
        question=tmp_path / "q.txt",
        system=tmp_path / "s.txt",
    )
    asked = inputs_of(by_hand)
    model = asked.config.model
    assert (model.asked, model.system) == ("own", "Be strict.")
    assert model.question is not None
    assert model.question.startswith("How good is it? Think in <think>")
    assert model.question.endswith("one number from 0 to 10 alone.")
    assert asked.settings != plain.settings
    (tmp_path / "q.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"q\.txt: no words in it"):
        inputs_of(by_hand)


def test_a_hub_id_finds_its_card_by_source_or_names_those_there_are() -> None:
    assert find_card("TianheWu/VisualQuality-R1-7B")["name"] == "visualquality-r1-7b"
    assert find_card("tianhewu/visualquality-r1-7b")["labels"] == "vision_ids"
    with pytest.raises(UsageError, match="5 cards have this source: q-insight, q-insight-comparison, vq-insight-aigc"):
        find_card("ByteDance/Q-Insight")


def test_every_card_says_where_its_question_stands_and_ships_none() -> None:
    for path in sorted((configs_folder() / "models").glob("*.yaml")):
        card, _ = settle(path.stem, {})
        assert (card.question, card.system, card.description) == (None, None, None)
        if card.published is None and not card.unsupported:
            assert "prompt" in card.model_fields_set
            assert words_digest(card) == words_digest(ModelCard(source="x", prompt=card.prompt))
            check_askable(card)
        if card.answer.low == 1 and "prompt" in card.model_fields_set:
            assert card.dimensions == (len(card.answer.keys) or PROMPTS[card.prompt].dimensions)
