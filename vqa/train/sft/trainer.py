"""Supervised fine-tuning, the stage "cold start", by transformers' Trainer.

Learnt are a short reason, then the numbers. The example drawn at each step depends only on the seed and the step, not
on the number of processes or on restarts. Where the tower is frozen and `cache_features` set, each view goes through it
once, and a step trains the text model alone.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    PrinterCallback,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from vqa.errors import UsageError
from vqa.files import replacing
from vqa.prompt import PromptName
from vqa.train import _compat
from vqa.train.checkpoints import Trained
from vqa.train.clips.dataset import TrainingClip
from vqa.train.context import StageContext
from vqa.train.guarded import Guarded, resume_from
from vqa.train.lora import add_lora, mark_trained, merge_lora
from vqa.train.metrics_log import log_held_out, reporters
from vqa.train.modules import parameter_groups
from vqa.train.optimizer import optimizer_class
from vqa.train.recipe import ColdStart
from vqa.train.scratch.warmup import rate_at
from vqa.train.sft.features import IGNORED, EncodedClip, FeatureCache, cache_features, collate, encode_clip
from vqa.train.sharding import loading_once, unsharded
from vqa.train.types import Batch, Model
from vqa.train.validation import validate

MEAN = "mean.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws(Dataset[tuple[EncodedClip, str]]):
    """Draws of a clip and one of its answers, a function of seed and index alone."""

    clips: Sequence[TrainingClip]
    processor: ProcessorMixin
    prompt: PromptName
    count: int
    seed: int
    cache: FeatureCache | None = None  # drawn from in place of the clips

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[EncodedClip, str]:
        generator = np.random.default_rng((self.seed, 1, index))
        if self.cache is not None:
            encoded = self.cache.draw(generator)
        else:
            clip = self.clips[int(generator.integers(len(self.clips)))]
            encoded = encode_clip(self.processor, clip, prompt=self.prompt)
        write = encoded.clip.write_answer
        if write is None:
            raise UsageError(f"clip {encoded.clip.clip_id}: no reason to learn from. Give `reasons`.")
        return encoded, write(generator, self.prompt)


class Supervised(Guarded, Trainer):
    """Trainer of a cold start; `mean`: running means of weights under `ema_decay`."""

    what = "cold start"

    def __init__(
        self,
        settings: ColdStart,
        context: StageContext,
        *,
        model: nn.Module,
        args: TrainingArguments,
        draws: Draws,
    ) -> None:
        self._settings, self._context, self._draws, self.metrics = settings, context, draws, context.log
        super().__init__(
            model=model,
            args=args,
            train_dataset=draws,
            processing_class=draws.processor,  # a checkpoint is a whole model, to score with or to start from
            data_collator=partial(collate, draws.processor, answer_weight=settings.answer_weight),
        )
        self.before_write = context.before_write
        self.model_accepts_loss_kwargs = False  # the loss is a mean over answers
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        self.mean = [one.detach().clone() for one in self.trained] if settings.ema_decay else []
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Dataset[object] | None = None) -> SequentialSampler:
        return SequentialSampler(self._draws)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """AdamW with the tower at its own learning rate."""
        settings = self._settings
        groups = parameter_groups(
            model or self.model, rate=settings.learning_rate, vision_rate=settings.vision_learning_rate
        )
        kind = optimizer_class(self._context.hardware)
        self.optimizer = kind(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        """Linear over 20 steps, then half a cosine down to a twentieth.

        Not transformers' cosine_with_min_lr, whose first step has a learning rate of 0.
        """
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer or self.create_optimizer(),
            lambda step: rate_at(step, steps=num_training_steps, peak=1.0, warm=20),
        )
        _compat.mark_scheduler_created(self)
        return self.lr_scheduler

    def compute_loss(self, model: Model, inputs: Batch, *_: object, **__: object) -> Tensor:
        """Weighted cross-entropy of the answers' tokens."""
        labels, weights, columns = (inputs.pop(name) for name in ("labels", "weights", "columns"))
        wanted = labels[:, -columns + 1 :] != IGNORED
        # Only the columns of answers go through the output layer.
        precision = self._context.precision
        is_reduced = precision != torch.float32
        with torch.autocast(labels.device.type, precision) if is_reduced else nullcontext():
            logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits[:, :-1][wanted]
        losses = F.cross_entropy(logits.float(), labels[:, -columns + 1 :][wanted], reduction="none")
        weight = weights[:, -columns + 1 :][wanted]
        loss = self.checked((losses * weight).sum() / weight.sum())
        self.metrics.add("loss", loss.item())
        return loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.mean and self.args.should_save:
            save_file({str(place): one for place, one in enumerate(self.mean)}, Path(output_dir) / MEAN)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.mean and checkpoint:
            saved = load_file(Path(checkpoint) / MEAN)
            for place, one in enumerate(self.mean):
                one.copy_(saved[str(place)])


