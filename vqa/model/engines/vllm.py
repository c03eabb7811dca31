"""Answers by vLLM in this process; pictures are passed once for K answers."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from vqa.errors import ClipError, ModelError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.encode import padded, render
from vqa.model.engines.config import EngineConfig
from vqa.model.engines.protocol import Answered, Question
from vqa.model.load import load_processor
from vqa.model.readout import Chances, Said, chances_of
from vqa.model.resolve import locate_model
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import messages

hf: Any = transformers
MOST_PICTURES = 64  # of one clip; vLLM allots memory for no more than it is shown
BANNED = -100.0  # added to a logit: as vLLM has it, never drawn


class VllmEngine:
    """Model that vLLM has loaded, asked clip by clip or in vLLM's own batches."""

    def __init__(self, engine: EngineConfig, *, card: ModelCard, generation: GenerationConfig) -> None:
        """Load the model.

        Args:
            engine: GPUs for one model, memory, length.
            card: the model and its question.
            generation: how answers are drawn; deterministic: one clip at a time, the head in float32 and, on a GPU,
                vLLM's batch-invariant kernels, which this process then has for good.

        Raises:
            ModelError: vLLM cannot load it, or digits have no tokens of their own for readout "expected".
        """
        self._card, self._generation = card, generation
        location = locate_model(card.source, revision=card.revision, subfolder=card.subfolder)
        self.model_id, self.model_revision = location.model_id, location.revision
        if location.subfolder:
            raise ModelError(
                f"model {self.model_id}: vLLM takes no sub-folder of the hub. Download it, give the folder."
            )
        self._processor = load_processor(card, location)
        options: dict[str, Any] = {"revision": location.commit} if location.commit else {}
        config = hf.AutoConfig.from_pretrained(location.place, trust_remote_code=card.trust_remote_code, **options)
        self._vocabulary = Vocabulary.of(
            self._processor.tokenizer,
            config,
            size=config.get_text_config().vocab_size,
            ends=_ends(location.place, options),
        )
        if generation.readout == "expected" and not self._vocabulary.has_digits:
            raise ModelError(f"model {self.model_id}: digits have no tokens of their own. Set readout to answer.")
        if generation.deterministic:
            if torch.cuda.is_available():
                os.environ["VLLM_BATCH_INVARIANT"] = "1"
            options["hf_overrides"] = {"head_dtype": "float32"}
        has_areas = card.min_pixels is not None or card.max_pixels is not None
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            import vllm  # sets up logging and signal handling: for those who need it

            self._vllm: Any = vllm
            self._model = vllm.LLM(
                location.place,
                dtype=card.dtype,
                tensor_parallel_size=engine.tensor_parallel,
                distributed_executor_backend="mp" if engine.tensor_parallel > 1 else None,
                gpu_memory_utilization=engine.gpu_memory,
                max_model_len=engine.max_model_len,
                enable_prefix_caching=True,
                limit_mm_per_prompt={"image": MOST_PICTURES, "video": 0},
                mm_processor_kwargs={"size": dict(self._processor.image_processor.size)} if has_areas else None,
                enforce_eager=engine.compile is False,
                trust_remote_code=card.trust_remote_code,
                generation_config="vllm",  # none of the folder's settings of sampling
                **options,
            )
        except Exception as error:  # whatever vLLM raises on a model or a machine
            words = " ".join(str(error).split())[:500]
            raise ModelError(
                f"model {self.model_id}: vLLM cannot load it ({type(error).__name__}: {words}). Try another "
                "--model-engine."
            ) from error

    def close(self) -> None:
        """Let the model go."""
        del self._model

    def ask(self, questions: Sequence[Question]) -> list[Answered | ClipError]:
        """Answer each question, in order; a ClipError for each on which vLLM fails.

        Raises:
            ModelError: vLLM's engine is dead.
        """
        outcomes: dict[int, Answered | ClipError] = {}
        prompts: dict[int, dict[str, Any]] = {}
        started = time.perf_counter()
        for place, question in enumerate(questions):
            try:
                prompts[place] = self._prompt(question)
            except Exception as error:  # whatever a processor raises must cost that clip only
                outcomes[place] = _failure(question, error)
        together = [[place] for place in prompts] if self._generation.deterministic else [list(prompts)]
        for places in together:
            self._answer({place: prompts[place] for place in places}, questions, outcomes)
        share = (time.perf_counter() - started) / max(1, len(questions))
        return [
            replace(outcome, seconds=share) if isinstance(outcome, Answered) else outcome
            for outcome in (outcomes[place] for place in range(len(questions)))
        ]

    def _prompt(self, question: Question) -> dict[str, Any]:
        card, views = self._card, question.views
        text = render(self._processor, messages(card.prompt, card.layout, **views.counts, question=question.words))
        tokens = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]  # the template has written them
        pictures = [Image.fromarray(padded(picture)) for picture in views.pictures]
        return {"prompt_token_ids": tokens, "multi_modal_data": {"image": pictures}}

    def _answer(
        self,
        prompts: dict[int, dict[str, Any]],
        questions: Sequence[Question],
        outcomes: dict[int, Answered | ClipError],
    ) -> None:
        """Answer these prompts. If vLLM refuses one (too long), answer them one by one."""
        if not prompts:
            return
        try:
            results = self._model.generate(
                list(prompts.values()), [self._sampling(questions[place]) for place in prompts], use_tqdm=False
            )
        except self._vllm.v1.engine.exceptions.EngineDeadError as error:
            raise ModelError(f"model {self.model_id}: vLLM has ended ({error}). Start this process again.") from error
        except Exception as error:  # whatever vLLM raises on one clip must cost that clip only
            if len(prompts) == 1:
                (place,) = prompts
                outcomes[place] = _failure(questions[place], error)
                return
            for place, prompt in prompts.items():
                self._answer({place: prompt}, questions, outcomes)
            return
        for place, result in zip(prompts, results, strict=True):
            said = tuple(self._said(output) for output in sorted(result.outputs, key=lambda one: one.index))
            ends = self._vocabulary.ends
            outcomes[place] = Answered(
                said=said,
                seconds=0.0,
                prompt_tokens=len(result.prompt_token_ids),
                answer_tokens=sum(token not in ends for output in result.outputs for token in output.token_ids),
            )

    def _sampling(self, question: Question) -> Any:
        generation, vocabulary = self._generation, self._vocabulary
        is_sampled = generation.is_sampled
        return self._vllm.SamplingParams(
            n=question.k,
            temperature=generation.temperature if is_sampled else 0.0,
            top_p=generation.top_p if is_sampled else 1.0,
            top_k=(generation.top_k or 0) if is_sampled else 0,
            repetition_penalty=generation.repetition_penalty,
            seed=question.seeds(generation)[0] if is_sampled else None,  # the others' are made from it
            max_tokens=generation.max_new_tokens,
            stop_token_ids=list(vocabulary.ends),
            logit_bias=dict.fromkeys(vocabulary.banned, BANNED) or None,
            logprob_token_ids=list(vocabulary.digits) if self._wants_digits else None,
        )

    @property
    def _wants_digits(self) -> bool:
        return self._generation.readout != "answer" and self._vocabulary.has_digits

    def _said(self, output: Any) -> Said:
        tokens = [token for token in output.token_ids if token not in self._vocabulary.ends]
        tokenizer = self._processor.tokenizer
        text = str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return Said(
            text=text, is_finished=output.finish_reason == "stop", chances=self._chances(tokens, output.logprobs)
        )

    def _chances(self, tokens: Sequence[int], logprobs: Any) -> list[Chances | None] | None:
        if not self._wants_digits:
            return None
        digits = self._vocabulary.digits
        logits = np.array([[at[digit].logprob for digit in digits] for at in logprobs[: len(tokens)]], np.float32)
        pieces = self._processor.tokenizer.convert_ids_to_tokens(tokens)
        return chances_of(pieces, logits, self._vocabulary.digit_values)


def _ends(place: str, options: dict[str, Any]) -> int | list[int] | None:
    """The ends of an answer that the model's folder names; None where it names none."""
    try:
        ends: int | list[int] | None = hf.GenerationConfig.from_pretrained(place, **options).eos_token_id
    except OSError:
        return None
    return ends


def _failure(question: Question, error: Exception) -> ClipError:
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ClipError("model", f"{question.views.clip.clip_id}: the model failed ({what})")
