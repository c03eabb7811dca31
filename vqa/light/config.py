"""Settings of `vqa distill`."""

from pathlib import Path

from pydantic import Field, model_validator

from vqa.config import Strict, Values
from vqa.data.synthetic.picture_ladder import (
    LadderConfig,
)
from vqa.light.card import EmbeddingConfig
from vqa.light.rali import RaliConfig
from vqa.light.reasons import TeacherConfig
from vqa.light.regression import RegressionConfig


class OpinionsConfig(Strict):
    """A set of people's opinions to learn from."""

    people: str = Field(description="a name in configs/people, or a file like those")
    without_folds: list[int] = Field(default_factory=list, description="folds that are not looked at")
    weight: float = Field(1.0, gt=0)
    pairs: Path | None = Field(
        None, description="people's comparisons of its pictures, below its folder; for rali.tuning"
    )


class LaddersConfig(LadderConfig):
    """Contents to make ladders of."""

    sources: list[Path] = Field(description="pictures and videos, or folders of them; contents of no test")
    contents: int | None = Field(None, ge=1, description="files taken of these, drawn; null = all")


class DistillConfig(Strict):
    """All settings of `vqa distill`."""

    name: str = Field("light", description="the model_id of the student's rows")
    limits: str = Field("", description="what the student must not be used for, for its card")
    folder: Path = Field(description="of the people sets")
    opinions: list[OpinionsConfig] = Field(default_factory=list, description="the first is the scale")
    teacher: TeacherConfig | None = Field(None, description="a run of vqa score; the scale where no opinions are given")
    ladders: LaddersConfig | None = Field(None, description="null = people's opinions alone")
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    regression: RegressionConfig = Field(default_factory=RegressionConfig)
    rali: RaliConfig | None = Field(None, description="basis vectors with scores; null = one direction, by regression")
    keyframes: int = Field(4, ge=1, description="frames of a video")
    picture_pixels: int = Field(1280, ge=64, description="long side at which a picture is looked at, at most")
    cache: Path = Field(Path(".cache/light"), description="embeddings made before")

    @model_validator(mode="after")
    def _has_a_scale(self) -> "DistillConfig":
        if not (self.opinions or self.teacher or self.ladders):
            raise ValueError("no opinions, no teacher and no ladders: nothing to learn from. Give at least one.")
        return self

    def views(self) -> Values:
        """The settings of views that the student is trained on."""
        return {
            "global_kind": "frames",
            "global_pixels": self.picture_pixels,
            "keyframes": self.keyframes,
            "spatial": "centre",
            "local_pictures": 0,
        }
