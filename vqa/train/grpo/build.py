"""GRPO (arXiv 2402.03300) over trl: a trainer from settings, a model, and clips to learn from."""

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from trl import GRPOConfig

from vqa.errors import UsageError
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import dimensions
from vqa.train.checkpoints import unsharded
from vqa.train.clips.degradation import NONE
from vqa.train.grpo.config import Grpo
from vqa.train.grpo.dataset import Example, as_dataset
from vqa.train.grpo.perturbations import AGAIN
from vqa.train.grpo.reward import UNFED, RankAndScore
from vqa.train.grpo.trainer import Trainer
from vqa.train.metrics_log import log_held_out, reporters
from vqa.train.modules import tower_of, vocabulary_of

Judge = Callable[[Any], Mapping[str, float]]


def make_trainer(
    settings: Grpo,
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    folder: Path,
    processes: int = 1,
    judge: Judge | None = None,
    **more: Any,
) -> Trainer:
    """A trainer ready for `.train()`, or `.train(resume_from_checkpoint=True)` where `folder` holds a checkpoint-*.

    `judge` is given the model every `eval_steps` steps and returns numbers for the log, such as SRCC on a held-out
    slice; every process calls it. `more` goes to trl's GRPOConfig (bf16, use_cpu, report_to, save_total_limit ...).
    Raises UsageError for settings that do not fit each other or the machine, and for examples that cannot teach.
    """
    check(settings, examples, processes=processes)
    if settings.shared_prefill:
        _check_attention(model)
    answers = settings.clips_per_step * settings.num_generations
    rows = min(settings.per_device_train_batch_size, answers // processes)
    accumulation = answers // (rows * processes)
    processor.tokenizer.padding_side = "left"  # trl pads prompts so
    if settings.vision_learning_rate is not None:
        tower_of(model).requires_grad_(settings.vision_learning_rate > 0)
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "num_generations": settings.num_generations,
        "num_iterations": settings.num_iterations,
        "max_steps": settings.max_steps,
        "learning_rate": settings.learning_rate,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
        "epsilon_high": settings.epsilon_high,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_completion_length": settings.max_completion_length,
        "top_entropy_quantile": settings.top_entropy_quantile,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "save_steps": settings.save_steps,
        "logging_steps": 1,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": model.dtype == torch.bfloat16,  # trl's default is true whatever the weights are
        "generation_kwargs": _banned(
            processor, vocabulary_of(model, processor), is_vllm=settings.vllm_mode is not None
        ),
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": reporters() or "none",
    }
    if settings.vllm_mode is not None:
        arguments |= {
            "use_vllm": True,
            "vllm_mode": settings.vllm_mode,
            "vllm_server_base_url": settings.vllm_server_base_url,
            "vllm_gpu_memory_utilization": settings.vllm_gpu_memory_utilization,
        }
    for lack in _unfed(settings, examples):
        logging.getLogger(__name__).warning("reward %s goes without %s", settings.reward, lack)
    asked = dimensions(settings.prompt)
    reward = RankAndScore(
        settings.reward,
        dimensions=asked,
        k=settings.num_generations,
        stage=settings.reward_stage,
        mode=settings.reward_mode,
    )
    try:
        trainer = Trainer(
            settings,
            reward,
            examples,
            model=model,
            args=GRPOConfig(**arguments | more),
            processing_class=processor,
            train_dataset=as_dataset(examples),
        )
    except (OSError, RuntimeError) as error:  # what trl and requests raise for a server that cannot be used
        if settings.vllm_mode != "server" or isinstance(error, torch.OutOfMemoryError):
            raise
        raise UsageError(
            f"grpo: vllm_server_base_url {settings.vllm_server_base_url}: {' '.join(str(error).split())}"
        ) from error
    _check_reference(trainer)
    if judge is not None:
        trainer.add_callback(_HeldOut(trainer, judge, every=settings.eval_steps))
    return trainer


