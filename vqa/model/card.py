"""Schemas of model cards (configs/models) and of `generation`; imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqa.config import Strict, Values, build, configs_folder, merge_values, read_yaml
from vqa.errors import UsageError
from vqa.prompt import HIGHEST, LOWEST, AnswerScale, Layout, PictureLabels, PromptName, dimensions

# What a folder says of itself: never what would run code or reach beyond it.
CARD = "vqa.yaml"
CARRIED = ("prompt", "dtype", "min_pixels", "max_pixels", "views", "generation", "model_engine")


# What of the `model_engine` section a card may settle: how a model fits on its GPUs, no addresses, keys or files.
FITTED = ("tensor_parallel", "gpu_memory", "max_model_len", "compile")

Asked = Literal["published", "own"]
PublishedReading = Literal["first_number", "mean_of_numbers", "whole_answer"]
Key = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z_]*$")]
# What of a card makes the question: another value than the card's own is another question than the published one.
WORDED = ("prompt", "question", "system", "labels", "order")


class QuestionSource(Strict):
    """Where a checkpoint's training question stands: a public file and names in it.

    A name is that of an assignment; `NAME.key.0` goes into a dictionary or list; `{Question}` in its text is replaced
    as `filled` says. Files in Markdown are searched in their code blocks.
    """

    repository: str | None = Field(None, description="owner/name on GitHub; null = the checkpoint's own on the hub")
    revision: str = Field("main", description="branch, tag or commit of the repository")
    path: str = Field("README.md", description="of the file in it")
    after: str | None = Field(None, description="search only behind the first line that holds these words")
    question: str = Field(description="name of the question; chat = the user's turn of the first chat in the file")
    system: str | None = Field(None, description="name of the system turn; null = none")
    intro: str | None = Field(None, description="name of the words before the first picture of a comparison")
    filled: dict[str, str] = Field(default_factory=dict, description="names, by the field of the text they fill")


class AnswerForm(Strict):
    """Form of an answer: numbers on a scale, plain or by JSON key, or a chosen clip."""

    low: float = Field(LOWEST, description="the worst score that it gives")
    high: float = Field(HIGHEST, description="the best")
    numbers: int | None = Field(None, ge=1, le=16, description="how many; null = as many as keys, else as the prompt")
    keys: tuple[Key, ...] = Field((), description="JSON keys of the numbers, in order; their mean is the score")
    choices: tuple[str, ...] = Field((), description="of a comparison: the first is better, the second, as good")
    published_reading: PublishedReading | None = Field(
        None, description="how the released script reads the last answer block (whole_answer: the first block)"
    )

    @model_validator(mode="after")
    def _can_be_read(self) -> "AnswerForm":
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}; swap them")
        if self.numbers and self.keys and self.numbers != len(self.keys):
            raise ValueError(f"numbers={self.numbers}, but {len(self.keys)} keys; leave numbers out")
        if len(self.choices) not in (0, 2, 3):
            raise ValueError(f"{len(self.choices)} choices; give two (first, second) or three (and as good)")
        return self


class ModelCard(Strict):
    """A model that takes pictures and text and writes text."""

    name: str | None = Field(None, description="what people call it")
    source: str = Field(description="embedded, a folder, or an owner/name id of the Hugging Face hub")
    revision: str = Field("main", description="branch, tag or commit on the hub; a row names the commit it came to")
    subfolder: str | None = Field(None, description="of the source, where it holds several models")
    licence: str | None = Field(None, description="of the weights; null = not found")
    unsupported: str | None = Field(None, description="why it cannot be run here; null = it can")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto = as stored")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    device_map: str | None = Field(None, description="null = the first GPU, else the CPU; auto = spread over all GPUs")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the weights")
    prompt: PromptName = Field("preresq_video", description="our own question; left out = there is none for it")
    question: str | None = Field(None, description="words in place of the prompt's")
    system: str | None = Field(None, description="words of a system turn; null = what its template does without one")
    intro: str | None = Field(None, description="of a comparison: words before the first picture")
    description: str | None = Field(None, description="what --describe asks; null = our own words")
    asked: Asked | None = Field(
        None,
        description="published: the words that it was trained with, or refused; own; null = published where at hand",
    )
    published: QuestionSource | None = Field(None, description="where those words stand in public")
    published_description: QuestionSource | None = Field(None, description="where what --describe asks stands")
    task: Literal["score", "comparison"] = Field("score", description="comparison: vqa compare-clips alone runs it")
    reference: bool = Field(False, description="a comparison shows a reference first")
    modality: Literal["images", "video"] = Field("images", description="video: global frames are one video of it")
    order: Literal["pictures_first", "text_first"] = "pictures_first"
    labels: PictureLabels = Field(
        "named", description="before each picture; vision_ids: as add_vision_id of Qwen's templates"
    )
    answer: AnswerForm = Field(default_factory=AnswerForm)
    min_pixels: int | None = Field(None, ge=1, description="area below which its processor enlarges a picture")
    max_pixels: int | None = Field(None, ge=1, description="area above which its processor reduces a picture")
    cpu_threads: int | None = Field(None, ge=1, description="threads of torch in this process; null = leave as it is")
    views: Values = Field(default_factory=dict, description="defaults of the `views` section for this model")
    generation: Values = Field(default_factory=dict, description="defaults of the `generation` section for it")
    model_engine: Values = Field(
        default_factory=dict, description=f"defaults of the `model_engine` section for it: {', '.join(FITTED)}"
    )

    @model_validator(mode="after")
    def _has_room(self) -> "ModelCard":
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels={self.min_pixels} is above max_pixels={self.max_pixels}; swap them")
        return self

    @model_validator(mode="after")
    def _settles_no_address(self) -> "ModelCard":
        if others := ", ".join(key for key in self.model_engine if key not in FITTED):
            raise ValueError(
                f"model_engine: {others} is not a card's to say; give {', '.join(FITTED)} here, others by --set"
            )
        return self

    @property
    def layout(self) -> Layout:
        """How its question is laid out."""
        return Layout(
            labels=self.labels,
            text_first=self.order == "text_first",
            is_video=self.modality == "video",
            system=self.system,
        )

    @property
    def dimensions(self) -> int:
        """How many numbers its answers hold."""
        return self.answer.numbers or len(self.answer.keys) or dimensions(self.prompt)

    @property
    def scale(self) -> AnswerScale:
        """The scale of its answers."""
        return AnswerScale(self.answer.low, self.answer.high)


Readout = Literal["answer", "expected", "published"]
# Settings that came later: left out of digests at these values, so that rows of before stay good.
_LATER = {"repetition_penalty": 1.0, "folder_sampling": False, "describe": False, "deterministic": False}


class GenerationConfig(Strict):
    """How answers are drawn and read; all but the batch limits change the number."""

    k: int = Field(1, ge=1, le=256, description="answers (rollouts) for each clip; the score is their mean")
    generation: Literal["greedy", "sample"] | None = Field(None, description="null = greedy for k = 1, else sample")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="sample among the likeliest tokens that hold this much chance")
    top_k: int | None = Field(None, ge=1, description="sample among this many likeliest tokens")
    seed: int = Field(0, description="another seed, other samples; each clip and rollout has its own stream anyway")
    max_new_tokens: int = Field(512, ge=1, description="length of an answer, reasoning included, at most")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens that were there get less likely")
    folder_sampling: bool = Field(
        False,
        description="what is left out of temperature, top_p, top_k, repetition_penalty: as the model's folder says",
    )
    readout: Readout = Field(
        "answer", description="numbers as written, expected by the model, or read as the released script does"
    )
    describe: bool = Field(False, description="ask a second time, for words without a score")
    deterministic: bool = Field(
        False, description="one clip at a time, logits in float32: no neighbour can change an answer, also in bfloat16"
    )
    batch_size: int = Field(8, ge=1, description="clips at once, at most")
    token_budget: int | None = Field(
        None,
        ge=1,
        description="tokens in the cache at once: clips x k x (prompt + answer); null = what a GPU has room for, "
        "measured with the first clip, and 131072 without one",
    )

    @model_validator(mode="after")
    def _differ(self) -> "GenerationConfig":
        if self.k > 1 and self.generation == "greedy":
            raise ValueError(f"k={self.k} greedy answers would all be the same; set generation to sample, or k to 1")
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are drawn rather than the likeliest taken."""
        return self.generation == "sample" or (self.generation is None and self.k > 1)

    def identity(self) -> Values:
        """The settings that change an answer or its reading, for digests."""
        unused = {name for name, value in _LATER.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude={"batch_size", "token_budget"} | unused)