class _BestWeights(TrainerCallback):
    """Callback that evaluates the mean of the weights and keeps the best on disk.

    It averages at each step and evaluates on held-out clips. The SRCC of single steps differs by 0.05 from that of 40
    steps before, so their mean is evaluated and kept. Not transformers' load_best_model_at_end, which evaluates and
    keeps the weights of a single step.
    """

    def __init__(self, trainer: Supervised, validate: Callable[..., dict[str, float]] | None) -> None:
        self._trainer, self._validate = trainer, validate
        self.path = Path(trainer.args.output_dir) / "best.safetensors"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        trainer, settings = self._trainer, self._trainer._settings
        weight_of_new = max(1 - settings.ema_decay, 9 / (9 + state.global_step))  # so that the start is soon forgotten
        for old, new in zip(trainer.mean, trainer.trained, strict=False):
            old.lerp_(new.detach(), weight_of_new)
        if state.global_step % settings.eval_steps and state.global_step != state.max_steps:
            return
        found = {} if self._validate is None else self._evaluate(self._validate)
        if found:
            log_held_out(trainer, found, control)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            held_out = {f"held_out_{name}": value for name, value in found.items()}
            trainer.metrics.write(state.global_step, state.max_steps, **held_out)

    def _evaluate(self, validate: Callable[..., dict[str, float]]) -> dict[str, float]:
        trainer = self._trainer
        if trainer.is_sharded:  # no process can save the weights by itself, so the last ones are used
            with unsharded(trainer) as model:
                return validate(model)
        own = [one.data for one in trainer.trained]
        try:
            for one, mean in zip(trainer.trained, trainer.mean or own, strict=True):
                one.data = mean
            with unsharded(trainer) as model:
                found = validate(model)
            worth = found["srcc"] * found["parsed"]  # an answer that cannot be parsed ranks nothing
            worth = -2.0 if math.isnan(worth) else worth
            if trainer.is_world_process_zero() and worth > self.record():
                weights = {str(place): one.detach().contiguous() for place, one in enumerate(trainer.trained)}
                trainer.before_write()
                with replacing(self.path) as draft:
                    save_file(weights, draft, metadata={"worth": repr(worth)})
        finally:
            for one, data in zip(trainer.trained, own, strict=True):
                one.data = data
        return found

    def record(self) -> float:
        """SRCC x share of parsed answers of the best weights so far; -inf before any."""
        if not self.path.is_file():
            return -math.inf
        with safe_open(self.path, "pt") as file:
            return float(file.metadata()["worth"])


