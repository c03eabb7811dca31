"""Settings of one stage of GRPO, with the constants of the papers."""

from typing import Literal

from pydantic import Field

from vqa.config import Strict
from vqa.prompt import PromptName


class Grpo(Strict):
    """One stage of GRPO. Defaults are PreResQ-R1's and VisualQuality-R1's (methods.md 1.3, 2.2)."""

    prompt: PromptName = "preresq_video"
    questions: tuple[str, ...] = Field((), description="in place of the prompt's words, one drawn a clip and step")
    reward: str = Field("preresq_video", description="a name of vqa.rewards.REWARD_PRESETS")
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
    entropy_share: float = Field(
        1.0, gt=0, le=1, description="share of the tokens, by entropy, that are learned from (OmniQuality-R: 0.2)"
    )
    uncertainty_weight: bool = Field(False, description="Q-Hawkeye's factor on the advantages")
    spread_filter: bool = Field(False, description="OmniQuality-R: groups without a spread of rewards do not count")
    without_blame: bool = Field(False, description="Refine-IQA: nobody is blamed where one answer is fully right")
    perception_gamma: float = Field(0.0, ge=0, description="Q-Hawkeye's perception loss; 1e-4 there")
    perception_eta: float = Field(0.0, ge=0, description="Q-Hawkeye's regulariser of entropy; 1e-3 there")
    caption_lambda: float = Field(0.0, ge=0, description="CapPO's weight of the KL to the caption; NOT FOUND there")
    caption_tau: float = Field(0.0, ge=0, description="CapPO's weight of advantages by that KL; NOT FOUND there")
    save_every: int = Field(50, ge=1, description="steps between two checkpoints")
    judge_every: int = Field(50, ge=1, description="steps between two looks at the held-out slice")
    patience: int = Field(20, ge=1, description="batches without anything to learn before the run is stopped")
    first_look: bool = Field(True, description="refuse before the first step what cannot learn from its first answers")
    shared_prefill: bool = Field(True, description="false: trl's own generation and forward pass, K times the prompt")
    recompute: bool = Field(True, description="activations in the backward pass: less memory, more time")
    vllm: Literal["colocate", "server"] | None = Field(None, description="who writes answers; default: this process")
    vllm_server: str | None = Field(None, description="address of a `vllm serve`, http://host:port")
    vllm_memory: float = Field(0.3, gt=0, le=1, description="colocate: share of the GPU's memory")
    seed: int = 42