def find_card(name: str) -> Values:
    """Find a card's values by name, file, model folder or Hugging Face id.

    A name is one of configs/models; a folder's card holds what the `vqa.yaml` in it says (see CARRIED); an id has the
    card whose source it is.

    Raises UsageError naming what there is.
    """
    folder = configs_folder() / "models"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in known:
        return {"name": name} | read_yaml(folder / f"{name}.yaml")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return {"name": path.stem} | read_yaml(path)
    if path.is_dir():
        own = read_yaml(path / CARD) if (path / CARD).is_file() else {}
        carried = {key: own[key] for key in CARRIED if key in own}
        if "prompt" in carried:  # `vqa train` writes the one that it trained with
            carried["asked"] = "published"
        return {"name": path.resolve().name, "source": str(path.resolve())} | carried
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        cards = {stem: read_yaml(folder / f"{stem}.yaml") for stem in known}
        found = [stem for stem, card in cards.items() if str(card.get("source")).lower() == name.lower()]
        if len(found) > 1:
            raise UsageError(
                f"model {name}: {len(found)} cards have this source: {', '.join(found)}. Name one of them."
            )
        return {"name": found[0]} | cards[found[0]] if found else {"name": name.rpartition("/")[2], "source": name}
    raise UsageError(
        f"model {name!r}: no card of that name, folder or hub id. Give a folder, owner/name "
        f"or one of {', '.join(known)}."
    )


def settle(name: str, overrides: Values) -> tuple[ModelCard, GenerationConfig]:
    """Settle a card and its generation settings, with overrides by key of either.

    Raises UsageError for an unknown name or key.
    """
    mine = {key: overrides[key] for key in overrides if key in GenerationConfig.model_fields}
    if isinstance(mine.get("generation"), dict):  # the whole section, as a card writes it
        mine = merge_values(mine.pop("generation"), mine)
    others = {key: overrides[key] for key in overrides if key not in GenerationConfig.model_fields}
    card = build(ModelCard, merge_values(as_asked(find_card(name), others), others), where=f"model {name}")
    generation = merge_values(card.generation, mine)
    return card, build(GenerationConfig, generation, where=f"model {name}, generation")


def as_asked(card: Values, given: Values) -> Values:
    """Card values, without the published question where other words are given."""
    is_other = any(key in given and given[key] != card.get(key) for key in WORDED)
    return card | {"asked": None, "published": None} if is_other else card
