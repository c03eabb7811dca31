"""Scorer: views to scores in batches, with one prefill and K answers per clip."""

import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import torch

from vqa.config import build
from vqa.errors import ClipError, ModelError
from vqa.media.sandbox import Guard
from vqa.media.storage.fingerprint import fingerprint
from vqa.model import readout
from vqa.model.card import GenerationConfig, ModelCard, settle
from vqa.model.encode import encode
from vqa.model.load import Policy, load
from vqa.model.question import DESCRIBE, check_askable, check_readout, with_words
from vqa.model.resolve import with_folder_sampling
from vqa.model.rollout import Prefill, Rollout, Sampling, prefill, roll_out
from vqa.prompt import words
from vqa.types import Clip, Score, Views
from vqa.views import ViewsConfig, look, view_seed

if TYPE_CHECKING:
    from transformers import BatchFeature

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A clip encoded for the model."""

    place: int  # in the caller's list
    views: Views
    inputs: "BatchFeature"
    describing: "BatchFeature | None"  # the same pictures, asked for words
    length: int  # tokens
    seconds: float  # of encoding


class Scorer:
    """A loaded model with its prompt and settings of generation: `Scorer.load().score_file("a.mp4").score`."""

    def __init__(self, policy: Policy, *, card: ModelCard, generation: GenerationConfig | None = None) -> None:
        """Wrap a loaded model; `Scorer.load` also loads it.

        Args:
            policy: model, processor and vocabulary.
            card: names the question, the form of its answers and the views.
            generation: how answers are drawn and read; None: the defaults.

        Raises:
            UsageError: readout "published" with a card that does not say how the released script reads.
            ModelError: readout "expected" with a vocabulary in which digits have no tokens of their own.
        """
        self.card = card
        self.generation = with_folder_sampling(generation or GenerationConfig(), policy.location)
        self._policy = policy
        check_readout(card, self.generation)
        published = card.answer.published_reading if self.generation.readout == "published" else None
        self._form = readout.Form(
            dimensions=card.dimensions, scale=card.scale, keys=card.answer.keys, published=published
        )
        self._guard: Guard | None = None
        if self.generation.readout == "expected" and not policy.vocabulary.has_digits:
            raise ModelError(f"model {self.model_id}: digits have no tokens of their own. Set readout to answer.")

    @classmethod
    def load(cls, source: str = "embedded", **overrides: object) -> Self:
        """Load a model and its settings.

        Args:
            source: a card's name (configs/models), a card's file, a model's folder, or an id on the Hugging Face hub.
            overrides: keys of ModelCard and GenerationConfig, such as `k=6, device_map="cpu"`.

        Raises:
            UsageError: an unknown card or key, or a model without a question.
            ModelError: the model cannot be loaded.
        """
        card, generation = settle(source, overrides)
        card = with_words(card)
        check_askable(card)
        check_readout(card, generation)
        return cls(load(card), card=card, generation=generation)

    @property
    def model_id(self) -> str:
        """The loaded model: "embedded", a hub id, or a folder."""
        return self._policy.location.model_id

    @property
    def model_revision(self) -> str:
        """The state of the loaded model: the hub's commit, or a digest of a folder's configs and weights."""
        return self._policy.location.revision

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
        """Score clips as `score` does, with an error in place of the score of each clip on which the model fails.

        Raises:
            ModelError: the device is lost, so that this process can score nothing more.
        """
        outcomes: dict[int, Score | ClipError] = {}
        batch: list[_Question] = []
        # Sorted by length, longest first, to pad little. Areas predict lengths without encoding all clips at once.
        order = sorted(
            range(len(views)), key=lambda place: -sum(p.shape[0] * p.shape[1] for p in views[place].pictures)
        )
        for place in order:
            question = self._attempt(partial(self._question, place, views[place]))
            if not isinstance(question, _Question):
                outcomes[place] = self._failure(views[place], question)
                continue
            if batch and not self._fits([*batch, question]):
                self._answer_all(batch, outcomes)
                batch = []
            batch.append(question)
        self._answer_all(batch, outcomes)
        return [outcomes[place] for place in range(len(views))]

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

    def _question(self, place: int, views: Views) -> _Question:
        started = time.perf_counter()
        card, processor = self.card, self._policy.processor
        inputs = encode(processor, views, prompt=card.prompt, question=card.question, layout=card.layout)
        describing = None
        if self.generation.describe:
            request = card.description or DESCRIBE
            describing = encode(processor, views, prompt=card.prompt, question=request, layout=card.layout)
        return _Question(
            place=place,
            views=views,
            inputs=inputs,
            describing=describing,
            length=inputs["input_ids"].shape[1],
            seconds=time.perf_counter() - started,
        )

    def _fits(self, batch: Sequence[_Question]) -> bool:
        longest = max(question.length for question in batch) + self.generation.max_new_tokens
        tokens = len(batch) * self.generation.k * longest
        return len(batch) <= self.generation.batch_size and tokens <= self.generation.token_budget

    def _answer_all(self, batch: Sequence[_Question], outcomes: dict[int, Score | ClipError]) -> None:
        """Answer a batch. If it fails, answer its halves (out of memory) or its clips one by one."""
        if not batch:
            return
        scores = self._attempt(partial(self._answer, batch))
        if isinstance(scores, list):
            outcomes.update(zip((question.place for question in batch), scores, strict=True))
            return
        if isinstance(scores, torch.OutOfMemoryError):
            gc.collect()
            torch.cuda.empty_cache()
        if len(batch) == 1:
            outcomes[batch[0].place] = self._failure(batch[0].views, scores)
            return
        size = -(-len(batch) // 2) if isinstance(scores, torch.OutOfMemoryError) else 1
        for start in range(0, len(batch), size):
            self._answer_all(batch[start : start + size], outcomes)

    def _attempt(self, work: Callable[[], T]) -> T | Exception:
        """Return what `work` returns or raises, the exception without its traceback, which would hold on to tensors."""
        try:
            return work()
        except torch.AcceleratorError as error:
            raise ModelError(
                f"model {self.model_id}: the device is lost ({error}). Start this process again."
            ) from error
        except Exception as error:  # whatever a model raises on one clip must cost that clip only
            return error.with_traceback(None)

    def _failure(self, views: Views, error: Exception) -> ClipError:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        way_out = ""
        if isinstance(error, torch.OutOfMemoryError):
            way_out = ". Lower k, max_new_tokens or max_pixels, or use a larger GPU."
        return ClipError("model", f"{views.clip.clip_id}: the model failed ({what}){way_out}")

    def _answer(self, batch: Sequence[_Question]) -> list[Score]:
        generation, policy = self.generation, self._policy
        prompts, seconds = [], []
        for question in batch:
            started = time.perf_counter()
            prompts.append(prefill(policy.model, question.inputs))
            seconds.append(question.seconds + time.perf_counter() - started)
        names = [question.views.clip.clip_id for question in batch]
        seeds = [_seed(generation.seed, name, rollout) for name in names for rollout in range(generation.k)]
        started = time.perf_counter()
        answers = self._roll_out(prompts, k=generation.k, seeds=seeds)
        texts: list[str | None] = [None] * len(batch)
        asked = [question.describing for question in batch if question.describing is not None]
        if asked:
            seeds = [_seed(generation.seed, f"{name}\0words", 0) for name in names]
            told = self._roll_out([prefill(policy.model, inputs) for inputs in asked], k=1, seeds=seeds)
            texts = [words(self._text(one)) for (one,) in told]
        shared = (time.perf_counter() - started) / len(batch)
        scores = []
        for mine, own, text in zip(answers, seconds, texts, strict=True):
            given = [
                readout.read_rollout(one, policy.processor.tokenizer, policy.vocabulary, form=self._form)
                for one in mine
            ]
            scores.append(replace(readout.summarise(given, form=self._form, seconds=own + shared), description=text))
        return scores

    def _roll_out(self, prompts: Sequence[Prefill], *, k: int, seeds: Sequence[int]) -> list[list[Rollout]]:
        generation = self.generation
        return roll_out(
            self._policy.model,
            prompts,
            k=k,
            vocabulary=self._policy.vocabulary,
            max_new_tokens=generation.max_new_tokens,
            seeds=seeds if generation.is_sampled else None,
            sampling=Sampling(
                temperature=generation.temperature,
                top_p=generation.top_p,
                top_k=generation.top_k,
                repetition_penalty=generation.repetition_penalty,
            ),
            keep_digits=generation.readout != "answer" and self._policy.vocabulary.has_digits,
        )

    def _text(self, rollout: Rollout) -> str:
        return str(self._policy.processor.tokenizer.decode(rollout.tokens, skip_special_tokens=True)).strip()


def _seed(seed: int, clip_id: str, rollout: int) -> int:
    """Seed of one rollout of one clip, 63 bits."""
    name = f"{seed}\0{clip_id}\0{rollout}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
