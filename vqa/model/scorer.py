"""Scorer: views to scores; an engine answers, the scorer asks and reads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from vqa.config import build
from vqa.errors import ClipError
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.model import readout
from vqa.model.card import GenerationConfig, ModelCard, settle
from vqa.model.engines.config import EngineConfig, check_engine, engine_of, start
from vqa.model.engines.protocol import Answered, ModelEngine, Question
from vqa.model.question import DESCRIBE, check_askable, check_readout, with_words
from vqa.model.resolve import locate_model, with_folder_sampling
from vqa.prompt import words
from vqa.types import Clip, Score, Views
from vqa.views import ViewsConfig, look, view_seed


class Scorer:
    """A model with prompt and settings: `Scorer.load().score_file("a.mp4").score`."""

    def __init__(self, engine: ModelEngine, *, card: ModelCard, generation: GenerationConfig) -> None:
        """Wrap an engine; `Scorer.load` also starts it.

        Args:
            engine: what answers; see vqa.model.engines.
            card: names the question, the form of its answers and the views.
            generation: how answers are drawn and read.

        Raises:
            UsageError: readout "published" with a card that does not say how the released script reads.
        """
        self.card, self.generation, self.engine = card, generation, engine
        check_readout(card, generation)
        published = card.answer.published_reading if generation.readout == "published" else None
        self._form = readout.ReadoutForm(
            dimensions=card.dimensions, scale=card.scale, keys=card.answer.keys, published=published
        )
        self._guard: Guard | None = None

    @classmethod
    def load(cls, source: str = "embedded", *, engine: EngineConfig | None = None, **overrides: object) -> Self:
        """Load a model and its settings.

        Args:
            source: a card's name (configs/models), a card's file, a model's folder, or an id on the Hugging Face hub.
            engine: what answers, on top of what the card says; None: transformers, in this process.
            overrides: keys of ModelCard and GenerationConfig, such as `k=6, device_map="cpu"`.

        Raises:
            UsageError: an unknown card or key, or a model without a question.
            ModelError: the model cannot be loaded, or no server has it.
        """
        card, generation = settle(source, overrides)
        engine = engine_of(card, engine)
        card = with_words(card)
        check_askable(card)
        check_readout(card, generation)
        check_engine(engine, card, generation)
        if generation.folder_sampling:
            location = locate_model(card.source, revision=card.revision, subfolder=card.subfolder)
            generation = with_folder_sampling(generation, location)
        return cls(start(engine, card, generation), card=card, generation=generation)

    @property
    def model_id(self) -> str:
        """Model: "embedded", a hub id, a folder, or its name on the servers."""
        return self.engine.model_id

    @property
    def model_revision(self) -> str:
        """Hub commit, folder digest, or `served` where a server does not say."""
        return self.engine.model_revision

    def close(self) -> None:
        """Let the engine go."""
        self.engine.close()

    def score(self, views: Sequence[Views]) -> list[Score]:
        """Score clips.

        Args:
            views: of each clip, as `vqa.views.look` makes them.

        Returns:
            One score per clip, in order. Its `score` is on 1-5, or None where no answer holds one.

        Raises:
            ClipError: "model" for the first clip on which the model fails; see `try_score`.
            ModelError: the device is lost.
        """
        outcomes = self.try_score(views)
        for outcome in outcomes:
            if isinstance(outcome, ClipError):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Score)]

    def try_score(self, views: Sequence[Views]) -> list[Score | ClipError]:
        """Score clips, with a ClipError in place of each on which the model fails.

        Raises:
            ModelError: the device is lost, or a server refuses us, so that this process can score nothing more.
        """
        questions = [self._question(one) for one in views]
        outcomes = [
            self._read(answered) if isinstance(answered, Answered) else answered
            for answered in self.engine.ask(questions)
        ]
        return self._described(views, outcomes) if self.generation.describe else outcomes

    def score_file(
        self,
        path: Path | str,
        *,
        clip_id: str | None = None,
        deadline_seconds: float = 120.0,
        memory_mb: int | None = 4096,
    ) -> Score:
        """Decode a file in a child process that can be killed, and score it.

        Args:
            path: a video or picture, or a URL.
            clip_id: the seed of sampled answers; None: the file's name. The clip_id of a job's row (the path below
                the folder asked for) gives the row's score.
            deadline_seconds: for reading and for decoding, each. The first call's limits hold for later ones.
            memory_mb: what decoding may allocate, in MiB; None: no limit.

        Raises:
            ClipError: the file cannot be scored; `kind` says why.
            ModelError: the device is lost.
        """
        if self._guard is None:
            memory = memory_mb and memory_mb * 2**20
            self._guard = Guard(deadline_seconds=deadline_seconds, memory_bytes=memory, preload=["vqa.views"])
        settings = build(ViewsConfig, self.card.views, where=f"model {self.model_id}, views")
        clip = Clip(clip_id=clip_id or Path(path).name, uri=str(path))
        seed = view_seed(self._guard.run(fingerprint, clip.uri), clip)
        views: Views = self._guard.run(look, clip, settings, seed=seed)
        return self.score([views])[0]

    def _question(self, views: Views) -> Question:
        return Question(name=views.clip.clip_id, views=views, words=self.card.question, k=self.generation.k)

    def _read(self, answered: Answered) -> Score:
        is_expected = self.generation.readout == "expected"
        given, how = readout.read_all(answered.said, form=self._form, is_expected=is_expected)
        return replace(
            readout.summarise(given, form=self._form, seconds=answered.seconds),
            readout=how,
            prompt_tokens=answered.prompt_tokens,
            answer_tokens=answered.answer_tokens,
        )

    def _described(self, views: Sequence[Views], outcomes: Sequence[Score | ClipError]) -> list[Score | ClipError]:
        """Scores with a description, by a second question about each scored clip."""
        places = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Score)]
        request = self.card.description or DESCRIBE
        questions = [
            Question(name=f"{views[place].clip.clip_id}\0words", views=views[place], words=request, k=1)
            for place in places
        ]
        described = list(outcomes)
        for place, answered in zip(places, self.engine.ask(questions), strict=True):
            score = described[place]
            if isinstance(answered, Answered) and isinstance(score, Score):
                described[place] = replace(
                    score,
                    description=words(answered.said[0].text.strip()),
                    score_seconds=score.score_seconds + answered.seconds,
                    prompt_tokens=_sum(score.prompt_tokens, answered.prompt_tokens),
                    answer_tokens=_sum(score.answer_tokens, answered.answer_tokens),
                )
            elif isinstance(answered, ClipError):
                described[place] = answered
        return described


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
