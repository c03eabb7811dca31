"""The questions, and that the parser reads the dialects and never invents."""

import math
import re
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vqa.errors import UsageError
from vqa.prompt import (
    PROMPTS,
    AnswerScale,
    Layout,
    PictureLabels,
    PromptName,
    answer_text,
    dimensions,
    is_closed,
    locate_numbers,
    messages,
    parse,
    reason,
    words,
)
from vqa.rewards.format import Demand, demanded

# --- questions --------------------------------------------------------------------------------------------------------


def test_presets_have_the_published_dimensions() -> None:
    assert {name: dimensions(name) for name in PROMPTS} == {
        "preresq_video": 2,
        "preresq_image": 5,
        "visualquality_r1": 1,
        "q_insight": 1,
        "refine_iqa": 1,
    }
    assert set(get_args(PromptName)) == set(PROMPTS)


@pytest.mark.parametrize("preset", PROMPTS)
@pytest.mark.parametrize(("global_count", "local_count"), [(1, 3), (4, 0), (1, 0), (0, 2)])
def test_every_picture_gets_a_place_behind_a_label_and_the_question_comes_last(
    preset: str, global_count: int, local_count: int
) -> None:
    (message,) = messages(preset, global_count=global_count, local_count=local_count)
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image"] * (global_count + local_count) + ["text"]
    assert message["role"] == "user"
    labels = [part["text"] for part in message["content"][:-1] if part["type"] == "text"]
    assert len(set(labels)) == len(labels)


def test_the_video_question_is_short_and_names_global_before_local() -> None:
    (message,) = messages("preresq_video", global_count=1, local_count=3)
    texts = [part["text"] for part in message["content"] if part["type"] == "text"]
    assert sum(len(text.split()) for text in texts) <= 90
    assert [text.split()[0] for text in texts[:4]] == ["Global", "Local", "Local", "Local"]
    assert texts[-1].index("global, then local") > 0


@pytest.mark.parametrize(
    ("labels", "written"),
    [
        ("none", []),
        ("vision_ids", ["Picture 1: ", "Picture 2: "]),
        ("named", ["Global multiframe picture:", "Local single frame picture 1:"]),
        (
            "named_vision_ids",
            ["Global multiframe picture:Picture 1: ", "Local single frame picture 1:Picture 2: "],
        ),
    ],
)
def test_labels_stand_before_their_pictures(labels: PictureLabels, written: list[str]) -> None:
    layout = Layout(labels=labels)
    (message,) = messages("preresq_video", layout, global_count=1, local_count=1, question="Q")
    texts = [part["text"] for part in message["content"] if part["type"] == "text"]
    assert texts == [*written, "Q"]


def test_a_system_turn_comes_first_and_the_text_may_come_before_the_pictures() -> None:
    layout = Layout(labels="none", text_first=True, system="S")
    system, user = messages("q_insight", layout, global_count=2, local_count=0, question="Q")
    assert system == {"role": "system", "content": [{"type": "text", "text": "S"}]}
    assert user["content"] == [{"type": "text", "text": "Q"}, {"type": "image"}, {"type": "image"}]
    (user,) = messages("q_insight", Layout(labels="vision_ids", is_video=True), global_count=9, local_count=1)
    kinds = [part.get("text", part["type"]) for part in user["content"][:4]]
    assert kinds == ["Video 1: ", "video", "Picture 1: ", "image"]


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'nope'.*preresq_video"):
        dimensions("nope")


def test_no_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        messages("q_insight", global_count=0, local_count=0)


# --- answers that are read --------------------------------------------------------------------------------------------

