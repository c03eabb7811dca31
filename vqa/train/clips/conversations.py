"""Supervised data in the common forms of JSONL, one record per line.

{"id": "a", "images": ["a.png"], "conversations": [{"from": "human", "value": "<image>How good?"}, {"from": "gpt",
"value": "<think>..."}]}
{"videos": ["a.mp4"], "messages": [{"role": "user", "content": "<video>How good?"}, {"role": "assistant", "content":
"..."}]}

`image` and `video` are lists of one. Paths are relative to the file. A record without pictures whose id is a
clip of the data shows that clip's views; without a question too, the prompt's is asked.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vqa.errors import UsageError
from vqa.prompt import parse
from vqa.train.clips.dataset import AnswerWriter, TrainingClip
from vqa.train.types import Chat, Record
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACE = re.compile(r"<(?:image|video)>\n?")
_SPECIAL = re.compile(r"<\|[a-z_]+\|>|<(?:image|video)>|</?s>|<IMG_CONTEXT>")
_LONGEST_SIDE = 4096  # pixels; a larger still is reduced
Turn = tuple[str, str]  # role, text


def read_conversations(
    path: Path, clips: Mapping[str, TrainingClip], *, views: ViewsConfig, numbers: int, seed: int = 0
) -> list[TrainingClip]:
    """Read a training clip per answer, with the turns before it as its question.

    Args:
        path: of the JSONL file.
        clips: of the recipe's data, by id.
        views: how a video is decoded.
        numbers: how many an answer holds.
        seed: of samplers that draw.

    Raises:
        UsageError: naming file and line, for a record of another form and pictures that are not there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"reasons {path}: cannot be read ({error}). Give a JSONL file of conversations.") from error
    found: list[TrainingClip] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            found += _samples(_record(line, where), path, where, clips, views=views, numbers=numbers, seed=seed)
    if not found:
        raise UsageError(f"reasons {path}: no record in it. Give one JSON object per line.")
    return found


def _record(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error}). Give one object per line.") from error
    if not isinstance(record, dict) or not isinstance(record.get("conversations", record.get("messages")), list):
        raise UsageError(
            f"{where}: no list `conversations` or `messages`; see vqa/train/clips/conversations.py for the forms"
        )
    return record


def _samples(
    record: Record,
    path: Path,
    where: str,
    clips: Mapping[str, TrainingClip],
    *,
    views: ViewsConfig,
    numbers: int,
    seed: int,
) -> list[TrainingClip]:
    turns = [_turn(turn, where) for turn in record.get("conversations", record.get("messages", []))]
    images, videos = (_media(record, name, path.parent, where) for name in ("image", "video"))
    name = str(record.get("id", f"{path.stem}:{where.rpartition(' ')[2]}"))
    places = sum(len(_PLACE.findall(text)) for role, text in turns if role == "user")
    shown = len(images) + len(videos)
    if (images and videos) or len(videos) > 1:
        raise UsageError(f"{where}: {len(images)} images and {len(videos)} videos; a record shows images or one video")
    if places not in (0, shown):
        raise UsageError(f"{where}: {places} places <image> or <video> for {shown} pictures; they must agree")
    clip = clips.get(name)
    if not shown and clip is None:
        raise UsageError(f"{where}: shows no image or video, and {name!r} is no clip of the data; name its pictures")
    answers = [at for at, (role, _) in enumerate(turns) if role == "assistant"]
    if not answers:
        raise UsageError(f"{where}: nobody answers (from: gpt, or role: assistant); there is nothing to learn")
    found = []
    for at in answers:
        text, before = turns[at][1], turns[:at]
        marks = sum(len(_PLACE.findall(said)) for role, said in before if role == "user")
        if clip is not None and not shown:
            load = clip.load
        elif videos:
            load = partial(_video, name, videos[0], views, seed)
        else:
            load = partial(_images, name, images[:marks] if places else images)
        if before and not any(role == "user" for role, _ in before):
            raise UsageError(f"{where}: an answer comes before any question; put the human turn first")
        read = parse(text, numbers)
        opinion = float(np.mean(read)) if read else (clip.opinion if clip else None)
        chat = partial(_chat, before) if before else None
        dataset = clip.dataset if clip else str(record.get("dataset_name", path.stem))
        found.append(
            TrainingClip(
                clip_id=name, dataset=dataset, opinion=opinion, load=load, write_answer=_fixed(text), chat=chat
            )
        )
    return found


def _turn(turn: Any, where: str) -> Turn:
    role = _ROLES.get(str(turn.get("from", turn.get("role")))) if isinstance(turn, dict) else None
    if role is None:
        raise UsageError(
            f"{where}: a turn by {str(turn)[:80]!r}; wanted from: human|gpt|system or role: user|assistant"
        )
    text = turn.get("value", turn.get("content"))
    if isinstance(text, list):  # parts, as chat templates take them
        parts = [part if isinstance(part, dict) else {} for part in text]
        text = "".join(str(part.get("text", "")) or f"<{part.get('type')}>" for part in parts)
    if not isinstance(text, str):
        raise UsageError(
            f"{where}: {role} says {text!r}, not a text; bare opinions are for GRPO: vqa data import, then vqa prepare"
        )
    said = text if role == "assistant" else _PLACE.sub("", text)
    if token := _SPECIAL.search(said):
        what = "answer" if role == "assistant" else f"{role}'s text"
        raise UsageError(f"{where}: the {what} holds {token.group()!r}, a token of chats and pictures. Remove it.")
    return role, text


def _media(record: Record, name: str, folder: Path, where: str) -> list[Path]:
    given = record.get(f"{name}s", record.get(name)) or []
    paths = [folder / str(one) for one in ([given] if isinstance(given, str) else given)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UsageError(f"{where}: {missing} is not there; paths are relative to the JSONL file")
    return paths


def _images(name: str, paths: list[Path]) -> Views:
    still = ViewsConfig(global_kind="frames", keyframes=1, global_pixels=_LONGEST_SIDE, local_pictures=0)
    seen = [look(Clip(clip_id=name, uri=str(path)), still) for path in paths]
    return dataclasses.replace(seen[0], global_pictures=tuple(one.global_pictures[0] for one in seen))


def _video(name: str, path: Path, views: ViewsConfig, seed: int) -> Views:
    return look(Clip(clip_id=name, uri=str(path)), views, seed=seed)


def _fixed(text: str) -> AnswerWriter:
    return lambda _, __: text


def _chat(turns: list[Turn], views: Views) -> Chat:
    """Chat of the turns with a picture at each <image>, a video's at its <video>.

    Without a mark they stand before the first question.
    """
    left = len(views.pictures)
    is_marked = any(_PLACE.search(text) for role, text in turns if role == "user")
    chat: Chat = []
    for role, text in turns:
        content: list[dict[str, str]] = []
        if role == "user" and left and not is_marked:
            content, left = [{"type": "image"}] * left, 0
        if role == "user":
            marks = [mark.group() for mark in _PLACE.finditer(text)]
            for part, mark in zip(_PLACE.split(text), [*marks, ""], strict=True):
                content += [{"type": "text", "text": part}] * bool(part)
                count = left if mark.startswith("<video") else min(left, bool(mark))
                content += [{"type": "image"}] * count
                left -= count
        else:
            content = [{"type": "text", "text": text}]
        chat.append({"role": role, "content": content})
    return chat