def cold_start(
    model: nn.Module,
    processor: ProcessorMixin,
    clips: Sequence[TrainingClip],
    held_out: Sequence[TrainingClip],
    *,
    settings: ColdStart,
    context: StageContext,
) -> Trained:
    """Train a model on the clips' answers; resumes from the stage's last checkpoint.

    Args:
        model: in float32, as `vqa.train.checkpoints.load_for_training` gives it.
        processor: of the model.
        clips: each with `write_answer`; several may show the same clip.
        held_out: clips that choose the weights, and so are no test; may be empty.
        settings: of the stage.
        context: of the stage.

    Returns:
        The model with the weights of the best SRCC times share of parsed answers on `held_out`; with the last ones
        where that is empty. With LoRA on weights in bfloat16 the trainer that holds these; under FSDP and ZeRO the
        trainer, which holds the last weights.

    Raises:
        UsageError: for clips without an answer, and settings that do not fit the machine.
        ModelError: for a loss or gradient that is not finite, and a full disk.
    """
    bare = next((clip.clip_id for clip in clips if clip.write_answer is None), None)
    if bare is not None:
        raise UsageError(f"cold start: clip {bare} has no reason to learn from. Give `reasons`, or data with reasons.")
    processes, seed, hardware = context.processes.num_processes, context.seed, context.hardware
    rows = settings.per_device_train_batch_size or max(1, settings.global_batch_size // processes)
    if settings.global_batch_size % (rows * processes):
        raise UsageError(
            f"cold start: a batch of {settings.global_batch_size} does not divide into batches of {rows} on "
            f"{processes} processes. Choose per_device_train_batch_size so that it does."
        )
    steps = settings.max_steps or math.ceil((settings.num_train_epochs or 0) * len(clips) / settings.global_batch_size)
    cache = None
    if settings.cache_features:
        cache = cache_features(
            model,
            processor,
            clips,
            prompt=context.prompt,
            noise=settings.feature_noise,
            handed=settings.handed_channels,
            rare_oversampling=settings.rare_oversampling,
        )
    draws = Draws(
        clips=clips,
        processor=processor,
        prompt=context.prompt,
        count=steps * settings.global_batch_size,
        seed=seed,
        cache=cache,
    )
    torch.manual_seed(seed)  # LoRA's additions start at random
    tower = settings.vision_learning_rate != 0
    mark_trained(model, text=settings.text == "train", tower=tower)
    if hardware.lora:
        model = add_lora(model, hardware.lora, tower=tower)
    processor.tokenizer.padding_side = "right"
    args = TrainingArguments(
        output_dir=str(context.folder),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=settings.global_batch_size // (rows * processes),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        max_grad_norm=1.0,
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=10,
        gradient_checkpointing=True if settings.gradient_checkpointing else None,
        dataloader_num_workers=settings.dataloader_num_workers,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        # FSDP and ZeRO gather weights in it; whole copies are cast where they are used.
        bf16=context.precision == torch.bfloat16 and hardware.is_sharded and hardware.master_weights,
        disable_tqdm=True,
        seed=seed,
        report_to=reporters() or "none",
    )
    with loading_once(hardware):
        trainer = Supervised(settings, context, model=model, args=args, draws=draws)
    if trainer.is_sharded and settings.ema_decay:
        raise UsageError("cold start: under FSDP and ZeRO no process has all the weights. Set ema_decay: 0.")
    judge = partial(
        validate,
        processor=processor,
        clips=held_out,
        prompt=context.prompt,
        readout=context.readout,
        max_new_tokens=settings.max_new_tokens,
    )
    weights = _BestWeights(trainer, judge if held_out else None)
    trainer.add_callback(weights)
    trainer.train(resume_from_checkpoint=resume_from(context.folder))
    if trainer.is_sharded:
        return trainer
    best = load_file(weights.path) if weights.path.is_file() else {}
    with torch.no_grad():
        for place, one in enumerate(trainer.trained):
            if best or trainer.mean:
                one.copy_(best[str(place)] if best else trainer.mean[place])
    if hardware.lora and not hardware.master_weights:
        return trainer  # weights in bfloat16 would lose most of what is merged into them
    return merge_lora(trainer.accelerator.unwrap_model(trainer.model))
