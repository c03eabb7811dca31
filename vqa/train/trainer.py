"""trl's GRPOTrainer with our order of clips, rollouts, forward pass, hooks and checks.

Replaced are: the order of rows (`_get_train_sampler`), what becomes of a batch (`_prepare_inputs`), generation
(`rollout_func`), and the log-probabilities of answers (`_get_per_token_logps_and_entropies`). All else is trl's:
normalisation within groups, clipping, KL, accumulation, processes.
"""

import hashlib
import itertools
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from vqa.errors import ModelError
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.model.vocabulary import Vocabulary
from vqa.train import hooks
from vqa.train.checks import Watch
from vqa.train.examples import Example, OneSetSampler
from vqa.train.packed import Asked, ask, pack, unpack
from vqa.train.question import Shown, captioned, show
from vqa.train.reward import RankAndScore
from vqa.train.safe import SafeTrainer
from vqa.train.settings import Grpo


class Trainer(SafeTrainer):
    """See the module, and `vqa.train.grpo.make_trainer`; what has no name here goes to trl."""

    def __init__(self, settings: Grpo, reward: RankAndScore, examples: Sequence[Example], **kwargs: Any) -> None:
        self._settings, self._reward, self._examples = settings, reward, examples
        self._watch = Watch(patience=settings.patience, first_look=settings.first_look)
        self._shown: dict[int, Shown] = {}  # the clips of this process's batch, by place
        self._places: list[int] = []  # which of them each row in hand belongs to
        self._seen: Tensor | None = None  # log-probabilities of the last forward pass
        self._ready: tuple[Any, ...] | None = None  # a forward pass that trl's loss is to use again
        self._buffered_inputs: list[Any] | None = None
        self._noise: int | None = None  # seed of the noise over the pictures, where there is any
        rollout = None
        if settings.shared_prefill:
            rollout = self._vllm_rollouts if kwargs["args"].use_vllm else self._rollouts
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")  # a contract test watches it
            super().__init__(reward_funcs=reward, rollout_func=rollout, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> OneSetSampler:
        return OneSetSampler(
            [one.dataset for one in self._examples],
            clips=self.args.generation_batch_size // self.num_generations,
            k=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """trl's, without its shuffle: a clip's answers stay together, so its prompt runs once."""
        if not self._settings.shared_prefill:
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = split_tensor_dict(self._generate_and_score_completions(generation_batch), parts)
        return self._buffered_inputs[self._step % parts]

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The model as one that writes: whole on this process, in eval mode."""
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gather_deepspeed3_params=self.args.ds3_gather_for_generation
        ) as model:
            was_training = model.training
            model.eval()
            yield model
            model.train(was_training)

    def _question(self, place: int) -> str | None:
        """One of the recipe's, the same for all answers of a clip in a step."""
        asked = self._settings.questions
        return asked[_seed(self._settings.seed, self.state.global_step, place, 0) % len(asked)] if asked else None

    def _rollouts(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, Any]:
        """trl's rollout_func: one prefill for each clip of this process, its answers together.

        A row's seed comes from the run's seed, the step, and its place in the global batch, so that it writes the same
        whatever the number of processes. Placeholders of pictures and unused ids are never drawn.
        """
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p)
        first = self.accelerator.process_index * len(prompts)
        seeds = [_seed(self._settings.seed, self.state.global_step, first + row) for row in range(len(prompts))]
        written: list[list[int]] = []
        with self.generating() as model:
            vocabulary = vocabulary_of(model, self.processing_class)
            for group in _batches(_runs(self._places), rows=self.args.per_device_train_batch_size):
                start, stop = group[0][0], group[-1][1]
                answers = roll_out(
                    model,
                    [prefill(model, self._asked(self._places[begin]).inputs) for begin, _ in group],
                    k=group[0][1] - start,
                    vocabulary=vocabulary,
                    max_new_tokens=self.max_completion_length,
                    seeds=seeds[start:stop],
                    sampling=sampling,
                )
                written += [one.tokens + [vocabulary.ends[0]] * one.is_finished for clip in answers for one in clip]
        return {"prompt_ids": self._prompt_ids(), "completion_ids": written, "logprobs": None}

    def _vllm_rollouts(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, Any]:
        """The same by vLLM (trl has given it the weights), which keeps a prompt's prefix for its K answers."""
        ids = self._prompt_ids()
        _, written, logprobs, _ = self.vllm_generation.generate(
            prompts=ids,
            images=[self._shown[place].pictures for place in self._places],
            num_generations=self.num_generations,
            profiler=profiling_context(self, "vLLM.generate"),
        )
        drawn = [[token[0] for token in answer] for answer in logprobs]
        return {"prompt_ids": ids, "completion_ids": written, "logprobs": drawn}

    def _prompt_ids(self) -> list[list[int]]:
        return [self._asked(place).ids.tolist() for place in self._places]

    def _asked(self, place: int) -> Asked:
        asked = self._shown[place].asked
        if asked is None:
            raise ModelError(f"grpo: clip {self._examples[place].clip_id} was not encoded")
        return asked

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        settings, started = self._settings, time.perf_counter()
        self._places = [row["place"] for row in inputs]
        self._shown = {
            place: show(
                self._examples[place],
                self.accelerator.unwrap_model(self.model),
                self.processing_class,
                prompt=settings.prompt,
                question=self._question(place),
                is_encoded=settings.shared_prefill,
                keeps_pictures=self.use_vllm or not settings.shared_prefill,
            )
            for place in dict.fromkeys(self._places)
        }
        rows = []
        for row in inputs:
            shown = self._shown[row["place"]]
            pictures = {} if settings.shared_prefill else {"images": shown.pictures}
            rows.append(row | {"prompt": shown.chat} | pictures)
        output: dict[str, Any] = super()._generate_and_score_completions(rows)
        judged = self._reward.judged
        if judged is None:
            raise ModelError("grpo: trl did not call the reward")
        self._watch(judged, is_first=self.state.global_step == 0)
        local = output["advantages"]
        everyone = self.accelerator.gather(local).view(judged.scores.shape)
        first = self.accelerator.process_index * len(local)
        output["advantages"] = hooks.weighed(everyone, judged, settings).reshape(-1)[first : first + len(local)]
        if settings.shared_prefill:
            output["place"] = torch.tensor(self._places)
        seconds = time.perf_counter() - started
        tokens = int(output["completion_mask"].sum()) * self.accelerator.num_processes
        self._metrics["train"]["rollout/tokens_per_second"].append(tokens / seconds)
        self._metrics["train"]["rollout/seconds"].append(seconds)
        self._metrics["train"]["rollout/clips_encoded"].append(len(self._shown))
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        if self._ready is not None:
            result, self._ready = self._ready, None
            return result
        if not self._settings.shared_prefill:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
            )
        written, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        asked = [self._asked(place) for place in self._places]
        result = self._scored(model, asked, written, mask, rows=batch_size)
        self._seen = result[0]
        return result

    def _scored(
        self, model: Any, asked: Sequence[Asked], written: Tensor, mask: Tensor, *, rows: int | None = None
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities and entropies [answers, T] of what was written to the questions, `rows` answers at once."""
        logps, entropies = [], []
        attention, dtype = self.model.config._attn_implementation, self.model.dtype
        for start in range(0, len(written), rows or len(written)):
            part = slice(start, start + (rows or len(written)))
            lengths = mask[part].sum(dim=1).tolist()
            answers = [tokens[:length] for tokens, length in zip(written[part], lengths, strict=True)]
            runs = _runs([id(one) for one in asked[part]])
            inputs, labels = pack(
                [asked[start + begin] for begin, _ in runs],
                [answers[begin:end] for begin, end in runs],
                is_eager=attention == "eager",
                dtype=dtype,
            )
            if self._noise is not None:
                sigma = 25 / 255 / torch.tensor(self.processing_class.image_processor.image_std).mean().item()
                inputs["pixel_values"] = hooks.degraded(inputs["pixel_values"], sigma=sigma, seed=self._noise)
            with self.accelerator.autocast():
                out = model(**inputs, labels=labels, fused_lm_head=True)
            logps.append(unpack(out.log_probs, labels, mask[part]))
            # The reference's head gives no entropies; nobody asks for them.
            entropies.append(logps[-1] if out.entropy is None else unpack(out.entropy, labels, mask[part]))
        return torch.cat(logps), torch.cat(entropies), None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        settings, written, mask = self._settings, inputs["completion_ids"], inputs["completion_mask"]
        if settings.shared_prefill:
            self._places = inputs["place"].tolist()
        extra: Tensor | float = 0.0
        if settings.caption_lambda or settings.caption_tau:
            asked = [self._asked(place) for place in self._places]
            self._ready = self._scored(model, asked, written, mask)
            self._seen = self._ready[0]
            with torch.no_grad():
                blind, _, _ = self._scored(model, self._captions(), written, mask)
            kl = hooks.answer_means(hooks.divergence(self._seen, blind), mask)
            weight = hooks.caption_weight(kl.detach(), tau=settings.caption_tau)
            inputs = inputs | {"advantages": inputs["advantages"] * weight}
            extra = settings.caption_lambda * kl.mean()
            self._metrics["train"]["caption_kl"].append(kl.mean().item())
        loss: Tensor = super()._compute_loss(model, inputs)
        gamma = hooks.perception_weight(self.state.epoch or 0.0, gamma=settings.perception_gamma)
        if gamma > 0 and self._seen is not None:
            self._noise = _seed(settings.seed, self.state.global_step, 0)
            with torch.no_grad():
                blurred, _, _ = self._scored(model, [self._asked(place) for place in self._places], written, mask)
            self._noise = None
            gain = hooks.perception_gain(self._seen, blurred, mask)
            extra = extra - gamma * gain
            self._metrics["train"]["perception_kl"].append(gain.item())
        if settings.perception_eta and self._seen is not None:
            extra = extra - settings.perception_eta * (self._seen * mask).sum(dim=1).mean()
        loss = loss + extra / self.current_gradient_accumulation_steps
        return self.checked(loss)

    def _captions(self) -> list[Asked]:
        """Each row's question with the caption in place of the pictures, one object a clip."""
        model = self.accelerator.unwrap_model(self.model)
        made = {
            place: ask(
                model,
                captioned(self._examples[place].caption, self.processing_class, question=self._shown[place].question),
            )
            for place in dict.fromkeys(self._places)
        }
        return [made[place] for place in self._places]


def vocabulary_of(model: Any, processor: Any) -> Vocabulary:
    """What the model may write. Raises ModelError where nothing ends an answer."""
    size = model.get_output_embeddings().weight.shape[0]
    return Vocabulary.of(processor.tokenizer, model.config, size=size, ends=model.generation_config.eos_token_id)


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Rows [start, stop) that ask the same, one after another; a clip's first ones may be on the process before."""
    bounds = [0, *(row for row in range(1, len(places)) if places[row] != places[row - 1]), len(places)]
    return list(itertools.pairwise(bounds))


def _batches(runs: Sequence[tuple[int, int]], *, rows: int) -> list[list[tuple[int, int]]]:
    """Neighbouring runs of the same length, together at most `rows` rows (but always one run)."""
    batches: list[list[tuple[int, int]]] = []
    for start, stop in runs:
        last = batches[-1] if batches else []
        if last and last[0][1] - last[0][0] == stop - start and stop - last[0][0] <= rows:
            last.append((start, stop))
        else:
            batches.append([(start, stop)])
    return batches


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
