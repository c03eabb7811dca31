"""What a model is and how it is asked: the schemas of configs/models and of the `generation` section. Without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vqa.config import Strict, Values, build, configs_folder, merge, read
from vqa.errors import UsageError
from vqa.prompt import PromptName

# What a folder says of itself: never what would run code or reach beyond it.
CARD = "vqa.yaml"
CARRIED = ("prompt", "dtype", "min_pixels", "max_pixels", "views", "generation")


class ModelCard(Strict):
    """A model that takes pictures and text and writes text."""

    name: str | None = Field(None, description="what people call it")
    source: str = Field(description="embedded, a folder, or an owner/name id of the Hugging Face hub")
    revision: str = Field("main", description="branch, tag or commit on the hub; a row names the commit it came to")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto = as stored")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    device_map: str | None = Field(None, description="null = the first GPU, else the CPU; auto = spread over all GPUs")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the weights")
    prompt: PromptName = Field("preresq_video", description="the question that it was trained on")
    min_pixels: int | None = Field(None, ge=1, description="area below which its processor enlarges a picture")
    max_pixels: int | None = Field(None, ge=1, description="area above which its processor reduces a picture")
    cpu_threads: int | None = Field(None, ge=1, description="threads of torch in this process; null = leave as it is")
    views: Values = Field(default_factory=dict, description="defaults of the `views` section for this model")
    generation: Values = Field(default_factory=dict, description="defaults of the `generation` section for it")

    @model_validator(mode="after")
    def _has_room(self) -> "ModelCard":
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels={self.min_pixels} is above max_pixels={self.max_pixels}; swap them")
        return self


Readout = Literal["answer", "expected"]


class GenerationConfig(Strict):
    """How answers are drawn and read. All but `batch_size` and `token_budget` change the number."""

    k: int = Field(1, ge=1, le=256, description="answers (rollouts) for each clip; the score is their mean")
    generation: Literal["greedy", "sample"] | None = Field(None, description="null = greedy for k = 1, else sample")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="sample among the likeliest tokens that hold this much chance")
    top_k: int | None = Field(None, ge=1, description="sample among this many likeliest tokens")
    seed: int = Field(0, description="another seed, other samples; each clip and rollout has its own stream anyway")
    max_new_tokens: int = Field(512, ge=1, description="length of an answer, reasoning included, at most")
    readout: Readout = Field("answer", description="numbers as written, or expected by the model")
    batch_size: int = Field(8, ge=1, description="clips at once, at most")
    token_budget: int = Field(131_072, ge=1, description="tokens in the cache at once: clips x k x (prompt + answer)")

    @model_validator(mode="after")
    def _differ(self) -> "GenerationConfig":
        if self.k > 1 and self.generation == "greedy":
            raise ValueError(f"k={self.k} greedy answers would all be the same; set generation to sample, or k to 1")
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are drawn rather than the likeliest taken."""
        return self.generation == "sample" or (self.generation is None and self.k > 1)


def find_card(name: str) -> Values:
    """The card's values: of a name in configs/models, a card's file, a model's folder (with what the `vqa.yaml` in it
    says, see CARRIED), or a Hugging Face id.

    Raises UsageError naming what there is.
    """
    folder = configs_folder() / "models"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in known:
        return {"name": name} | read(folder / f"{name}.yaml")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return {"name": path.stem} | read(path)
    if path.is_dir():
        own = read(path / CARD) if (path / CARD).is_file() else {}
        carried = {key: own[key] for key in CARRIED if key in own}
        return {"name": path.resolve().name, "source": str(path.resolve())} | carried
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return {"name": name.rpartition("/")[2], "source": name}
    raise UsageError(f"model {name!r}: no card of that name ({', '.join(known)}), no folder, and not an owner/name id")


def settle(name: str, overrides: Values) -> tuple[ModelCard, GenerationConfig]:
    """A card by name and its generation settings, with overrides by key of either; UsageError for unknown ones."""
    mine = {key: overrides[key] for key in overrides if key in GenerationConfig.model_fields}
    if isinstance(mine.get("generation"), dict):  # the whole section, as a card writes it
        mine = merge(mine.pop("generation"), mine)
    others = {key: overrides[key] for key in overrides if key not in GenerationConfig.model_fields}
    card = build(ModelCard, merge(find_card(name), others), where=f"model {name}")
    generation = merge(card.generation, mine)
    return card, build(GenerationConfig, generation, where=f"model {name}, generation")
