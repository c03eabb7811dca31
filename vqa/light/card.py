"""A student's card, student.yaml, and the digest of its folder; imports no torch."""

import hashlib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from vqa.config import Strict, Values, load_config
from vqa.errors import ModelError, UsageError
from vqa.files import replacing

EMBEDDED_STUDENT = Path(__file__).resolve().parents[1] / "assets" / "light"
CARD, WEIGHTS, WIDTH = "student.yaml", "student.safetensors", "width.safetensors"
CALIBRATION, LINK = "calibration.json", "scale.json"  # to people's opinions; from a reasoner's scores to the student's
Scale = Literal["opinions", "severity"]
RAW = (1.0, 5.0)  # ruined to pristine: ends of the scale of severity
# Other ones would be other pictures than those learnt from. Free are the decoder, its limits, and what has a use that
# was measured or is documented: `snap`, `shown_size`.
FIXED_VIEWS = (
    *("temporal", "keyframes", "change", "keyframe_rate", "global_kind", "global_pixels", "near_frames"),
    *("spatial", "local_pictures"),
)


class EmbeddingConfig(Strict):
    """What is looked at of a clip's global pictures."""

    wholes: int = Field(2, ge=1, le=16, description="frames seen whole, at most")
    whole_pixels: int = Field(224, ge=32, le=1024, description="side of a square of the area that a whole frame gets")
    crops: int = Field(4, ge=1, le=16, description="crops, spread over the frames and their quarters")
    still_grid: int = Field(3, ge=1, le=6, description="rows, and columns, of crops of a still, which has one frame")
    crop_pixels: int = Field(192, ge=64, le=1024, description="side of a crop, at most")
    large_pixels: int = Field(480, ge=32, le=1024, description="side of such a square at which a still is seen too")
    motion: bool = Field(False, description="frames come in pairs of neighbours, as views.near_frames makes them")


class ClipConfig(Strict):
    """CLIP's vision tower as its folder describes it."""

    vision: Values = Field(description="vision_config of config.json")
    processor: Values = Field(description="preprocessor_config.json")


class TowerConfig(Strict):
    """A vision tower of transformers as its folder describes it."""

    vision: Values = Field(description="config.json of the tower")
    processor: Values = Field(description="preprocessor_config.json")
    depths: list[int] = Field(description="hidden states that are taken, 0 is what enters the first layer")


class StudentCard(Strict):
    """What a student is and was made from: student.yaml."""

    format: Literal[2] = 2
    name: str = Field(description="the model_id of its rows")
    encoder: Literal["efficientnet-lite0", "clip", "tower"] = "efficientnet-lite0"
    clip: ClipConfig | None = Field(None, description="of encoder clip, which released RALI has")
    tower: TowerConfig | None = Field(None, description="of encoder tower")
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    views: Values = Field(description="settings of views it was trained on; FIXED_VIEWS cannot be changed")
    words: list[str] = Field(default_factory=list, description="of each basis vector, for the reason; empty without")
    trained_on: list[str] = Field(description="each set, how much of it, and its terms")
    scale: Scale = Field(
        "opinions",
        description="what 1-5 stands for: opinions, or the severity of ladders, a score only once calibrated",
    )
    limits: str = Field("", description="what it must not be used for")


def read_card(folder: Path) -> StudentCard:
    """Read the card of a student's folder. Raises ModelError."""
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"student {folder}: no {CARD} with {WEIGHTS}; give the folder that `vqa distill` wrote")
    try:
        return load_config(folder / CARD, StudentCard)
    except UsageError as error:
        raise ModelError(
            f"student {folder}: not a card of this version ({error}); make it anew with `vqa distill`"
        ) from error


def write_card(folder: Path, card: StudentCard) -> None:
    """Write the card into a student's folder, atomically.

    Width and calibrations that the folder carries go: they were made of another student.
    """
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)
    with replacing(folder / CARD) as draft:
        draft.write_text(text, encoding="utf-8")
    for name in (WIDTH, CALIBRATION, LINK):
        (folder / name).unlink(missing_ok=True)


def student_digest(folder: Path) -> str:
    """`blake2b:...` over a student's files."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (CARD, WEIGHTS, *([WIDTH] if (folder / WIDTH).is_file() else [])):
        digest.update(name.encode() + b"\0" + hashlib.blake2b((folder / name).read_bytes()).digest())
    return f"blake2b:{digest.hexdigest()}"
