"""What a student is and which state of it: student.yaml and a digest of the folder. Without torch."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from vqa.config import Strict, Values, load
from vqa.errors import ModelError, UsageError

EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "light"
CARD, WEIGHTS, WIDTH = "student.yaml", "student.safetensors", "width.safetensors"
FIXED_VIEWS = ("global_kind", "global_pixels", "spatial", "local_pictures")  # other ones would be other pictures


class EmbeddingConfig(Strict):
    """What is looked at of a clip's global pictures."""

    wholes: int = Field(2, ge=1, le=16, description="frames seen whole, at most")
    whole_pixels: int = Field(224, ge=32, le=1024, description="side of a square of the area that a whole frame gets")
    crops: int = Field(4, ge=1, le=16, description="crops, spread over the frames and their quarters")
    crop_pixels: int = Field(192, ge=64, le=1024, description="side of a crop, at most")


class StudentCard(Strict):
    """What a student is and was made from: student.yaml."""

    format: Literal[1] = 1
    name: str = Field(description="the model_id of its rows")
    encoder: Literal["efficientnet-lite0"] = "efficientnet-lite0"
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    views: Values = Field(description="settings of views it was trained on; FIXED_VIEWS cannot be changed")
    trained_on: list[str] = Field(description="each set, how much of it, and its terms")
    limits: str = Field("", description="what it must not be used for")


def read_card(folder: Path) -> StudentCard:
    """Read the card of a student's folder. Raises ModelError."""
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"student {folder}: no {CARD} with {WEIGHTS}; give the folder that `vqa distill` wrote")
    try:
        return load(folder / CARD, StudentCard)
    except UsageError as error:
        raise ModelError(
            f"student {folder}: not a card of this version ({error}); make it anew with `vqa distill`"
        ) from error


def student_digest(folder: Path) -> str:
    """`blake2b:...` over a student's files."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (CARD, WEIGHTS, *([WIDTH] if (folder / WIDTH).is_file() else [])):
        digest.update(name.encode() + b"\0" + hashlib.blake2b((folder / name).read_bytes()).digest())
    return f"blake2b:{digest.hexdigest()}"
