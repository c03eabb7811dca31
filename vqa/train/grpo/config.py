"""Settings of a GRPO stage, in trl's names, with the constants of the papers."""

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from vqa.config import Strict
from vqa.prompt import PromptName
from vqa.train.grpo.objective import Objective, find_objectives

OBJECTIVES = find_objectives()  # by kind
if TYPE_CHECKING:
    AnyObjective = Objective
else:
    AnyObjective = Annotated[functools.reduce(operator.or_, OBJECTIVES.values()), Field(discriminator="kind")]


class GrpoSettings(Strict):
    """Settings of a GRPO stage.

    Defaults are those of PreResQ-R1 (arXiv 2511.05393) and VisualQuality-R1 (arXiv 2505.14460).
    """

    prompt: PromptName = Field("preresq_video", description="a name of vqa.prompt.PROMPTS")
    questions: tuple[str, ...] = Field((), description="in place of the prompt's, one drawn per clip and step")
    reward: str = Field("preresq_video", description="a name of vqa.rewards.REWARD_PRESETS")
    reward_stage: Literal[1, 2] = Field(1, description="which of PreResQ-R1's two stages the reward is for")
    reward_mode: Literal["paper", "released", "strict"] = Field(
        "paper",
        description="paper or released where the two differ; strict: as paper, wrong orders of pairs pay nothing",
    )
    reward_weights: dict[str, float] | None = Field(
        None, description="weights of the reward's terms in place of the preset's; 0: logged, not paid"
    )
    allow_silent: tuple[str, ...] = Field(
        (), description="terms of the reward that may pay nothing in this run; others that cannot pay stop its start"
    )
    max_steps: int = Field(ge=1, description="updates of the weights")
    clips_per_step: int = Field(
        8, ge=1, description="clips per step over all processes, which the reward compares with one another"
    )
    num_generations: int = Field(6, ge=2, description="answers per clip")
    per_device_train_batch_size: int = Field(48, ge=1, description="answers per forward pass of one process")
    num_mini_batches: int = Field(
        1, ge=1, description="updates per batch of answers, each on its share of them; max_steps counts updates"
    )
    learning_rate: float = Field(1e-6, gt=0, description="peak")
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup"] = Field(
        "linear", description="course of the learning rate from its peak; linear and cosine end at 0"
    )
    lr_scheduler_kwargs: dict[str, float] = Field(
        {}, description="of the schedule: cosine_with_min_lr takes min_lr_rate, the last rate as a share of the peak"
    )
    warmup_steps: float = Field(0, ge=0, description="of a linear start; below 1 a share of max_steps")
    optim: str = Field("adamw_torch_fused", description="transformers' name of the optimiser")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="of the optimiser")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="of the optimiser")
    weight_decay: float = Field(0.0, ge=0, description="of the optimiser")
    max_grad_norm: float = Field(1.0, ge=0, description="clipping of the gradient's norm; 0: none")
    vision_learning_rate: float | None = Field(
        None, ge=0, description="of the vision tower; 0 freezes it; default: learning_rate"
    )
    beta: float = Field(0.04, ge=0, description="weight of the KL to the model before training")
    epsilon: float = Field(0.2, gt=0, description="clipping of the probability ratio")
    epsilon_high: float | None = Field(None, gt=0, description="its upper bound; default: epsilon")
    num_iterations: int = Field(1, ge=1, description="updates per batch of answers")
    temperature: float = Field(1.0, gt=0, description="of sampling, and of the log-probabilities in the loss")
    top_p: float = Field(1.0, gt=0, le=1, description="of sampling")
    max_completion_length: int = Field(256, ge=1, description="tokens of an answer")
    top_entropy_quantile: float = Field(
        1.0, gt=0, le=1, description="share of the tokens, by entropy, that enter the loss (OmniQuality-R: 0.2)"
    )
    objectives: tuple[AnyObjective, ...] = Field(
        (), description="terms of single papers, in order: - {kind: ..., ...}; see vqa/train/grpo/objectives"
    )
    save_steps: int = Field(50, ge=1, description="steps between two checkpoints")
    eval_steps: int = Field(50, ge=1, description="steps between two evaluations on the held-out clips")
    patience: int = Field(20, ge=1, description="batches in a row without anything to learn that stop the run")
    check_first_batch: bool = Field(True, description="stop before the first step if its answers teach nothing")
    shared_prefill: bool = Field(True, description="false: trl's own generation and forward pass, K times the prompt")
    gradient_checkpointing: bool = Field(
        True, description="recompute activations in the backward pass: less memory, more time"
    )
    vllm_mode: Literal["colocate", "server"] | None = Field(
        None, description="where vLLM generates; default: no vLLM, this process generates"
    )
    vllm_server_base_url: str | None = Field(None, description="address of a `vllm serve`, http://host:port")
    vllm_gpu_memory_utilization: float = Field(0.3, gt=0, le=1, description="colocate: share of the GPU's memory")
    vllm_enable_sleep_mode: bool = Field(
        False, description="colocate, on a GPU: vLLM's weights and cache leave its memory during updates"
    )
    seed: int = Field(42, description="of answers, order of clips and questions")

    @model_validator(mode="after")
    def _fit_vllm(self) -> "GrpoSettings":
        if self.vllm_server_base_url is not None and self.vllm_mode != "server":
            raise ValueError(f"vllm_server_base_url is {self.vllm_server_base_url}, which needs vllm_mode: server")
        share = self.vllm_gpu_memory_utilization
        if share != type(self).model_fields["vllm_gpu_memory_utilization"].default and self.vllm_mode != "colocate":
            raise ValueError(f"vllm_gpu_memory_utilization is {share:g}, which needs vllm_mode: colocate")
        if self.vllm_enable_sleep_mode and self.vllm_mode != "colocate":
            raise ValueError("vllm_enable_sleep_mode is true, which needs vllm_mode: colocate")
        return self