GOOD = [
    ("<think>Sharp.</think><answer>\n3.40\n2.85\n</answer>", 2, (3.4, 2.85)),
    ("<think>Sharp.</think>\n <answer>3.40\n2.85</answer>", 2, (3.4, 2.85)),
    ("<answer>1\n2\n3\n4\n5</answer>", 5, (1, 2, 3, 4, 5)),
    ("<answer>3.4 2.85</answer>", 2, (3.4, 2.85)),
    ("<answer>3.4, 2.85</answer>", 2, (3.4, 2.85)),
    ("<answer>[3.4, 2.85]</answer>", 2, (3.4, 2.85)),
    ("<answer>global: 3.4\nlocal: 2.85</answer>", 2, (3.4, 2.85)),
    ("<answer>local = 2.85; global = 3.4</answer>", 2, (3.4, 2.85)),
    ("<answer>Global score: 3.4\nLocal score: 2.85</answer>", 2, (3.4, 2.85)),
    ('<answer>{"global": 3.4, "local": 2.85}</answer>', 2, (3.4, 2.85)),
    ("sharpness: 3\nsaturation: 1\ngranularity: 2\nbackground: 5\nforeground: 4", 5, (1, 2, 3, 4, 5)),
    ('<think>x</think>\n<answer>\n{"rating": 3.4}\n</answer>', 1, (3.4,)),
    ('```json\n{"rating": 3.4}\n```', 1, (3.4,)),
    ('{"rating": "3.4"}', 1, (3.4,)),
    ("global: 3.4", 1, (3.4,)),
    ("The overall quality score is 3.4.", 1, (3.4,)),
    ("**3.4**", 1, (3.4,)),
    ("3.4/5", 1, (3.4,)),
    ("4 / 5.0", 1, (4,)),
    ("4 out of 5", 1, (4,)),
    ("4/5 3/5", 2, (4, 3)),
    ("5.00", 1, (5,)),
    ("1", 1, (1,)),
    ("<answer>2</answer> no, <answer>3</answer>", 1, (3,)),
    ("<think>maybe <answer>2</answer></think><answer>3</answer>", 1, (3,)),
    ("<think>never closed <answer>3</answer>", 1, (3,)),
    ("<answer>3</answer> I hope that this helps.", 1, (3,)),
    (r"\boxed{3.5}", 1, (3.5,)),
    (r"<think>Soft.</think><answer>$\boxed{3.5}$</answer>", 1, (3.5,)),
    ("3.5 out of 5", 1, (3.5,)),
    ("**Score: 3.5/5 (Good)**", 1, (3.5,)),
    ("[[3.5]]", 1, (3.5,)),
    ("<THINK>Soft.</Think><Answer>3.5</ANSWER>", 1, (3.5,)),
    ("3.5\u5206", 1, (3.5,)),
    ("3.5/5 stars", 1, (3.5,)),
    ("Rating: 3.5, Confidence: 80%", 1, (3.5,)),
    ("Confidence: 80%\nscore: 3.5", 1, (3.5,)),
    ("Confidence: 80%, Rating: 3.5", 1, (3.5,)),
    ("Global: 3.5, Confidence: 0.8, Local: 4", 2, (3.5, 4)),
    ("MOS: 3.5", 1, (3.5,)),
]


@pytest.mark.parametrize(("text", "count", "values"), GOOD)
def test_dialects_are_read(text: str, count: int, values: tuple[float, ...]) -> None:
    assert parse(text, count) == values


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_overall_number_is_an_answer_for_any_dimensions(count: int) -> None:
    assert parse("<answer>3.4</answer>", count) == (3.4,)
    assert parse("overall: 3.4", count) == (3.4,)


