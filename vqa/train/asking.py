"""The part of the trainer that asks: a batch's clips, the answers written to them, and how likely an answer is."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context

from vqa.errors import ModelError
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.prompt import dimensions
from vqa.train.checkpoints import unsharded
from vqa.train.clips.dataset import seed_of
from vqa.train.clips.degradation import NONE, QUESTION
from vqa.train.grpo import objectives as hooks
from vqa.train.grpo.config import Grpo
from vqa.train.grpo.dataset import Example
from vqa.train.grpo.packing import Asked, batches, once, pack, runs, unpack
from vqa.train.grpo.perturbations import AGAIN, digit_of, out_of_order
from vqa.train.modules import vocabulary_of
from vqa.train.question import Shown
from vqa.train.safe import SafeTrainer
from vqa.types import Views


class Asking(SafeTrainer):
    """See the module; what is declared here is set by `vqa.train.grpo.trainer.Trainer`."""

    _settings: Grpo
    _examples: Sequence[Example]
    _shown: dict[int, Shown]  # the clips of this process's batch, by place
    _places: list[int]  # which of them each row in hand belongs to
    _noise: int | None  # seed of the noise over the pictures, where there is any

    def _question(self, place: int) -> str | None:
        """One of the recipe's, the same for all answers of a clip in a step; or about its damage."""
        asked = self._settings.questions if self._examples[place].damage == NONE else (QUESTION,)
        return asked[seed_of(self._settings.seed, self.state.global_step, place, 0) % len(asked)] if asked else None

    def _disorder(self, place: int) -> Callable[[Views], Views | None] | None:
        """How the clip's frames are put out of order, where the reward asks for it: alike for all its answers."""
        if AGAIN.get(self._settings.reward) != "temporal" or self.use_vllm or not self._settings.shared_prefill:
            return None
        seed = seed_of(self._settings.seed, self.state.global_step, place, 1)
        return partial(out_of_order, seed=seed, is_shuffle=self._settings.reward == "vq_insight")

    def _rollouts(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, Any]:
        """trl's rollout_func; what it returns beside trl's own goes to the reward."""
        with unsharded(self) as model:
            written = self._write(model, range(len(prompts)), self._asked)
            more = self._again(model, written)
        return {"prompt_ids": self._prompt_ids(), "completion_ids": written, "logprobs": None} | more

    def _write(self, model: Any, rows: Sequence[int], asked: Callable[[int], Asked], *salt: int) -> list[list[int]]:
        """Answers of these rows to what is asked of their clips: one prefill for each clip, its answers together.

        A row's seed comes from the run's seed, the step, and its place in the global batch, so that it writes the same
        whatever the number of processes. Placeholders of pictures and unused ids are never drawn.
        """
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p)
        seeds = [seed_of(self._settings.seed, self.state.global_step, self._first + row, *salt) for row in rows]
        places = [self._places[row] for row in rows]
        written: list[list[int]] = []
        vocabulary = vocabulary_of(model, self.processing_class)
        for group in batches(runs(places), rows=self.args.per_device_train_batch_size):
            start, stop = group[0][0], group[-1][1]
            answers = roll_out(
                model,
                [prefill(model, asked(places[begin]).inputs) for begin, _ in group],
                k=group[0][1] - start,
                vocabulary=vocabulary,
                max_new_tokens=self.max_completion_length,
                seeds=seeds[start:stop],
                sampling=sampling,
            )
            written += [one.tokens + [vocabulary.ends[0]] * one.is_finished for clip in answers for one in clip]
        return written

    @property
    def _first(self) -> int:
        """Place of this process's first row in the global batch."""
        return int(self.accelerator.process_index) * len(self._places)

    def _again(self, model: Any, written: list[list[int]]) -> dict[str, list[Any]]:
        """What the reward needs beside the answers, a value for each row; see `vqa.train.grpo.perturbations`."""
        term, k = AGAIN.get(self._settings.reward), self.num_generations
        if term == "temporal":
            few = k // 2 if self._settings.reward == "vq_insight" else k
            asked = {place: one.disordered for place, one in self._shown.items() if one.disordered}
            rows = [row for row, place in enumerate(self._places) if place in asked and (self._first + row) % k < few]
            other = dict(zip(rows, self._texts(self._write(model, rows, asked.__getitem__, 1)), strict=True))
            return {"perturbed": [other.get(row) for row in range(len(written))]}
        if term == "probability":
            numbers, tokens = dimensions(self._settings.prompt), self.processing_class.tokenizer
            are_read, ends, asked_of = list[bool](), list[list[int]](), list[Asked]()
            for place, text in zip(self._places, self._texts(written), strict=True):
                pair = digit_of(text, self._examples[place].opinion, numbers=numbers) or ()
                ends += [tokens(end, add_special_tokens=False)["input_ids"] for end in pair]
                asked_of += [self._asked(place) for _ in pair]
                are_read.append(bool(pair))
            chances = iter(self._chances(model, asked_of, ends))
            found = [(next(chances), next(chances)) if is_read else (math.nan, math.nan) for is_read in are_read]
            return {"think": [one for one, _ in found], "no_think": [one for _, one in found]}
        return {}

    def _texts(self, written: Sequence[list[int]]) -> list[str]:
        return [self.processing_class.tokenizer.decode(one, skip_special_tokens=True) for one in written]

    @torch.no_grad()
    def _chances(self, model: Any, asked: Sequence[Asked], ends: Sequence[list[int]]) -> list[float]:
        """The chance of each text's last token, after the question and what stands before it."""
        if not ends:
            return []
        tokens = [torch.tensor(one, device=model.device) for one in ends]
        written = pad_sequence(tokens, batch_first=True)
        mask = pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True)
        logps, _, _ = self._scored(model, asked, written, mask, rows=self.args.per_device_train_batch_size)
        return [float(own[len(end) - 1].exp()) for own, end in zip(logps, ends, strict=True)]

    def _vllm_rollouts(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, Any]:
        """The same by vLLM (trl has given it the weights), which keeps a prompt's prefix for its K answers."""
        ids = self._prompt_ids()
        is_server, picture = self._settings.vllm_mode == "server", self.processing_class.image_token_id
        # trl drops the prefixes of old weights, not what the old tower saw.
        if not is_server:
            self.vllm_generation.llm.llm_engine.reset_encoder_cache()
        elif self.accelerator.is_main_process:
            client = self.vllm_generation.vllm_client
            client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()
        seen, written, logprobs, _ = self.vllm_generation.generate(
            # In this process vLLM makes a picture's tokens of one placeholder, and of each of many as well.
            prompts=ids if is_server else [once(prompt, picture) for prompt in ids],
            images=[self._shown[place].pictures for place in self._places],
            num_generations=self.num_generations,
            profiler=profiling_context(self, "vLLM.generate"),
        )
        for place, own, its in zip(self._places, ids, seen, strict=True):
            if own != list(its):
                clip = self._examples[place].clip_id
                raise ModelError(
                    f"grpo: clip {clip} is {len(its)} tokens to vLLM, {len(own)} to the model: its processor sizes "
                    "pictures otherwise; save the model with its processor, and begin with that"
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
            spans = runs([id(one) for one in asked[part]])
            inputs, labels = pack(
                [asked[start + begin] for begin, _ in spans],
                [answers[begin:end] for begin, end in spans],
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
