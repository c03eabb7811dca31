"""Agreement of answers to pictures and to a caption (CapPO, arXiv 2509.21854)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from vqa.train.grpo.objective import Effect, LossObjective, Update, answer_means, divergence

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin


class CaptionKl(LossObjective):
    """Add weight x KL(pictures || caption) to the loss; advantages x exp(-tau KL).

    The KL of an answer is the mean over its tokens; the caption takes the pictures' place in the prompt, and no
    gradient flows through it. The paper strengthens answers that their caption makes as likely as their pictures do.
    NOT FOUND there: the form of that weight (this one is our choice), tau, the weight of the KL, the prompt's words.
    """

    kind: Literal["caption_kl"]
    needs_captions: ClassVar[bool] = True
    weighs_advantages: ClassVar[bool] = True
    weight: float = Field(0.0, ge=0, description="of the KL in the loss (lambda); NOT FOUND in the paper")
    tau: float = Field(0.0, ge=0, description="of the KL in the weight of advantages; NOT FOUND in the paper")

    @model_validator(mode="after")
    def _does_something(self) -> "CaptionKl":
        if not self.weight and not self.tau:
            raise ValueError("weight and tau are both 0; set one")
        return self

    def apply(self, update: Update) -> Effect:
        """Return the weighted divergence and the weights of the advantages."""
        made = {
            id(clip): update.encode(encode_caption(clip.example.caption, update.processor, question=clip.question))
            for clip in update.clips
        }
        blind = update.logps_given(prompts=[made[id(clip)] for clip in update.clips])
        kl = answer_means(divergence(update.logps, blind), update.mask)
        return Effect(
            loss=self.weight * kl.mean(),
            advantage_weights=(-self.tau * kl.detach()).exp(),
            metrics={"caption_kl": kl.mean().item()},
        )


def encode_caption(caption: str | None, processor: "ProcessorMixin", *, question: str) -> "BatchFeature":
    """Processor's tensors of the question with a caption in the pictures' place."""
    from vqa.model.encode import render

    content = [{"type": "text", "text": f"What the pictures show: {caption}\n"}, {"type": "text", "text": question}]
    text = render(processor, [{"role": "user", "content": content}])
    inputs: BatchFeature = processor(text=[text], return_tensors="pt", add_special_tokens=False)
    return inputs