BAD = [
    ("", 1),
    (r"\boxed{3.5} or \boxed{4}", 1),
    (r"\boxed{7}", 1),
    ("[[3.5]] [[4.5]]", 1),
    ("3.5, Confidence: 80%", 1),
    ("Confidence: 3%", 1),
    ("Rating: 3.5, Score: 4", 1),
    ("3.5/5 (Good) or 4/5 (Good)", 1),
    ("3.5 (4)", 1),
    ("3.5/10", 1),
    ("3\u52063.5\u5206", 1),
    ("<Answer>3.5", 1),
    ("3. 5", 2),
    ("3\u52065", 2),
    ("Confidence: 4, 3.5", 1),
    ("Rating: 3.5, Confidence: 4/10", 1),
    ("<think>3.4", 1),
    ("<answer>3.4", 1),
    ("<answer>3.4</ans", 1),
    ("<answer>2</answer><answer>3.4", 1),
    ("<think>I could say <answer>3</answer> but", 1),
    ("<answer></answer>", 1),
    ("0.99", 1),
    ("5.01", 1),
    ("34", 1),
    ("1,000", 1),
    ("3,4", 1),
    ("3,4", 2),
    ("-3", 1),
    ("+3", 1),
    ("−3", 1),
    ("3-4", 1),
    ("3-4", 2),
    ("between 3 and 4", 2),
    ("3 to 4", 2),
    ("3*4", 2),
    ("3.4.5", 1),
    ("3..4", 1),
    ("3e0", 1),
    ("0x3", 1),
    ("nan", 1),
    ("inf", 1),
    ("NaN\nNaN", 2),
    ("9" * 5000, 1),
    ("٣", 1),
    ("３", 1),
    ("③", 1),
    ("²", 1),
    ("3/10", 1),
    ("4/50", 1),
    ("68/100", 1),
    ("80%", 1),
    ("3%", 1),
    ("severity: 4", 1),
    ('{"rating": 3, "confidence": 4}', 2),
    ("5 star rating: 4", 2),
    ("5-star scale: 4", 2),
    ('{"rating": null}', 1),
    ("global: 3.4", 2),
    ("global: 3.4\nglobal: 2.0", 2),
    ("global: 3.4\n2.0", 2),
    ("global local: 3.4", 1),
    ("1. 3.4\n2. 2.9", 2),
    ("3.4\n2.9", 1),
    ("3.4\n2.9\n1.0", 2),
    ("The picture has 3 faults and is 4 years old", 1),
    ("2024", 1),
    ("[[[[" * 100_000, 1),
    ("<answer>" * 10_000, 2),
]


@pytest.mark.parametrize(("text", "count"), BAD)
def test_in_doubt_there_is_no_answer(text: str, count: int) -> None:
    assert parse(text, count) is None


WORDS = (
    "<think> </think> <answer> </answer> global local rating sharpness : = is out of { } [ ] ' , ; . - + / * ``` json"
)
NUMBERS = "0 1 2.50 3 4.25 5 9 3.4/5 1e9 nan inf ٣ \u00a0 \ud800"
PIECES = st.sampled_from([*WORDS.split(), *NUMBERS.split(" "), '"', "\n", "\t"])


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map(" ".join), st.lists(PIECES).map("".join)),
       st.integers(1, 6))  # fmt: skip
@example("<answer>3.4</answer>", 1)
def test_the_parser_never_raises_and_never_invents(text: str, count: int) -> None:
    readings = locate_numbers(text, count)
    assert isinstance(reason(text), str)
    is_closed(text)
    assert parse(text, count) == (None if readings is None else tuple(reading.value for reading in readings))
    if readings is None:
        return
    assert len(readings) in (1, count)
    for reading in readings:
        assert math.isfinite(reading.value)
        assert 1 <= reading.value <= 5
        written = text[reading.start : reading.stop]
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", written)
        assert float(written) == reading.value


MARKS = [
    *(
        "{",
        "}",
        "[[",
        "]]",
        "(",
        ")",
        "**",
        "$",
        ",",
        ";",
        ".",
        ":",
        "/",
        "/5",
        "%",
        "\u5206",
        "out of 5",
        "(Good)",
        "stars",
    ),
    *("1", "2.5", "3", "4.75", "5", "80", "\\boxed{", "Score: ", "Rating: ", "global: ", "Confidence: ", " ", "\n"),
]
NO_SCORE = re.compile(r"confidence\s*[:=]\s*[0-9.]+\s*%?|(?:/|out\s+of)\s*5(?:\.0{1,2})?(?![0-9])", re.IGNORECASE)


