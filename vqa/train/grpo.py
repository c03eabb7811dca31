"""GRPO (arXiv 2402.03300) with trl's GRPOTrainer: our order of clips, shared prefill, rewards, hooks and checks.

Three of trl's steps are replaced: the order of rows (`_get_train_sampler`), generation (`rollout_func`), and what
follows the rewards (`_generate_and_score_completions`, then `_compute_loss`). All else is trl's: normalisation within
groups, clipping, KL, accumulation, checkpoints, several processes.
"""

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from vqa.errors import ModelError, UsageError
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import PresetName, dimensions
from vqa.train import hooks
from vqa.train.checks import Watch
from vqa.train.examples import Example, OneSetSampler, as_dataset
from vqa.train.reward import RankAndScore


class Grpo(BaseModel):
    """One stage of GRPO. Defaults are PreResQ-R1's and VisualQuality-R1's (methods.md 1.3, 2.2)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: PresetName = "preresq_video"
    reward: str = Field("preresq_video", description="a name of vqa.rewards.PRESETS")
    stage: Literal[1, 2] = Field(1, description="of PreResQ-R1's two")
    mode: Literal["paper_code", "strict"] = "paper_code"
    steps: int = Field(ge=1)
    clips: int = Field(8, ge=1, description="clips compared with one another: those of one step on all processes")
    k: int = Field(6, ge=2, description="answers for each clip")
    rows: int = Field(48, ge=1, description="answers that one process sends through the model at once")
    rate: float = Field(1e-6, gt=0)
    vision_rate: float | None = Field(None, ge=0, description="the tower's own rate; 0 freezes it; default: `rate`")
    beta: float = Field(0.04, ge=0, description="weight of the KL to the model before training")
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float | None = Field(None, gt=0)
    iterations: int = Field(1, ge=1, description="updates for each batch of answers")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    entropy_share: float = Field(1.0, gt=0, le=1, description="share of the tokens, by entropy, that are learned from")
    uncertainty_weight: bool = Field(False, description="Q-Hawkeye's factor on the advantages")
    spread_filter: bool = Field(False, description="OmniQuality-R: groups without a spread of rewards do not count")
    without_blame: bool = Field(False, description="Refine-IQA: nobody is blamed where one answer is fully right")
    perception_gamma: float = Field(0.0, ge=0, description="Q-Hawkeye's perception loss; 1e-4 there")
    save_every: int = Field(50, ge=1, description="steps between two checkpoints")
    patience: int = Field(20, ge=1, description="batches without anything to learn before the run is stopped")
    shared_prefill: bool = Field(True, description="false: trl's own generation")
    seed: int = 42


class Trainer(GRPOTrainer):  # type: ignore[misc]  # trl has no types
    """See the module. `sets` are the data sets of the rows; what has no name here goes to trl."""

    def __init__(self, settings: Grpo, reward: RankAndScore, sets: Sequence[str], **kwargs: Any) -> None:
        self._settings, self._reward, self._sets = settings, reward, sets
        self._watch = Watch(patience=settings.patience)
        self._seen: Tensor | None = None  # log-probabilities of the last forward pass
        rollout = self._shared_rollouts if settings.shared_prefill and not kwargs["args"].use_vllm else None
        super().__init__(reward_funcs=reward, rollout_func=rollout, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> OneSetSampler:
        return OneSetSampler(
            self._sets,
            clips=self.args.generation_batch_size // self.num_generations,
            k=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _shared_rollouts(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, list[Any]]:
        """trl's rollout_func: one prefill for each clip of this process, its answers together.

        A row's seed comes from the run's seed, the step, and its place in the global batch, so that it writes the same
        whatever the number of processes. Placeholders of pictures and unused ids are never drawn.
        """
        processor, settings = self.processing_class, self._settings
        first = self.accelerator.process_index * len(prompts)
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p)
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gather_deepspeed3_params=self.args.ds3_gather_for_generation
        ) as model:
            was_training = model.training
            model.eval()
            size = model.get_output_embeddings().weight.shape[0]
            ends = model.generation_config.eos_token_id
            vocabulary = Vocabulary.of(processor.tokenizer, model.config, size=size, ends=ends)
            prompt_ids: list[list[int]] = []
            written: list[list[int]] = []
            for start, stop in _runs(prompts, first, self.num_generations):
                inputs = processor.apply_chat_template(
                    [prompts[start]], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
                )
                step = self.state.global_step
                seeds = [_seed(settings.seed, step, first + row) for row in range(start, stop)]
                (answers,) = roll_out(
                    model,
                    [prefill(model, inputs)],
                    k=stop - start,
                    vocabulary=vocabulary,
                    max_new_tokens=self.max_completion_length,
                    seeds=seeds,
                    sampling=sampling,
                )
                prompt_ids += [inputs["input_ids"][0].tolist()] * (stop - start)
                written += [one.tokens + [vocabulary.ends[0]] * one.is_finished for one in answers]
            model.train(was_training)
        return {"prompt_ids": prompt_ids, "completion_ids": written, "logprobs": None}  # type: ignore[dict-item]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        judged = self._reward.judged
        if judged is None:
            raise ModelError("grpo: trl did not call the reward")
        self._watch(judged)
        local = output["advantages"]
        everyone = self.accelerator.gather(local).view(judged.scores.shape)
        first = self.accelerator.process_index * len(local)
        output["advantages"] = self._hooked(everyone).reshape(-1)[first : first + len(local)]
        return output

    def _hooked(self, advantages: Tensor) -> Tensor:
        """Advantages [B, K] of the whole batch after the recipe's hooks."""
        settings, judged = self._settings, self._reward.judged
        if judged is None:
            return advantages
        if settings.without_blame:
            right = (judged.terms["threshold"] + judged.terms["format"]) == 2
            advantages = hooks.without_blame(advantages, right)
        if settings.uncertainty_weight:
            advantages = advantages * torch.from_numpy(hooks.uncertainty_weight(judged.scores)).to(advantages)
        if settings.spread_filter:
            advantages = advantages * torch.from_numpy(hooks.has_spread(judged.terms["total"])).to(advantages)
        return advantages

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._seen = result[0]
        return result

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        gamma = hooks.perception_weight(self.state.epoch or 0.0, gamma=self._settings.perception_gamma)
        if gamma > 0 and self._seen is not None:
            loss = loss - gamma * self._perception_gain(model, inputs, self._seen)
        if not torch.isfinite(loss):
            raise ModelError(
                f"grpo: the loss is {loss.item()} at step {self.state.global_step}; lower `rate` and go on from the "
                f"last checkpoint in {self.args.output_dir}"
            )
        return loss

    def _perception_gain(self, model: Any, inputs: dict[str, Any], seen: Tensor) -> Tensor:
        std = torch.tensor(self.processing_class.image_processor.image_std).mean().item()
        noise_seed = _seed(self._settings.seed, self.state.global_step, 0)
        pixels = hooks.degraded(inputs["pixel_values"], sigma=25 / 255 / std, seed=noise_seed)
        written = inputs["completion_ids"]
        logps, _, _ = super()._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], written], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            written.size(1),
            pixel_values=pixels,
            **{name: inputs.get(name) for name in ("image_grid_thw", "num_images", "mm_token_type_ids")},
        )
        return hooks.perception_gain(seen, logps, inputs["completion_mask"])


