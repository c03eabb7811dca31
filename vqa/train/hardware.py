"""Settings that fit a recipe to the machine, its block `hardware:`.

The rest of a recipe is the method. Light to import: recipes are checked before torch is.
"""

from typing import Literal

from pydantic import Field, model_validator

from vqa.config import Strict, refuse_renamed

# The keys of `lora` before 0.1.0, and what they are called now.
RENAMED_LORA = {"rank": "'r'", "alpha": "'lora_alpha'", "dropout": "'lora_dropout'", "targets": "'target_modules'"}


class Lora(Strict):
    """LoRA (arXiv 2106.09685) in peft's names: only low-rank additions are trained."""

    r: int = Field(16, ge=1, description="rank of the additions")
    lora_alpha: int = Field(32, ge=1, description="the additions are scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="before the additions")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="layers of the text model that get additions, by name",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_key(cls, values: object) -> object:
        return refuse_renamed(values, RENAMED_LORA)


class HardwareConfig(Strict):
    """How a recipe fits its machines; one block for all its stages."""

    auto: bool = Field(
        False, description="choose sharding and offload for the GPUs at hand (`hardware: auto`); see vqa/train/plan.py"
    )
    sharding: Literal["none", "fsdp2", "zero3"] = Field(
        "none",
        description="none: a whole copy on each process; fsdp2 (torch) or zero3 (DeepSpeed): weights, gradients and "
        "the optimiser's state in equal shards over all processes",
    )
    offload: Literal["none", "optimizer", "parameters"] = Field(
        "none",
        description="what lies in host memory between uses: the optimiser's moments (with zero3 its float32 "
        "weights too), or the shards of the weights as well",
    )
    master_weights: bool = Field(
        True,
        description="weights and their updates in float32, with products in the recipe's `precision`; false: weights, "
        "gradients and the optimiser's moments in `precision` itself",
    )
    optimizer_bits: Literal[32, 8] = Field(
        32, description="of each of the optimiser's moments; 8: AdamW of torchao, quantised in blocks"
    )
    vision_tower: Literal["train", "frozen"] = Field(
        "train", description="train: as each stage's vision_learning_rate has it; frozen: in all stages"
    )
    lora: Lora | None = Field(
        None,
        description="train low-rank additions in place of the weights of each stage; merged into them at its end. The "
        "vision tower's linear layers get additions too, unless it is frozen",
    )

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights."""
        return self.sharding != "none"

    @property
    def taught(self) -> dict[str, object]:
        """Settings that weights depend on, without defaults: digests of older runs stay."""
        apart = {"auto", "sharding", "offload"}
        return self.model_dump(mode="json", exclude=apart, exclude_defaults=True)

    @model_validator(mode="before")
    @classmethod
    def _take_auto(cls, values: object) -> object:
        return {"auto": True} if values == "auto" else values

    @model_validator(mode="after")
    def _fit(self) -> "HardwareConfig":
        if self.auto and (self.is_sharded or self.offload != "none"):
            raise ValueError("auto chooses sharding and offload itself; give these, or auto: true")
        if self.offload == "parameters" and not self.is_sharded:
            raise ValueError(
                "offload: parameters needs shards; set sharding to fsdp2 or zero3 (--workers 1 is enough), or offload: "
                "optimizer"
            )
        if self.offload == "optimizer" and self.optimizer_bits == 8:
            raise ValueError("moments of 8 bits stay on the device; set offload: none, or optimizer_bits: 32")
        if self.sharding == "zero3" and not self.master_weights:
            raise ValueError("zero3 keeps float32 master weights; set master_weights: true, or sharding: fsdp2")
        if self.sharding == "zero3" and self.optimizer_bits == 8:
            raise ValueError("zero3 flattens weights, which torchao's optimiser does not take; set optimizer_bits: 32")
        return self


WHOLE = HardwareConfig()  # a whole copy on each process, all of it trained