@given(st.lists(st.sampled_from(MARKS), max_size=10).map("".join), st.integers(1, 2))
@example("**Score: 3/5 (Good)**", 1)
@example("Confidence: 80%, Rating: 3", 1)
def test_a_number_is_read_only_where_no_other_could_be_meant(text: str, count: int) -> None:
    values = parse(text, count)
    if values is not None:
        bare = re.sub(r"[][{}$*\u5206]|\\boxed|stars|\(Good\)", " ", text)
        numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", NO_SCORE.sub(" ", bare))
        assert sorted(values) == sorted(float(number) for number in numbers)


@given(st.text(alphabet=st.characters(exclude_characters="<>"), max_size=80), st.data())
def test_what_we_write_for_training_is_read_back(why: str, data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 2, 5]))
    values = [data.draw(st.integers(100, 500)) / 100 for _ in range(count)]
    text = answer_text(why, values)
    assert parse(text, count) == tuple(values)
    assert reason(text) == why.strip()


def test_what_we_write_for_training_has_the_form_that_is_paid() -> None:
    values = (1.0, 2.25, 3.5, 4.0, 5.0)
    for prompt in PROMPTS.values():
        text = answer_text("It flickers.", values[: prompt.dimensions], prompt.form)
        assert parse(text, prompt.dimensions) == values[: prompt.dimensions]
        demand: Demand = "lines" if prompt.form == "numbers" else prompt.form
        assert demanded([[text]], demand, numbers=prompt.dimensions).all()


def test_the_reason_is_the_inside_of_think_or_what_stands_before_the_answer() -> None:
    assert reason("<think> It flickers. </think><answer>3</answer>") == "It flickers."
    assert reason("It flickers. <answer>3</answer>") == "It flickers."
    assert reason("<think> It flick") == "It flick"
    assert reason("<think>a <answer>2</answer> b</think><answer>3</answer>") == "a <answer>2</answer> b"


def test_only_a_closed_last_block_counts_as_closed() -> None:
    assert is_closed("<answer>3</answer>")
    assert not is_closed("<answer>3</answer><answer>4")
    assert not is_closed("3")


# --- other scales -----------------------------------------------------------------------------------------------------

ASPECTS = ("spatial", "temporal", "consistency")
NAMED = '<answer>{"temporal": 33.10, "spatial": 57.20, "consistency": 100}</answer>'


@pytest.mark.parametrize(
    ("text", "keys", "values"),
    [
        ("<answer>57.20</answer>", (), (57.2,)),
        ("<answer>The score is 57.20/100.</answer>", (), (57.2,)),
        ("<answer>100.5</answer>", (), None),
        ("<answer>57.20/5</answer>", (), None),
        (NAMED, ASPECTS, (57.2, 33.1, 100.0)),
        ("<answer>57.2</answer>", ASPECTS, None),
        ("<answer>57.2\n33.1\n100</answer>", ASPECTS, None),
        (NAMED.replace("spatial", "sharpness"), ASPECTS, None),
        (NAMED.replace("100", "101"), ASPECTS, None),
    ],
)
def test_an_answer_is_read_on_its_own_scale(text: str, keys: tuple[str, ...], values: tuple[float, ...] | None) -> None:
    assert parse(text, len(keys) or 1, scale=AnswerScale(0, 100), keys=keys) == values


def test_a_scale_maps_onto_opinions_by_a_straight_line_and_leaves_1_to_5_as_it_is() -> None:
    assert [AnswerScale(0, 100).opinion(raw) for raw in (0, 25, 100)] == [1, 2, 5]
    assert AnswerScale(0, 5).opinion(5) == 5
    assert AnswerScale(0, 5).spread(1) == 0.8
    assert AnswerScale().opinion(3.14159) == 3.14159


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Blocks in the sky.", "Blocks in the sky."),
        ("<think>hm</think><answer>Soft.</answer>", "Soft."),
        ("<think>Soft.</think><answer>3\n4</answer>", "Soft."),
        ("</answer>\n4.90\n</answer>", None),
    ],
)
def test_a_description_is_words_or_nothing(text: str, said: str | None) -> None:
    assert words(text) == said
