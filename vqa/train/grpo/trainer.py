"""GRPO (arXiv 2402.03300) by trl, with shared prefill and terms of single papers.

Overridden are the order of rows (`_get_train_sampler`: one data set per batch), what becomes of a batch
(`_prepare_inputs`), generation (`rollout_func`), the learning rate of the vision tower (`create_optimizer`), and the
log-probabilities of answers (`_get_per_token_logps_and_entropies`). All else is trl's: normalisation within groups,
clipping, KL, accumulation, processes. vqa.train._compat lists the private methods among them.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import datasets
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from vqa.errors import ModelError
from vqa.model._compat import attention_of
from vqa.model.rollout import Sampling
from vqa.prompt import dimensions
from vqa.train import _compat
from vqa.train.clips.dataset import seed_of
from vqa.train.clips.degradation import NONE, QUESTION
from vqa.train.grpo.config import GrpoSettings
from vqa.train.grpo.dataset import BatchClip, Example, OneSetSampler, load_clip
from vqa.train.grpo.health import LearningCheck
from vqa.train.grpo.objective import AdvantageObjective, Effect, LossObjective, Transform, Update
from vqa.train.grpo.packing import EncodedPrompt, encode_prompt, score_answers
from vqa.train.grpo.perturbations import second_pass, second_views, tenths_of
from vqa.train.grpo.reward import RankAndScore
from vqa.train.grpo.rollouts import ask_vllm, write_answers
from vqa.train.guarded import Guarded
from vqa.train.hardware import HardwareConfig
from vqa.train.lora import lora_config
from vqa.train.metrics_log import peak_memory_gb
from vqa.train.modules import parameter_groups, vocabulary_of
from vqa.train.optimizer import OffloadedAdamW, optimizer_class
from vqa.train.sharding import unsharded
from vqa.train.types import Model, TrainingRow

Scored = tuple[Tensor, Tensor, None]  # log-probabilities and entropies [R, T]; trl's third is a loss of experts


class Trainer(Guarded, GRPOTrainer):  # type: ignore[misc]  # trl has no types
    """GRPOTrainer on clips; made by `vqa.train.grpo.build.make_trainer`."""

    what = "grpo"

    def __init__(
        self,
        settings: GrpoSettings,
        reward: RankAndScore,
        examples: Sequence[Example],
        *,
        model: PreTrainedModel,
        args: GRPOConfig,
        processor: ProcessorMixin,
        dataset: datasets.Dataset,
        hardware: HardwareConfig,
    ) -> None:
        self._settings, self._reward, self._examples, self._hardware = settings, reward, examples, hardware
        tower = settings.vision_learning_rate != 0
        self._check = LearningCheck(
            patience=settings.patience,
            check_first_batch=settings.check_first_batch,
            allow_silent=settings.allow_silent,
        )
        self._clips: dict[int, BatchClip] = {}  # of this process's batch, by place in `examples`
        self._places: list[int] = []  # the clip of each row at hand
        self._buffer: list[dict[str, Tensor]] = []  # the batch of answers in micro-batches
        self._ready: Scored | None = None  # a forward pass that trl's loss is to use again
        rollout = None
        if settings.shared_prefill:
            rollout = self._generate_by_vllm if args.use_vllm else self._generate_here
        with _compat.reference_in_layers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")  # pinned by a contract test
            super().__init__(
                model=model,
                reward_funcs=reward,
                args=args,
                train_dataset=dataset,
                processing_class=processor,
                rollout_func=rollout,
                peft_config=lora_config(model, hardware.lora, tower=tower) if hardware.lora else None,
            )

    # ------------------------------------------------------------------------------------------ batches and optimiser

    def _get_train_sampler(self, dataset: datasets.Dataset | None = None) -> OneSetSampler:
        return OneSetSampler(
            [one.dataset for one in self._examples],
            clips=self.args.generation_batch_size // self.num_generations,
            k=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create trl's optimiser, with the tower's own rate or offloaded moments if set."""
        settings, model = self._settings, model or self.model
        chosen = optimizer_class(self._hardware)
        if settings.vision_learning_rate is None and chosen is not OffloadedAdamW:
            return super().create_optimizer(model)  # type: ignore[no-any-return]
        groups = parameter_groups(model, rate=settings.learning_rate, vision_rate=settings.vision_learning_rate)
        kind, own = self.get_optimizer_cls_and_kwargs(self.args, model)
        if chosen is OffloadedAdamW:
            kind, own = chosen, {name: value for name, value in own.items() if name != "fused"}
        optimizer: torch.optim.Optimizer = kind(groups, **own, weight_decay=settings.weight_decay)
        self.optimizer = optimizer
        return optimizer

    def _prepare_inputs(self, generation_batch: list[TrainingRow]) -> dict[str, Tensor]:
        """Prepare as trl, unshuffled: a clip's answers stay together for one prefill."""
        if not self._settings.shared_prefill:
            batch: dict[str, Tensor] = super()._prepare_inputs(generation_batch)
            return batch
        step = _compat.micro_step(self)
        parts: int = self.args.steps_per_generation
        if step % (parts * self.num_iterations) == 0 or not self._buffer:  # empty on resuming
            self._buffer = _compat.split_batch(self._generate_and_score_completions(generation_batch), parts)
        return self._buffer[step % parts]

    @property
    def _first_row(self) -> int:
        """Place of this process's first row in the global batch."""
        return int(self.accelerator.process_index) * len(self._places)

    # ------------------------------------------------------------------------------------------ answers and advantages

    def _generate_and_score_completions(self, inputs: list[TrainingRow]) -> dict[str, Tensor]:
        settings, started = self._settings, time.perf_counter()
        self._places = [row["place"] for row in inputs]
        self._clips = {
            place: load_clip(
                self._examples[place],
                self.accelerator.unwrap_model(self.model),
                self.processing_class,
                prompt=settings.prompt,
                question=self._question(place),
                is_encoded=settings.shared_prefill,
                keeps_pictures=self.use_vllm or not settings.shared_prefill,
                second=second_views(settings, seed_of(settings.seed, self.state.global_step, place, 1)),
            )
            for place in dict.fromkeys(self._places)
        }
        rows = []
        for row in inputs:
            clip = self._clips[row["place"]]
            pictures = {} if settings.shared_prefill else {"images": clip.pictures}
            rows.append(row | {"prompt": clip.chat} | pictures)
        output: dict[str, Tensor] = super()._generate_and_score_completions(rows)
        batch = self._reward.batch
        if batch is None:
            raise ModelError("grpo: trl did not call the reward")
        self._check(batch, is_first=self.state.global_step == 0)
        own = output["advantages"]
        advantages = self.accelerator.gather(own).view(batch.scores.shape)
        for objective in settings.objectives:
            if isinstance(objective, AdvantageObjective):
                advantages = objective.change_advantages(advantages, batch)
        output["advantages"] = advantages.reshape(-1)[self._first_row : self._first_row + len(own)]
        if settings.shared_prefill:
            output["place"] = torch.tensor(self._places)
        seconds = time.perf_counter() - started
        tokens = int(output["completion_mask"].sum()) * self.accelerator.num_processes
        _compat.add_metric(self, "rollout/tokens_per_second", tokens / seconds)
        _compat.add_metric(self, "rollout/seconds", seconds)
        _compat.add_metric(self, "rollout/clips_encoded", len(self._clips))
        return output

    def _question(self, place: int) -> str | None:
        """Question of the recipe drawn for a clip and step, or the one about damage."""
        questions = self._settings.questions if self._examples[place].damage == NONE else (QUESTION,)
        if not questions:
            return None
        return questions[seed_of(self._settings.seed, self.state.global_step, place, 0) % len(questions)]

    def _prompt(self, place: int) -> EncodedPrompt:
        prompt = self._clips[place].prompt
        if prompt is None:
            raise ModelError(f"grpo: clip {self._examples[place].clip_id} was not encoded")
        return prompt

    def _second_prompt(self, place: int) -> EncodedPrompt:
        prompt = self._clips[place].second
        if prompt is None:
            raise ModelError(f"grpo: clip {self._examples[place].clip_id} has no second prompt")
        return prompt

    def _prompt_ids(self) -> list[list[int]]:
        return [self._prompt(place).ids.tolist() for place in self._places]

    def _generate_here(self, prompts: Sequence[object], _: GRPOTrainer) -> Mapping[str, object]:
        """Answers by this process (trl's rollout_func), and columns for the reward."""
        with unsharded(self) as model:
            written = self._write(model, range(len(prompts)), self._prompt)
            rows = self._second_rows()
            seconds = self._write(model, rows, self._second_prompt, 1) if rows else []
            more = self._perturbed(model, written, dict(zip(rows, seconds, strict=True)))
        return {"prompt_ids": self._prompt_ids(), "completion_ids": written, "logprobs": None} | more

    def _write(
        self, model: Model, rows: Sequence[int], prompt_of: Callable[[int], EncodedPrompt], *salt: int
    ) -> list[list[int]]:
        """Token ids of an answer per row, seeded by run, step and place in global batch."""
        return write_answers(
            model,
            [self._places[row] for row in rows],
            prompt_of,
            vocabulary=vocabulary_of(model, self.processing_class),
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
            max_new_tokens=self.max_completion_length,
            seeds=[seed_of(self._settings.seed, self.state.global_step, self._first_row + row, *salt) for row in rows],
            rows_at_once=self.args.per_device_train_batch_size,
        )

    def _generate_by_vllm(self, prompts: Sequence[object], _: GRPOTrainer) -> Mapping[str, object]:
        """trl's rollout_func: answers by vLLM, to which trl has sent the weights."""
        is_server = self._settings.vllm_mode == "server"
        _compat.reset_vllm_encoder_cache(self, is_server=is_server)
        written, logprobs = ask_vllm(
            self, [(self._prompt(p), self._clips[p].pictures) for p in self._places], is_server=is_server
        )
        more: dict[str, list[object]] = {}
        if (term := second_pass(self._settings)) is not None:
            wanted = self._second_rows()
            # A server is asked by all processes at once, for all answers of a clip: those not wanted are dropped.
            asked = list(range(len(prompts))) if is_server else wanted
            prompts_again = [
                (self._second_prompt(place), self._clips[place].second_pictures)
                if self._clips[place].second
                else (self._prompt(place), self._clips[place].pictures)
                for place in (self._places[row] for row in asked)
            ]
            again, _ = ask_vllm(self, prompts_again, is_server=is_server)
            by_row = dict(zip(asked, again, strict=True))
            # vLLM sends no probabilities of words that it did not write: those are the trained model's own.
            with unsharded(self) if term == "probability" else nullcontext(self.model) as model:
                more = self._perturbed(model, written, {row: by_row[row] for row in wanted})
        return {"prompt_ids": self._prompt_ids(), "completion_ids": written, "logprobs": logprobs} | more

    # ------------------------------------------------------------------- second passes that some rewards need

    def _second_rows(self) -> list[int]:
        """Rows whose clip is asked a second time; VQ-Insight asks half as often."""
        k = self.num_generations
        few = 0 if second_pass(self._settings) is None else k // 2 if self._settings.reward == "vq_insight" else k
        rows = enumerate(self._places)
        return [row for row, place in rows if self._clips[place].second and (self._first_row + row) % k < few]

    def _perturbed(
        self, model: Model, written: list[list[int]], seconds: Mapping[int, list[int]]
    ) -> dict[str, list[object]]:
        """Columns of the second pass for the reward; `seconds` are its answers by row.

        A value per row; see vqa.train.grpo.perturbations.
        """
        term, every = second_pass(self._settings), range(len(written))
        if term is None:
            return {}
        answers = dict(zip(seconds, self._decode(list(seconds.values())), strict=True))
        if term == "temporal":
            return {"perturbed": [answers.get(row) for row in every]}
        numbers, tokens = dimensions(self._settings.prompt), self.processing_class.tokenizer
        ends, behind, read = list[list[int]](), list[EncodedPrompt](), list[int]()
        for row, direct in answers.items():
            place, own = self._places[row], self._decode([written[row]])[0]
            pair = [tenths_of(text, self._examples[place].opinion, numbers=numbers) for text in (own, direct)]
            if None not in pair:
                ends += [tokens(end, add_special_tokens=False)["input_ids"] for end in pair]
                behind += [self._prompt(place), self._second_prompt(place)]
                read.append(row)
        values = self._last_token_probabilities(model, behind, ends)
        think, direct_ones = dict(zip(read, values[::2], strict=True)), dict(zip(read, values[1::2], strict=True))
        columns = {"think": think, "no_think": direct_ones}
        return {name: [one.get(row, math.nan) for row in every] for name, one in columns.items()}

    def _decode(self, written: Sequence[list[int]]) -> list[str]:
        return [self.processing_class.tokenizer.decode(one, skip_special_tokens=True) for one in written]

    @torch.no_grad()
    def _last_token_probabilities(
        self, model: Model, prompts: Sequence[EncodedPrompt], ends: Sequence[list[int]]
    ) -> list[float]:
        """Probability of each text's last token behind its prompt and earlier tokens."""
        if not ends:
            return []
        tokens = [torch.tensor(one, device=model.device) for one in ends]
        written = pad_sequence(tokens, batch_first=True)
        mask = pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True)
        logps, _, _ = self._score(model, prompts, written, mask, rows=self.args.per_device_train_batch_size)
        return [float(own[len(end) - 1].exp()) for own, end in zip(logps, ends, strict=True)]

    # ------------------------------------------------------------------------------------------------ update

    def _get_per_token_logps_and_entropies(
        self,
        model: Model,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **pictures: object,  # trl's keys change from family to family
    ) -> Scored:
        if self._ready is not None:
            result, self._ready = self._ready, None
            return result
        if not self._settings.shared_prefill:
            scored: Scored = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **pictures
            )
            return scored
        written, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        return self._score(model, [self._prompt(place) for place in self._places], written, mask, rows=batch_size)

    def _score(
        self,
        model: Model,
        prompts: Sequence[EncodedPrompt],
        written: Tensor,
        mask: Tensor,
        *,
        rows: int | None = None,
        transform: Transform | None = None,
    ) -> Scored:
        """Score answers by `score_answers` in the precision of the run."""
        with self.accelerator.autocast():
            scored = score_answers(
                model,
                prompts,
                written,
                mask,
                attention=attention_of(self.model),
                dtype=self.model.dtype,
                rows=rows,
                transform=transform,
            )
        return *scored, None

    def _compute_loss(self, model: Model, inputs: dict[str, Tensor]) -> Tensor:
        settings = self._settings
        if settings.shared_prefill:
            self._places = inputs["place"].tolist()
        objectives = [one for one in settings.objectives if isinstance(one, LossObjective)]
        if not objectives:
            return self.checked(super()._compute_loss(model, inputs))
        update = self._update(model, inputs["completion_ids"], inputs["completion_mask"])
        extra: Tensor | float = 0.0
        for objective in (one for one in objectives if one.weighs_advantages):
            effect = self._effect(objective, update)
            extra = extra if effect.loss is None else extra + effect.loss
            if effect.advantage_weights is not None:
                inputs = inputs | {"advantages": inputs["advantages"] * effect.advantage_weights}
        loss: Tensor = super()._compute_loss(model, inputs)
        for objective in (one for one in objectives if not one.weighs_advantages):
            effect = self._effect(objective, update)
            extra = extra if effect.loss is None else extra + effect.loss
        return self.checked(loss + extra / self.current_gradient_accumulation_steps)

    def _effect(self, objective: LossObjective, update: Update) -> Effect:
        effect = objective.apply(update)
        if effect.advantage_weights is not None and not objective.weighs_advantages:
            raise ModelError(f"grpo: objective {objective.kind} weighs advantages, and its class does not say so.")
        for name, value in effect.metrics.items():
            _compat.add_metric(self, name, value)
        return effect

    def _update(self, model: Model, written: Tensor, mask: Tensor) -> Update:
        """Run the forward pass, which trl's loss reuses, and describe it for objectives."""
        prompts = [self._prompt(place) for place in self._places]
        self._ready = self._score(model, prompts, written, mask)

        @torch.no_grad()
        def score(others: Sequence[EncodedPrompt] | None, transform: Transform | None) -> Tensor:
            return self._score(model, others or prompts, written, mask, transform=transform)[0]

        return Update(
            logps=self._ready[0],
            mask=mask,
            clips=[self._clips[place] for place in self._places],
            processor=self.processing_class,
            epoch=self.state.epoch or 0.0,
            seed=seed_of(self._settings.seed, self.state.global_step, 0),
            encode=partial(encode_prompt, self.accelerator.unwrap_model(self.model)),
            score=score,
        )

    # ------------------------------------------------------------------------------------------------ metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as trl does, with clips per second and the peak of memory."""
        if seconds := _compat.step_seconds(self):
            clips = self.args.generation_batch_size // self.num_generations / self.num_iterations
            clips /= self._settings.num_mini_batches
            logs["clips_per_second"] = clips * len(seconds) / sum(seconds)
            logs["peak_memory_gb"] = peak_memory_gb()
        super().log(logs, start_time)