def check(settings: Grpo, examples: Sequence[Example], *, processes: int = 1) -> None:
    """Raises UsageError for settings that do not fit each other, the number of processes, the clips or the machine."""
    answers, size = settings.clips_per_step * settings.num_generations, settings.per_device_train_batch_size
    if answers % processes or (size < answers // processes and answers % (size * processes)):
        raise UsageError(
            f"grpo: {settings.clips_per_step} clips x {settings.num_generations} answers do not divide into batches of "
            f"{size} on {processes} processes; choose per_device_train_batch_size so that they do"
        )
    if settings.without_blame and settings.reward != "refine_iqa":
        raise UsageError(f"grpo: without_blame belongs to the reward refine_iqa, not {settings.reward}")
    if settings.save_steps % settings.num_iterations:
        raise UsageError(
            f"grpo: save_steps is {settings.save_steps}, not a multiple of num_iterations ({settings.num_iterations}); "
            "choose a multiple, so that a run can resume between two batches of answers"
        )
    if settings.caption_lambda or settings.caption_tau:
        bare = next((one.clip_id for one in examples if not one.caption), None)
        if bare is not None:
            raise UsageError(f"clip {bare}: no caption; caption_lambda and caption_tau need one for every clip")
    again = ("perception_gamma", "perception_eta", "caption_lambda", "caption_tau")
    asked = [name for name in again if getattr(settings, name)]
    if asked and not settings.shared_prefill:
        raise UsageError(f"grpo: {', '.join(asked)} need shared_prefill: true")
    if settings.vllm_mode is not None and not importlib.util.find_spec("vllm"):
        raise UsageError(
            f"grpo: vllm_mode is {settings.vllm_mode}, but the package is not installed; `pip install trl[vllm]`"
        )
    if settings.vllm_mode == "server" and not settings.vllm_server_base_url:
        raise UsageError(
            "grpo: vllm_mode is server; give vllm_server_base_url, the address of a running `vllm serve` (see README)"
        )


def _unfed(settings: Grpo, examples: Sequence[Example]) -> list[str]:
    """The reward's term that pays nothing in this run, and what it lacks."""
    if settings.reward in UNFED and all(one.damage == NONE for one in examples):
        return [UNFED[settings.reward]]
    if settings.reward in AGAIN and (settings.vllm_mode or not settings.shared_prefill):
        return [f"{AGAIN[settings.reward]}: shared_prefill: true, and no vllm_mode"]
    return []


def _check_attention(model: Any) -> None:
    """Answers behind one prompt need attention that takes a mask, and layers that do nothing but attend."""
    text, kind = model.config.get_text_config(), model.config._attn_implementation
    layers = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kind not in ("sdpa", "eager") or layers:
        found = f"layers of {', '.join(sorted(layers))}" if layers else f"attention {kind}"
        raise UsageError(f"grpo: {found} cannot share a prompt; use attention sdpa, or set shared_prefill: false")


def _banned(processor: Any, vocabulary: Vocabulary, *, is_vllm: bool) -> dict[str, Any]:
    """What trl's and vLLM's generation may not draw: as in `roll_out`; vLLM takes words, so ids without one stay."""
    if not is_vllm:
        return {"suppress_tokens": list(vocabulary.banned)}
    words = processor.tokenizer.convert_ids_to_tokens(list(vocabulary.banned))
    return {"bad_words": [word for word in words if word]}


def _check_reference(trainer: Trainer) -> None:
    """trl reads the reference of the KL from where the model came from: it must still be the same."""
    reference = trainer.ref_model
    if reference is None or trainer.is_sharded:
        return
    pairs = zip(trainer.model.named_parameters(), reference.parameters(), strict=True)
    changed = next((name for (name, own), other in pairs if not torch.equal(own, other.to(own.device))), None)
    if changed is not None:
        place = trainer.model.config._name_or_path
        raise UsageError(
            f"grpo: beta > 0 needs the model before training, and {changed} is not what {place} holds; save the model, "
            "load it from there, and begin with that"
        )


class _HeldOut(transformers.TrainerCallback):
    """Calls the judge before the first step and then every few."""

    def __init__(self, trainer: Trainer, judge: Judge, *, every: int) -> None:
        self._trainer, self._judge, self._every = trainer, judge, every

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self._look(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._look(control)

    def _look(self, control: Any) -> None:
        with unsharded(self._trainer) as model:
            log_held_out(self._trainer, self._judge(model), control)
