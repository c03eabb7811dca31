"""Supervised cold start: the MLLM learns to write a short true reason and the numbers, over transformers' Trainer.

Each step's draw hangs on the seed and its place in the run alone, whatever the number of processes or stops. Where the
tower is frozen and `cache_features` set, each look goes through it once, and a step is one of the text model alone.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from vqa.errors import UsageError
from vqa.files import replacing
from vqa.model.card import Readout
from vqa.prompt import PromptName, dimensions
from vqa.train.checkpoints import Guarded, last_checkpoint, unsharded
from vqa.train.clips.dataset import TrainingClip
from vqa.train.clips.ladder import rarity_weights
from vqa.train.metrics_log import MetricsLog, log_held_out, reporters
from vqa.train.modules import parameter_groups
from vqa.train.recipe import ColdStart
from vqa.train.scratch.warmup import rate_at
from vqa.train.sft.features import (
    IGNORED,
    EncodedClip,
    add_noise,
    cache_features,
    channel_spread,
    collate,
    encode_clip,
    shuffle_pictures,
)
from vqa.train.sft.lora import mark_trained, merge_lora
from vqa.train.validation import judged

hf: Any = transformers
MEAN = "mean.safetensors"


class Draws(Dataset[tuple[EncodedClip, str]]):
    """Place i in the run: a look drawn from all, and one of its answers; the same i, the same draw."""

    def __init__(
        self, samples: Sequence[TrainingClip], processor: Any, prompt: PromptName, *, count: int, seed: int
    ) -> None:
        self._samples, self._processor, self._prompt = samples, processor, prompt
        self._count, self._seed = count, seed
        self.kept: list[list[EncodedClip]] = []  # by clip, the looks whose features are in memory
        self.noise: torch.Tensor | None = None  # of their channels
        self.shares: NDArray[np.float64] | None = None  # of the draws for each clip; None: all alike

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[EncodedClip, str]:
        generator = np.random.default_rng((self._seed, 1, index))
        if self.kept:
            asked = shuffle_pictures(self.kept[int(generator.choice(len(self.kept), p=self.shares))], generator)
            if self.noise is not None:
                asked = add_noise(asked, self.noise, generator)
        else:
            sample = self._samples[int(generator.integers(len(self._samples)))]
            asked = encode_clip(self._processor, sample, prompt=self._prompt)
        write = asked.sample.write_answer
        if write is None:
            raise UsageError(f"clip {asked.sample.clip_id}: no reason to learn from; give `reasons`")
        return asked, write(generator, dimensions(self._prompt))


class Supervised(Guarded, hf.Trainer):  # type: ignore[misc]  # transformers' types do not hold what it does
    """See the module. `mean` are running means of the trained weights, in their order; empty without `ema_decay`."""

    what = "cold start"

    def __init__(self, settings: ColdStart, precision: torch.dtype, log: MetricsLog, **kwargs: Any) -> None:
        self._settings, self._precision, self.told = settings, precision, log
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # a mean over rows is taken here
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        self.mean = [one.detach().clone() for one in self.trained] if settings.ema_decay else []
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW; the tower has its own rate."""
        settings = self._settings
        groups = parameter_groups(
            model or self.model, rate=settings.learning_rate, vision_rate=settings.vision_learning_rate
        )
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear over 20 steps, then half a cosine down to a twentieth."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: rate_at(step, steps=num_training_steps, peak=1.0, warm=20)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Cross-entropy of the answers' tokens, by weight."""
        labels, weights, columns = (inputs.pop(name) for name in ("labels", "weights", "columns"))
        wanted = labels[:, -columns + 1 :] != IGNORED
        # Only the columns of answers go through the head.
        is_reduced = self._precision != torch.float32
        with torch.autocast(labels.device.type, self._precision) if is_reduced else nullcontext():
            logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits[:, :-1][wanted]
        losses = F.cross_entropy(logits.float(), labels[:, -columns + 1 :][wanted], reduction="none")
        weight = weights[:, -columns + 1 :][wanted]
        loss = self.checked((losses * weight).sum() / weight.sum())
        self.told.add("loss", loss.item())
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