def make_trainer(
    settings: Grpo,
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    folder: Path,
    processes: int = 1,
    **more: Any,
) -> Trainer:
    """A trainer ready for `.train()`; `more` goes to trl's GRPOConfig (bf16, use_cpu, report_to, use_vllm ...).

    Raises UsageError for settings that do not fit each other and for examples that cannot teach.
    """
    answers = settings.clips * settings.k
    if answers % (settings.rows * processes) and answers != min(answers, settings.rows * processes):
        raise UsageError(
            f"grpo: {settings.clips} clips x {settings.k} answers do not divide into {settings.rows} rows on "
            f"{processes} processes; choose rows so that they do"
        )
    if settings.without_blame and settings.reward != "refine_iqa":
        raise UsageError(f"grpo: without_blame belongs to the reward refine_iqa, not {settings.reward}")
    rows = min(settings.rows, answers // processes)
    accumulation = answers // (rows * processes)
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "num_generations": settings.k,
        "num_iterations": settings.iterations,
        "max_steps": settings.steps,
        "learning_rate": settings.rate,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
        "epsilon_high": settings.epsilon_high,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_completion_length": settings.max_new_tokens,
        "top_entropy_quantile": settings.entropy_share,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "save_steps": settings.save_every,
        "logging_steps": 1,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": "none",
    }
    args = GRPOConfig(**arguments | more)
    asked = dimensions(settings.prompt)
    processor.tokenizer.padding_side = "left"  # trl pads prompts so, and takes the processor's columns beside them
    reward = RankAndScore(settings.reward, dimensions=asked, k=settings.k, stage=settings.stage, mode=settings.mode)
    return Trainer(
        settings,
        reward,
        [one.dataset for one in examples],
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=as_dataset(examples, prompt=settings.prompt),
        optimizers=(_optimiser(model, settings), None),
    )


def _optimiser(model: Any, settings: Grpo) -> torch.optim.Optimizer | None:
    """None (trl's own) unless the tower has its own rate."""
    if settings.vision_rate is None:
        return None
    tower = {id(parameter): parameter for parameter in model.model.visual.parameters()}
    for parameter in tower.values():
        parameter.requires_grad_(settings.vision_rate > 0)
    groups = [{"params": [one for one in model.parameters() if id(one) not in tower], "lr": settings.rate}]
    if settings.vision_rate > 0:
        groups.append({"params": list(tower.values()), "lr": settings.vision_rate})
    return torch.optim.AdamW(groups, weight_decay=0.0)


def _runs(prompts: Sequence[Any], first: int, k: int) -> list[tuple[int, int]]:
    """Rows [start, stop) of this process that ask the same: a group may begin on the process before."""
    bounds = [0, *(row for row in range(1, len(prompts)) if (first + row) % k == 0), len(prompts)]
    return list(itertools.pairwise(bounds))


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
