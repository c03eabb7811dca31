"""Construction of a GRPO trainer, with the checks that come before."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from transformers import ProcessorMixin, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import OptimizerNames
from trl import GRPOConfig

from vqa.errors import UsageError
from vqa.model._compat import attention_of
from vqa.model.vocabulary import Vocabulary
from vqa.prompt import PROMPTS, dimensions
from vqa.rewards.format import FORMS
from vqa.rewards.presets import known
from vqa.train import _compat
from vqa.train.clips.degradation import NONE
from vqa.train.grpo.config import GrpoSettings
from vqa.train.grpo.dataset import Example, as_dataset
from vqa.train.grpo.perturbations import needed_pass, second_pass
from vqa.train.grpo.reward import RankAndScore
from vqa.train.grpo.trainer import Trainer
from vqa.train.hardware import WHOLE, HardwareConfig
from vqa.train.metrics_log import log_held_out, reporters
from vqa.train.modules import tower_of, vocabulary_of
from vqa.train.sharding import loading_once, unsharded
from vqa.train.types import Model

Evaluate = Callable[[Model], Mapping[str, float]]

# Settings that go to GRPOConfig under their own names.
_OF_TRL = (
    *("num_generations", "num_iterations", "max_steps", "beta", "epsilon", "epsilon_high"),
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm"),
    *("optim", "adam_beta1", "adam_beta2", "weight_decay"),
    *("temperature", "top_p", "max_completion_length", "top_entropy_quantile", "save_steps"),
    *("gradient_checkpointing", "seed"),
)
_OF_VLLM = ("vllm_mode", "vllm_server_base_url", "vllm_gpu_memory_utilization", "vllm_enable_sleep_mode")


def make_trainer(
    settings: GrpoSettings,
    model: Model,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    *,
    folder: Path,
    processes: int = 1,
    evaluate: Evaluate | None = None,
    arguments: Mapping[str, object] | None = None,
    hardware: HardwareConfig = WHOLE,
) -> Trainer:
    """Build a trainer, ready for `.train()`.

    Args:
        settings: of the stage.
        model: in training mode.
        processor: of the model; its padding side is set to left, as trl wants it.
        examples: clips to learn from; at least `clips_per_step` of each data set.
        folder: for checkpoints; `.train(resume_from_checkpoint=True)` resumes from its last one.
        processes: of the launch.
        evaluate: takes the model before the first step and every `eval_steps` and returns figures for the log, such as
            SRCC on held-out clips; every process calls it.
        arguments: for trl's GRPOConfig, over those of the settings (bf16, use_cpu, report_to, save_total_limit ...).
        hardware: of the recipe.

    Raises:
        UsageError: for settings that do not fit each other or the machine, and for examples that cannot teach.
    """
    check_settings(settings, examples, processes=processes)
    if settings.shared_prefill:
        _check_attention(model)
    answers = settings.clips_per_step * settings.num_generations
    rows = min(settings.per_device_train_batch_size, answers // processes)
    accumulation = answers // (rows * processes)
    processor.tokenizer.padding_side = "left"
    if settings.vision_learning_rate is not None:
        tower_of(model).requires_grad_(settings.vision_learning_rate > 0)
    names = (*_OF_TRL, *(_OF_VLLM if settings.vllm_mode else ()))
    config: dict[str, object] = {name: getattr(settings, name) for name in names}
    config |= {
        "output_dir": str(folder),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation // settings.num_mini_batches,
        "steps_per_generation": accumulation,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "logging_steps": 1,
        "bf16": model.dtype == torch.bfloat16,  # trl's default is true whatever the weights are
        "generation_kwargs": _banned(
            processor, vocabulary_of(model, processor), is_vllm=settings.vllm_mode is not None
        ),
        "data_seed": settings.seed,
        "report_to": reporters() or "none",
        "use_vllm": settings.vllm_mode is not None,
    }
    if hardware.optimizer_bits == 8:
        config["optim"] = "adamw_torch_8bit"  # torchao's
    reward = RankAndScore(
        settings.reward,
        dimensions=dimensions(settings.prompt),
        k=settings.num_generations,
        weights=settings.reward_weights,
        stage=settings.reward_stage,
        mode=settings.reward_mode,
        compared=max(1, rows // settings.num_generations),
    )
    try:
        args = GRPOConfig(**config | dict(arguments or {}))
        with loading_once(hardware):
            trainer = Trainer(
                settings,
                reward,
                examples,
                model=model,
                args=args,
                processor=processor,
                dataset=as_dataset(examples),
                hardware=hardware,
            )
    except (OSError, RuntimeError) as error:  # what trl and requests raise for a server that cannot be used
        if settings.vllm_mode != "server" or isinstance(error, torch.OutOfMemoryError):
            raise
        words = " ".join(str(error).split())
        raise UsageError(f"grpo: vllm_server_base_url {settings.vllm_server_base_url}: {words}") from error
    _check_reference(trainer)
    if evaluate is not None:
        trainer.add_callback(_HeldOut(trainer, evaluate, every=settings.eval_steps))
    return trainer


def check_settings(settings: GrpoSettings, examples: Sequence[Example], *, processes: int = 1) -> None:
    """Check that settings fit each other, the processes, the clips and the machine.

    Raises:
        UsageError: naming the setting, its value and the way out.
    """
    answers, size = settings.clips_per_step * settings.num_generations, settings.per_device_train_batch_size
    if answers % processes or (size < answers // processes and answers % (size * processes)):
        raise UsageError(
            f"grpo: {settings.clips_per_step} clips x {settings.num_generations} answers do not divide into batches of "
            f"{size} on {processes} processes. Choose per_device_train_batch_size so that they do."
        )
    passes = answers // (min(size, answers // processes) * processes)
    if passes % settings.num_mini_batches:
        raise UsageError(
            f"grpo: num_mini_batches is {settings.num_mini_batches}, and a batch of {answers} answers is {passes} "
            "forward passes of each process. Choose a divisor, or a smaller per_device_train_batch_size."
        )
    updates = settings.num_iterations * settings.num_mini_batches
    if settings.save_steps % updates:
        raise UsageError(
            f"grpo: save_steps is {settings.save_steps}, not a multiple of the updates per batch of answers, "
            f"num_iterations ({settings.num_iterations}) x num_mini_batches ({settings.num_mini_batches}). Choose a "
            "multiple, so that a run can resume between two batches of answers."
        )
    if examples:
        check_terms(settings, has_damage=any(one.damage != NONE for one in examples))
    for objective in settings.objectives:
        objective.check(settings, examples)
    _check_optimizer(settings.optim)
    if settings.vllm_mode and settings.vllm_enable_sleep_mode and not torch.cuda.is_available():
        raise UsageError(
            "grpo: vllm_enable_sleep_mode is true, but no GPU whose memory it could leave is here. Drop it."
        )
    if settings.vllm_mode is not None and not importlib.util.find_spec("vllm"):
        raise UsageError(
            f"grpo: vllm_mode is {settings.vllm_mode}, but the package is not installed. Run `pip install vqa[vllm]`."
        )
    if settings.vllm_mode == "server" and not settings.vllm_server_base_url:
        raise UsageError(
            "grpo: vllm_mode is server without vllm_server_base_url. Give the address of a running `vllm serve`."
        )


def _check_optimizer(name: str) -> None:
    """Check that the optimiser is known and its package installed, else UsageError."""
    if name not in set(OptimizerNames):
        raise UsageError(f"grpo: optim is {name}, no optimiser of transformers. The default is adamw_torch_fused.")
    of_torchao = name in ("adamw_torch_8bit", "adamw_torch_4bit")
    of_bitsandbytes = not of_torchao and ("8bit" in name or "bnb" in name or name.startswith("paged_"))
    package = "torchao" if of_torchao else "bitsandbytes" if of_bitsandbytes else None
    if package and not importlib.util.find_spec(package):
        raise UsageError(
            f"grpo: optim is {name}, of the package {package}, which is not installed. Run `pip install {package}`, or "
            "set hardware.optimizer_bits: 8 (vqa[lowbit])."
        )


def check_terms(settings: GrpoSettings, *, has_damage: bool = True, stills: Sequence[str] = ()) -> None:
    """Check that every term of the reward can pay, but those of `allow_silent`.

    Loads nothing.

    Args:
        settings: of the stage.
        has_damage: whether the damage of any clip is known.
        stills: data sets whose clips show one frame only.

    Raises:
        UsageError: naming the term, what it lacks and the way out.
    """
    preset, prompt = known(settings.reward, settings.reward_weights or {}), settings.prompt
    if unknown := sorted(set(settings.allow_silent) - set(preset.terms)):
        raise UsageError(
            f"grpo: allow_silent names {', '.join(unknown)}; reward {settings.reward} has {', '.join(preset.terms)}."
        )
    silent = {}
    if PROMPTS[prompt].form not in FORMS[preset.demand]:
        fit = [name for name, one in PROMPTS.items() if one.form in FORMS[preset.demand]]
        wants = f"answers in the form {preset.demand!r}, and prompt {prompt} asks for {PROMPTS[prompt].form!r}"
        silent["format"] = f"pays for {wants}. Set prompt to {' or '.join(fit)}"
    if "degradation" in preset.terms and not has_damage:
        silent["degradation"] = "needs clips whose damage is known. Give a ladder (vqa data synth) too, by --data"
    term = needed_pass(settings)
    if term and not second_pass(settings):
        silent[term] = "needs a second pass. Set shared_prefill: true"
    elif term == "temporal" and stills:
        silent[term] = f"needs several frames, and {', '.join(stills)} shows one. Give videos"
    paid = {name for name, weight in preset.weights.items() if weight}
    for name in sorted(set(silent) & paid - set(settings.allow_silent)):
        raise UsageError(
            f"grpo: term {name} of reward {settings.reward} would be 0 throughout: it {silent[name]}; or run without "
            f"it by allow_silent: [{name}]."
        )


def _check_attention(model: Model) -> None:
    """Check that attention takes a mask and no layer is recurrent, to share a prompt."""
    text, kind = model.config.get_text_config(), attention_of(model)
    layers = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kind not in ("sdpa", "eager") or layers:
        found = f"layers of {', '.join(sorted(layers))}" if layers else f"attention {kind}"
        raise UsageError(f"grpo: {found} cannot share a prompt. Use attention sdpa, or set shared_prefill: false.")


def _banned(processor: ProcessorMixin, vocabulary: Vocabulary, *, is_vllm: bool) -> dict[str, object]:
    """Arguments that ban tokens from generation as `roll_out` does; vLLM takes words."""
    if not is_vllm:
        return {"suppress_tokens": list(vocabulary.banned)}
    words = processor.tokenizer.convert_ids_to_tokens(list(vocabulary.banned))
    return {"bad_words": [word for word in words if word]}


def _check_reference(trainer: Trainer) -> None:
    """Check the KL's reference, which trl loads again from where the model came from."""
    reference = trainer.ref_model
    if reference is None or trainer.is_sharded:
        return
    pairs = zip(trainer.model.named_parameters(), reference.parameters(), strict=True)
    changed = next((name for (name, own), other in pairs if not torch.equal(own, other.to(own.device))), None)
    if changed is not None:
        place = _compat.source_of(trainer.model)
        raise UsageError(
            f"grpo: beta > 0 needs the model before training, and {changed} is not what {place} holds. Save the model, "
            "load it from there, and start from that."
        )


class _HeldOut(TrainerCallback):
    """Callback that evaluates before the first step and every few steps."""

    def __init__(self, trainer: Trainer, evaluate: Evaluate, *, every: int) -> None:
        self._trainer, self._evaluate, self._every = trainer, evaluate, every

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.global_step == 0:
            self._run(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._run(control)

    def _run(self, control: TrainerControl) -> None:
        with unsharded(self._trainer) as model:
            log_held_out(self._trainer, self._evaluate(model), control)