class _Kept(TrainerCallback):
    """After each step the running mean; every few, a look at held-out clips, and the best weights so far on disk.

    Numbers of single steps rank 0.05 better or worse than those 40 steps before: judged and kept is their mean.
    """

    def __init__(
        self, trainer: Supervised, held_out: Sequence[TrainingClip], judge: Callable[..., dict[str, float]]
    ) -> None:
        self._trainer, self._held_out, self._judge = trainer, held_out, judge
        self.path = Path(trainer.args.output_dir) / "best.safetensors"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, settings = self._trainer, self._trainer._settings
        weight_of_new = max(1 - settings.ema_decay, 9 / (9 + state.global_step))  # the first steps are soon forgotten
        for old, new in zip(trainer.mean, trainer.trained, strict=False):
            old.lerp_(new.detach(), weight_of_new)
        if state.global_step % settings.eval_steps and state.global_step != state.max_steps:
            return
        found = self._look() if self._held_out else {}
        if found:
            log_held_out(trainer, found, control)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            told = {f"held_out_{name}": value for name, value in found.items()}
            trainer.told.write(state.global_step, state.max_steps, **told)

    def _look(self) -> dict[str, float]:
        trainer = self._trainer
        if trainer.is_sharded:  # no process could save the weights by itself: the last ones are kept
            with unsharded(trainer) as model:
                return self._judge(model)
        own = [one.data for one in trainer.trained]
        try:
            for one, mean in zip(trainer.trained, trainer.mean or own, strict=True):
                one.data = mean
            with unsharded(trainer) as model:
                found = self._judge(model)
            worth = found["srcc"] * found["parsed"]  # an answer that cannot be read ranks nothing
            worth = -2.0 if math.isnan(worth) else worth
            if trainer.is_world_process_zero() and worth > self.record():
                weights = {str(place): one.detach().contiguous() for place, one in enumerate(trainer.trained)}
                with replacing(self.path) as draft:
                    save_file(weights, draft, metadata={"worth": repr(worth)})
        finally:
            for one, data in zip(trainer.trained, own, strict=True):
                one.data = data
        return found

    def record(self) -> float:
        """SRCC times share read of the best so far."""
        if not self.path.is_file():
            return -math.inf
        with safe_open(self.path, "pt") as file:
            return float(file.metadata()["worth"])


def cold_start(
    model: Any,
    processor: Any,
    samples: Sequence[TrainingClip],
    held_out: Sequence[TrainingClip],
    *,
    settings: ColdStart,
    prompt: PromptName,
    readout: Readout,
    precision: torch.dtype,
    seed: int,
    folder: Path,
    log: MetricsLog,
    processes: int = 1,
) -> Any:
    """Trains, and returns the model with the weights that were best on `held_out` (choose there, report elsewhere) by
    SRCC times share read; with the last ones where there is nothing to judge by, and under FSDP and ZeRO.

    Goes on from the last checkpoint in `folder`. Raises UsageError for samples without reasons and settings that do
    not fit the machine, ModelError for NaN and a full disk.
    """
    bare = next((one.clip_id for one in samples if one.write_answer is None), None)
    if bare is not None:
        raise UsageError(f"cold start: clip {bare} has no reason to learn from; give `reasons`, or data with reasons")
    rows = settings.per_device_train_batch_size or max(1, settings.global_batch_size // processes)
    if settings.global_batch_size % (rows * processes):
        raise UsageError(
            f"cold start: a batch of {settings.global_batch_size} does not divide into batches of {rows} on "
            f"{processes} processes; choose per_device_train_batch_size so that it does"
        )
    steps = settings.max_steps or math.ceil(
        (settings.num_train_epochs or 0) * len(samples) / settings.global_batch_size
    )
    draws = Draws(samples, processor, prompt, count=steps * settings.global_batch_size, seed=seed)
    if settings.cache_features:
        draws.kept = cache_features(model, processor, samples, prompt=prompt)
        if settings.feature_noise:
            draws.noise = settings.feature_noise * channel_spread([look for looks in draws.kept for look in looks])
        if settings.rare_oversampling > 1:
            draws.shares = rarity_weights(
                [looks[0].sample.distortions for looks in draws.kept], most=settings.rare_oversampling
            )
    torch.manual_seed(seed)  # LoRA draws its start
    model = mark_trained(model, settings)
    processor.tokenizer.padding_side = "right"
    args = hf.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=settings.global_batch_size // (rows * processes),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        max_grad_norm=1.0,
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=10,
        **({"gradient_checkpointing": True} if settings.gradient_checkpointing else {}),
        dataloader_num_workers=settings.dataloader_num_workers,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        seed=seed,
        report_to=reporters() or "none",
    )
    trainer = Supervised(
        settings,
        precision,
        log,
        model=model,
        args=args,
        train_dataset=draws,
        processing_class=processor,  # a checkpoint is a whole model, to score with or to start from
        data_collator=lambda batch: collate(processor, batch, answer_weight=settings.answer_weight),
    )
    if trainer.is_sharded and (settings.ema_decay or settings.lora):
        raise UsageError(
            "cold start: under FSDP and ZeRO no process has all the weights; set ema_decay: 0 and no lora, or "
            "launch with ddp.yaml"
        )
    asking: dict[str, Any] = {"prompt": prompt, "readout": readout, "max_new_tokens": settings.max_new_tokens}
    kept = _Kept(trainer, held_out, partial(judged, processor=processor, samples=held_out, **asking))
    trainer.add_callback(kept)
    saved = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    if trainer.is_sharded:
        return trainer
    best = load_file(kept.path) if kept.path.is_file() else {}
    with torch.no_grad():
        for place, one in enumerate(trainer.trained):
            if best or trainer.mean:
                one.copy_(best[str(place)] if best else trainer.mean[place])
    return merge_lora(trainer.accelerator.unwrap_model(trainer.model))
