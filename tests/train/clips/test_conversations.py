"""Both common forms of supervised JSONL are read with their pictures, and what is wrong in a line is said."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import clips, samples
from vqa.errors import UsageError
from vqa.train.clips.conversations import read_conversations
from vqa.train.clips.dataset import TrainingClip
from vqa.train.scratch.model import make_processor, make_tokenizer
from vqa.train.validation import encode_question
from vqa.views import ViewsConfig

SAID = "<think>Soft.</think><answer>\n2.50\n</answer>"
CLIPS = {"a": TrainingClip(clip_id="a", dataset="x", opinion=4.0, load=lambda: samples.random_views("a"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, side in (("one.png", 40), ("two.png", 60)):
        pixels = samples.smooth_picture(np.random.default_rng(side), height=side, width=side)
        Image.fromarray(pixels).save(tmp_path / name)
    clips.write_video(tmp_path / "clip.mp4", width=160, height=96, frames=6)
    return tmp_path


def read(folder: Path, *records: Any) -> list[TrainingClip]:
    path = folder / "reasons.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records))
    return read_conversations(path, CLIPS, views=ViewsConfig(keyframes=4), numbers=1)


def test_images_videos_turns_and_clips_of_the_data_are_read(folder: Path) -> None:
    two = [{"from": "human", "value": "First <image> then <image>?"}, {"from": "gpt", "value": SAID}]
    ask = [{"role": "user", "content": "<video>\nHow good?"}, {"role": "assistant", "content": SAID}]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A slope."},
        {"role": "user", "content": "And how good?"},
        {"role": "assistant", "content": SAID},
    ]
    found = read(
        folder,
        {"id": "pair", "images": ["one.png", "two.png"], "conversations": two},
        {"videos": ["clip.mp4"], "messages": ask},
        {"image": "one.png", "messages": turns},
        {"id": "a", "conversations": [{"from": "gpt", "value": SAID}]},
    )
    assert [one.clip_id for one in found] == ["pair", "reasons:2", "reasons:3", "reasons:3", "a"]
    assert [one.opinion for one in found] == [2.5, 2.5, None, 2.5, 2.5]
    assert [one.dataset for one in found] == ["reasons"] * 4 + ["x"]
    assert [picture.shape[0] for picture in found[0].views().pictures] == [40, 60]
    kinds = [[part["type"] for turn in one.chat(one.views()) for part in turn["content"]] for one in found if one.chat]
    assert kinds[0] == ["text", "image", "text", "image", "text"]
    assert kinds[1] == ["image"] * len(found[1].views().pictures) + ["text"]
    assert kinds[3] == ["text", "image", "text", "text", "text"]
    processor = make_processor(make_tokenizer(["How good?"], vocabulary=300), min_pixels=784, max_pixels=12544)
    for one in found:
        encoded = encode_question(processor, one, prompt="visualquality_r1")
        assert len(encoded["image_grid_thw"]) == len(one.views().pictures)
        if one.chat is not None:
            with pytest.raises(ValueError, match=f"clip {one.clip_id}: asked 'How sharp\\?' beside its own chat"):
                encode_question(processor, one, prompt="visualquality_r1", question="How sharp?")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ({"id": "a"}, "no list `conversations` or `messages`"),
        ({"id": "b", "conversations": [{"from": "gpt", "value": SAID}]}, "'b' is no clip of the data"),
        (
            {"id": "a", "conversations": [{"from": "gpt", "value": 4.63}]},
            "assistant says 4.63, not a text; bare opinions",
        ),
        ({"id": "a", "conversations": [{"from": "human", "value": "?"}]}, "nobody answers"),
        ({"id": "a", "conversations": [{"from": "cat", "value": "?"}]}, "a turn by"),
        ({"image": "gone.png", "conversations": []}, "gone.png is not there; paths are relative"),
        (
            {"image": "one.png", "conversations": [{"from": "human", "value": "<image><image>"}]},
            "2 places <image> or <video> for 1 pictures",
        ),
        ({"image": "one.png", "videos": ["clip.mp4"], "conversations": []}, "1 images and 1 videos"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, record: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(folder, record)
    assert words in str(caught.value)
    assert "line 1" in str(caught.value)


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|vision_start|>", "<image>", "<|im_end|>"])
def test_a_token_of_chats_in_an_answer_is_refused_by_file_and_line(folder: Path, mark: str) -> None:
    good, bad = ({"id": "a", "conversations": [{"from": "gpt", "value": said}]} for said in (SAID, mark + SAID))
    with pytest.raises(UsageError, match=rf"reasons\.jsonl, line 2: the answer holds {re.escape(repr(mark))}"):
        read(folder, good, bad)


@pytest.mark.parametrize(("role", "what"), [("user", "user's text"), ("system", "system's text")])
def test_a_token_of_chats_before_an_answer_is_refused_too(folder: Path, role: str, what: str) -> None:
    turns = [{"role": role, "content": "<|image_pad|>"}, {"role": "user", "content": "<image>How good?"}]
    with pytest.raises(UsageError, match=rf"line 1: the {what} holds '<\|image_pad\|>'"):
        read(folder, {"image": "one.png", "messages": [*turns, {"role": "assistant", "content": SAID}]})
