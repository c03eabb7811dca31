"""trl's GRPOTrainer with our order of clips, rollouts, forward pass, hooks and checks.

Replaced are: the order of rows (`_get_train_sampler`), what becomes of a batch (`_prepare_inputs`), generation
(`rollout_func`), the rate of the tower (`create_optimizer`), and the log-probabilities of answers
(`_get_per_token_logps_and_entropies`). All else is trl's: normalisation within groups, clipping, KL, accumulation,
processes.
"""

import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import split_tensor_dict

from vqa.errors import ModelError
from vqa.train.asking import Asking
from vqa.train.clips.dataset import seed_of
from vqa.train.grpo import objectives as hooks
from vqa.train.grpo.config import Grpo
from vqa.train.grpo.dataset import Example, OneSetSampler
from vqa.train.grpo.health import Watch
from vqa.train.grpo.packing import Asked, ask
from vqa.train.grpo.reward import RankAndScore
from vqa.train.modules import parameter_groups
from vqa.train.question import captioned, show


class Trainer(Asking):
    """See the module, and `vqa.train.grpo.build.make_trainer`; what has no name here goes to trl."""

    def __init__(self, settings: Grpo, reward: RankAndScore, examples: Sequence[Example], **kwargs: Any) -> None:
        self._settings, self._reward, self._examples = settings, reward, examples
        self._watch = Watch(patience=settings.patience, check_first_batch=settings.check_first_batch)
        self._shown, self._places, self._noise = {}, [], None
        self._seen: Tensor | None = None  # log-probabilities of the last forward pass
        self._ready: tuple[Any, ...] | None = None  # a forward pass that trl's loss is to use again
        self._buffered_inputs: list[Any] | None = None
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

    def create_optimizer(self, model: Any = None) -> Any:
        """trl's own, unless the tower has its own rate. Made here and not handed over: FSDP parts the weights first."""
        if self._settings.vision_learning_rate is None:
            return super().create_optimizer(model)
        groups = parameter_groups(
            model or self.model, rate=self._settings.learning_rate, vision_rate=self._settings.vision_learning_rate
        )
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        return self.optimizer

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """trl's, without its shuffle: a clip's answers stay together, so its prompt runs once."""
        if not self._settings.shared_prefill:
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = split_tensor_dict(self._generate_and_score_completions(generation_batch), parts)
        return self._buffered_inputs[self._step % parts]

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
                disorder=self._disorder(place),
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
        own = slice(self._first, self._first + len(local))
        output["advantages"] = hooks.weighed(everyone, judged, settings).reshape(-1)[own]
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
            self._noise = seed_of(settings.seed, self.state.global_step, 0)
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
