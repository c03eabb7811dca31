"""Answers by transformers in this process: batches, K answers from one prefill."""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from vqa.errors import ClipError, ModelError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.encode import encode
from vqa.model.engines.protocol import Answered, Question
from vqa.model.load import Policy
from vqa.model.readout import said
from vqa.model.rollout import Prefill, Sampling, prefill, roll_out
from vqa.model.transfer import Sender, Sent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
TOKENS = 131_072  # in the cache at once, where no room is measured
SHARE = 0.9  # of what is free: the rest is for logits, fragments, and clips larger than the first
AHEAD = 2  # questions that are encoded while a GPU works on others


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A question encoded for the model."""

    place: int  # in the caller's list
    question: Question
    sent: Sent  # its inputs
    length: int  # tokens
    seconds: float  # of encoding


class TransformersEngine:
    """A loaded model, asked in batches."""

    def __init__(
        self, policy: Policy, *, card: ModelCard, generation: GenerationConfig, compiled: bool = False
    ) -> None:
        """Wrap a loaded model; `generation.deterministic` gives it a float32 head.

        Args:
            policy: model, processor and vocabulary.
            card: names the question and its layout.
            generation: how answers are drawn.
            compiled: torch.compile for the steps of an answer; the first batch waits for it.

        Raises:
            ModelError: readout "expected" with a vocabulary in which digits have no tokens of their own.
        """
        self.policy = policy
        self._card, self._generation = card, generation
        self._token_budget = generation.token_budget
        if generation.readout == "expected" and not policy.vocabulary.has_digits:
            raise ModelError(f"model {self.model_id}: digits have no tokens of their own. Set readout to answer.")
        if generation.deterministic:
            _count_head_in_float32(policy.model)
        is_on_gpu = policy.device.type == "cuda"
        self._ahead = AHEAD if is_on_gpu else 0
        self._sender = Sender(policy.device, policy.model.dtype) if is_on_gpu else None
        self._step = torch.compile(policy.model, dynamic=True) if compiled else None

    @property
    def model_id(self) -> str:
        """The loaded model: "embedded", a hub id, or a folder."""
        return self.policy.location.model_id

    @property
    def model_revision(self) -> str:
        """Hub commit, or digest of a folder's configs and weights."""
        return self.policy.location.revision

    def close(self) -> None:
        """Let the model go; it leaves with the engine."""

    def ask(self, questions: Sequence[Question]) -> list[Answered | ClipError]:
        """Answer each question, in order; a ClipError for each on which the model fails.

        Raises:
            ModelError: the device is lost, so that this process can answer nothing more.
        """
        outcomes: dict[int, Answered | ClipError] = {}
        batch: list[Encoded] = []
        # Sorted by length, longest first, to pad little. Areas predict lengths without encoding all clips at once.
        areas = [sum(p.shape[0] * p.shape[1] for p in question.views.pictures) for question in questions]
        order = sorted(range(len(questions)), key=lambda place: -areas[place])
        for place, encoded in zip(order, self._encoded(questions, order, ahead=self._ahead), strict=True):
            if not isinstance(encoded, Encoded):
                outcomes[place] = self._failure(questions[place], encoded)
                continue
            if self._token_budget is None:
                self._token_budget = self._measured_budget(encoded)
            if batch and not self._fits([*batch, encoded]):
                self._answer_all(batch, outcomes)
                batch = []
            batch.append(encoded)
        self._answer_all(batch, outcomes)
        return [outcomes[place] for place in range(len(questions))]

    def encode(self, question: Question, place: int = 0) -> Encoded:
        """A question as the model's inputs, on their way to the GPU where there is one."""
        started = time.perf_counter()
        card = self._card
        inputs = encode(
            self.policy.processor, question.views, prompt=card.prompt, question=question.words, layout=card.layout
        )
        length = inputs["input_ids"].shape[1]
        return Encoded(
            place=place,
            question=question,
            sent=self._sender.send(inputs) if self._sender else Sent(inputs, None),
            length=length,
            seconds=time.perf_counter() - started,
        )

    def _encoded(
        self, questions: Sequence[Question], order: Sequence[int], *, ahead: int
    ) -> Iterator[Encoded | Exception]:
        """Questions encoded in order, `ahead` of them in a thread, or what failed."""
        tasks = [partial(self._attempt, partial(self.encode, questions[place], place)) for place in order]
        if not ahead:
            yield from (task() for task in tasks)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = deque(pool.submit(task) for task in tasks[:ahead])
            for task in (*tasks[ahead:], *[None] * ahead):
                if not waiting:
                    return
                first = waiting.popleft()
                if task:
                    waiting.append(pool.submit(task))
                yield first.result()

    def _fits(self, batch: Sequence[Encoded]) -> bool:
        """Whether these can be answered together, within batch size and token budget."""
        generation = self._generation
        most = 1 if generation.deterministic else generation.batch_size
        return len(batch) <= most and self._tokens(batch) <= (self._token_budget or TOKENS)

    def _tokens(self, batch: Sequence[Encoded]) -> int:
        """Tokens in the cache, of all rows at their end."""
        longest = max(encoded.length for encoded in batch) + self._generation.max_new_tokens
        return sum(encoded.question.k for encoded in batch) * longest

    def _measured_budget(self, encoded: Encoded) -> int | None:
        """Tokens the device has room for, by this clip's prefill; None where that fails."""
        probed = self._attempt(partial(room_beside, self.policy.device, partial(self._prefill, encoded)))
        if isinstance(probed, Exception):
            return 1 if isinstance(probed, torch.OutOfMemoryError) else None
        if probed is None or not probed[0].bytes:
            return TOKENS
        prompt, room = probed
        return max(1, int(SHARE * room * prompt.length / prompt.bytes))

    def _answer_all(self, batch: Sequence[Encoded], outcomes: dict[int, Answered | ClipError]) -> None:
        """Answer a batch; if that fails, its halves (out of memory) or each clip."""
        if not batch:
            return
        answers = self._attempt(partial(self._answer, batch))
        if isinstance(answers, list):
            outcomes.update(zip((encoded.place for encoded in batch), answers, strict=True))
            return
        if isinstance(answers, torch.OutOfMemoryError):
            gc.collect()
            torch.cuda.empty_cache()
            self._token_budget = max(1, self._tokens(batch) // 2)  # so that later batches fit at once
        if len(batch) == 1:
            outcomes[batch[0].place] = self._failure(batch[0].question, answers)
            return
        size = -(-len(batch) // 2) if isinstance(answers, torch.OutOfMemoryError) else 1
        for start in range(0, len(batch), size):
            self._answer_all(batch[start : start + size], outcomes)

    def _attempt(self, work: Callable[[], T]) -> T | Exception:
        """Return what `work` returns or raises, without a traceback that holds tensors."""
        try:
            return work()
        except torch.AcceleratorError as error:
            raise ModelError(
                f"model {self.model_id}: the device is lost ({error}). Start this process again."
            ) from error
        except Exception as error:  # whatever a model raises on one clip must cost that clip only
            return error.with_traceback(None)

    def _failure(self, question: Question, error: Exception) -> ClipError:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        way_out = ""
        if isinstance(error, torch.OutOfMemoryError):
            way_out = ". Lower k, max_new_tokens or max_pixels, or use a larger GPU."
        return ClipError("model", f"{question.views.clip.clip_id}: the model failed ({what}){way_out}")

    def _prefill(self, encoded: Encoded) -> Prefill:
        return prefill(self.policy.model, encoded.sent.ready())

    def _answer(self, batch: Sequence[Encoded]) -> list[Answered]:
        generation, policy = self._generation, self.policy
        prompts, seconds = [], []
        for encoded in batch:
            started = time.perf_counter()
            prompts.append(self._prefill(encoded))
            seconds.append(encoded.seconds + time.perf_counter() - started)
        started = time.perf_counter()
        rollouts = roll_out(
            policy.model,
            prompts,
            k=batch[0].question.k,
            vocabulary=policy.vocabulary,
            max_new_tokens=generation.max_new_tokens,
            seeds=[seed for encoded in batch for seed in encoded.question.seeds(generation)]
            if generation.is_sampled
            else None,
            sampling=Sampling(
                temperature=generation.temperature,
                top_p=generation.top_p,
                top_k=generation.top_k,
                repetition_penalty=generation.repetition_penalty,
            ),
            keep_digits=generation.readout != "answer" and policy.vocabulary.has_digits,
            step=self._step,
        )
        shared = (time.perf_counter() - started) / len(batch)
        tokenizer, vocabulary = policy.processor.tokenizer, policy.vocabulary
        return [
            Answered(
                said=tuple(said(one, tokenizer, vocabulary) for one in mine),
                seconds=own + shared,
                prompt_tokens=encoded.length,
                answer_tokens=sum(len(one.tokens) for one in mine),
            )
            for encoded, mine, own in zip(batch, rollouts, seconds, strict=True)
        ]


def room_beside(device: torch.device, work: Callable[[], T]) -> tuple[T, int] | None:
    """Result of the work, and the bytes of the GPU that its peak leaves free.

    None on a CPU, where the work is not done.
    """
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    done = work()
    torch.cuda.synchronize(device)
    taken = torch.cuda.max_memory_allocated(device) - before
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return done, max(0, torch.cuda.mem_get_info(device)[0] + unused - taken)


def _count_head_in_float32(model: "PreTrainedModel") -> None:
    """Give the model a float32 head, as logits in bfloat16 tie and ties may vary.

    A copy, as the head's weights are often those of the embeddings, which stay as they are.
    """
    head = model.get_output_embeddings()
    if head.weight.dtype == torch.float32:
        return
    exact = torch.nn.Linear(head.in_features, head.out_features, bias=head.bias is not None, device="meta")
    exact = exact.to_empty(device=head.weight.device).float()
    exact.load_state_dict(head.state_dict())
    exact.requires_grad_(False)
    exact.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(), *inputs[1:]))
    model.set_output_embeddings(exact)
