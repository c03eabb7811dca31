"""Plan of a recipe's memory on given GPUs, and the nearest settings that fit.

Loads no weights, writes nothing, uses no network.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vqa.errors import UsageError
from vqa.model.card import ModelCard, settle
from vqa.prompt import PROMPTS
from vqa.train.clips.dataset import ListedClip, view_of
from vqa.train.gpus import GpuFleet
from vqa.train.grpo.perturbations import needed_pass
from vqa.train.hardware import HardwareConfig, Lora
from vqa.train.memory import GB, MemoryPlan, ModelShape, Workload, plan_memory
from vqa.train.recipe import ColdStart, GrpoStage, Recipe, RecipeStage, Warmup, Write
from vqa.train.scratch.crops import CROP
from vqa.train.scratch.model import PATCH
from vqa.train.shapes import shape_of
from vqa.views import ViewsConfig
from vqa.views.flow import LOCAL_FRAME_PIXELS

TOKEN = 28  # pixels of a token's side: Qwen2.5-VL merges 2x2 patches of 14
NATIVE = 1920, 1080  # of a clip, where none is prepared yet
CHAT_TOKENS = 24  # of the template, and 8 more around each picture
LOOKED_AT = 8  # prepared clips whose pictures are counted
# Sharding and offload that can be carried out, the quickest first.
PLACES = (
    ("none", "none"),
    ("fsdp2", "none"),
    ("fsdp2", "optimizer"),
    ("zero3", "optimizer"),
    ("fsdp2", "parameters"),
)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Memory of a stage under given hardware settings."""

    stage: RecipeStage
    shape: ModelShape
    pictures: tuple[int, int]  # of a prompt, and their tokens
    work: Workload
    memory: MemoryPlan
    fleet: GpuFleet | None

    @property
    def excess(self) -> float:
        """Bytes beyond the GPU or the host, whichever is more; 0 or less fits."""
        if self.fleet is None:
            return 0.0
        over = self.memory.peak - self.fleet.gpu.usable
        return over if self.fleet.host is None else max(over, self.memory.host_peak - self.fleet.host)

    def complaint(self) -> str:
        """Message on what does not fit, with value and limit."""
        if self.fleet is None or self.excess <= 0:
            return ""
        memory, gpu = self.memory, self.fleet.gpu
        if memory.peak > gpu.usable:
            phase = max(memory.phases, key=lambda name: sum(memory.phases[name].values()))
            where = f"on each GPU ({phase}); {self.fleet.label} has {gpu.usable / GB:.1f} GB each"
            return f"stage {self.stage.name} needs {memory.peak / GB:.1f} GB {where}"
        limit = f"{self.fleet.label} has {(self.fleet.host or 0) / GB:,.0f} GB"
        return f"stage {self.stage.name} needs {memory.host_peak / GB:,.0f} GB of host memory; {limit}"

    def table(self) -> Iterator[str]:
        """Lines of gigabytes: an item a row, a phase a column, totals, and the host's."""
        phases = self.memory.phases
        items = list(dict.fromkeys(itertools.chain.from_iterable(phases.values())))
        yield f"memory per process: at most {_gb(self.memory.peak / GB)} GB"
        yield f"{'GB on each GPU':<20}" + "".join(f"{name:>11}" for name in phases)
        for item in items:
            sizes = [phase.get(item, 0.0) / GB for phase in phases.values()]
            if any(size >= 5e-4 for size in sizes):
                yield f"{item:<20}" + "".join(f"{_gb(size):>11}" for size in sizes)
        limit = f"{self.fleet.gpu.usable / GB:>9.1f} GB are there" if self.fleet else ""
        yield f"{'total':<20}" + "".join(f"{_gb(sum(phase.values()) / GB):>11}" for phase in phases.values()) + limit
        host = ", ".join(f"{name} {_gb(size / GB)}" for name, size in self.memory.host.items() if size)
        known = f" of {self.fleet.host / GB:,.0f}" if self.fleet and self.fleet.host else ""
        yield f"host memory of a node: {_gb(self.memory.host_peak / GB)} GB{known} ({host})"


def plan_stages(
    recipe: Recipe, card: ModelCard, clips: Mapping[str, Sequence[ListedClip]], *, fleet: GpuFleet | None
) -> list[StagePlan]:
    """Plan each stage under the recipe's own hardware settings.

    Args:
        recipe: of `vqa.train.recipe.load_recipe`.
        card: with the recipe's views and `max_pixels`.
        clips: of each stage, to learn from; empty where they are not there yet.
        fleet: the GPUs; None for one process on whatever there is.

    Raises:
        UsageError: for a model whose sizes are not known.
    """
    shape, _ = shape_of(recipe)
    return [
        plan_stage(recipe, stage, shape, picture_tokens(recipe, card, clips.get(stage.name, ())), fleet=fleet)
        for stage in recipe.stages
    ]


def plan_stage(
    recipe: Recipe,
    stage: RecipeStage,
    shape: ModelShape,
    pictures: tuple[int, int],
    *,
    fleet: GpuFleet | None,
    hardware: HardwareConfig | None = None,
) -> StagePlan:
    """Plan one stage.

    Args:
        recipe: its precision, prompt and hardware count.
        stage: of the recipe, or changed.
        shape: of the model.
        pictures: of a prompt, and their tokens.
        fleet: as of `plan_stages`.
        hardware: in place of the recipe's.
    """
    hardware = hardware or recipe.hardware
    processes = 1 if fleet is None or isinstance(stage, Warmup) else fleet.count
    work = work_of(recipe, stage, pictures, hardware=hardware, processes=processes)
    is_half, vllm, reference = recipe.precision == "bfloat16", 0.0, False
    if isinstance(stage, Write):  # loaded in the stored precision, whole in each process
        hardware, is_half = HardwareConfig(master_weights=False), True
    if isinstance(stage, GrpoStage):
        reference = stage.beta > 0
        if fleet is not None and stage.vllm_mode == "colocate":
            vllm = stage.vllm_gpu_memory_utilization * fleet.gpu.memory_gb * GB
    memory = plan_memory(
        shape,
        work,
        hardware,
        is_half=is_half,
        processes=processes,
        nodes=1 if fleet is None else min(fleet.nodes, processes),
        reference=reference,
        mean=isinstance(stage, ColdStart) and stage.ema_decay > 0,
        vllm=vllm,
        vllm_sleeps=isinstance(stage, GrpoStage) and stage.vllm_enable_sleep_mode,
    )
    return StagePlan(stage, shape, pictures, work, memory, fleet)


def fitting_recipe(
    recipe: Recipe, card: ModelCard, clips: Mapping[str, Sequence[ListedClip]], *, fleet: GpuFleet | None
) -> Recipe:
    """Recipe with the quickest sharding and offload in which every stage fits.

    Under `hardware: auto` only. Sharding and offload say where things lie, and change no weight that is learnt. Where
    nothing fits, what needs least is taken.

    Args:
        recipe: whose other hardware settings are kept.
        card: as of `plan_stages`.
        clips: as of `plan_stages`.
        fleet: the GPUs; None: no sharding, no offload.
    """
    own = recipe.hardware.model_copy(update={"auto": False})
    if not recipe.hardware.auto or fleet is None:
        return recipe.model_copy(update={"hardware": own})
    is_whole = any(isinstance(stage, ColdStart) and stage.ema_decay for stage in recipe.stages)  # a mean of weights
    several = [pair for pair in PLACES if pair[0] == "none" or not is_whole]
    several = [pair for pair in several if pair != ("fsdp2", "none") or fleet.count > 1]
    if not own.master_weights or own.optimizer_bits == 8:
        several = [pair for pair in several if pair[0] != "zero3"]
    if own.optimizer_bits == 8:  # its moments stay on the GPU
        several = [pair for pair in several if pair[1] != "optimizer"]
    tried = [
        recipe.model_copy(update={"hardware": own.model_copy(update={"sharding": sharding, "offload": offload})})
        for sharding, offload in several
    ]
    excess = [max(plan.excess for plan in plan_stages(one, card, clips, fleet=fleet)) for one in tried]
    return next((one for one, over in zip(tried, excess, strict=True) if over <= 0), tried[excess.index(min(excess))])


def refuse_excess(recipe: Recipe, plans: Sequence[StagePlan]) -> None:
    """Refuse a recipe of which a stage does not fit.

    Raises:
        UsageError: naming the stage, what it needs, what there is, and the nearest settings that fit.
    """
    for found in plans:
        if found.complaint():
            raise UsageError(f"{found.complaint()}. {least_change(recipe, found)}")


def least_change(recipe: Recipe, found: StagePlan) -> str:
    """Least change to the run that makes a stage fit, as options of the command.

    Smaller forward passes and recomputed activations give the same weights, and so do shards and host memory; an
    optimiser of 8 bits and LoRA do not.
    """
    stage, fleet, own = found.stage, found.fleet, recipe.hardware
    assert fleet is not None
    plan = partial(plan_stage, recipe, shape=found.shape, pictures=found.pictures)
    options: list[tuple[float, str, RecipeStage, HardwareConfig]] = []
    for (cost, stage_set, changed), (more, hardware_set, hardware) in itertools.product(
        _smaller(stage, fleet.count), _leaner(own, is_several=fleet.count > 1)
    ):
        options.append((cost + more, f"{stage_set} {hardware_set}".strip(), changed, hardware))
    for _, words, changed, hardware in sorted(options, key=lambda option: option[0]):
        if words and (way := plan(changed, hardware=hardware, fleet=fleet)).excess <= 0:
            return f"Nearest that fits, with {way.memory.peak / GB:.1f} GB: {words}"
    return "Nothing that is known here makes it fit; take a smaller model or GPUs with more memory."


def _smaller(stage: RecipeStage, processes: int) -> Iterator[tuple[float, str, RecipeStage]]:
    """Variants of a stage with smaller or recomputed passes: cost, options, stage."""
    if not isinstance(stage, GrpoStage | ColdStart):
        yield 0.0, "", stage
        return
    key = f"stages.{stage.name}"
    if isinstance(stage, GrpoStage):
        total = stage.clips_per_step * stage.num_generations
        now, parts = stage.per_device_train_batch_size, stage.num_mini_batches
    else:
        total, parts = stage.global_batch_size, 1
        now = stage.per_device_train_batch_size or math.ceil(total / processes)
    if total % processes:
        return
    yield 0.0, "", stage
    own = total // processes
    sizes = [size for size in range(min(now, own), 0, -1) if own % size == 0 and own // size % parts == 0]
    for size, recompute in itertools.product(sizes, sorted({stage.gradient_checkpointing, True})):
        words, cost = [], 0.0
        if size != min(now, own):
            words.append(f"--set {key}.per_device_train_batch_size={size}")
            cost += 1 + 0.1 * math.log2(now / size)
        if recompute != stage.gradient_checkpointing:
            words.append(f"--set {key}.gradient_checkpointing=true")
            cost += 1.0
        changes = {"per_device_train_batch_size": size, "gradient_checkpointing": recompute}
        if words:
            yield cost, " ".join(words), stage.model_copy(update=changes)


def _leaner(own: HardwareConfig, *, is_several: bool) -> Iterator[tuple[float, str, HardwareConfig]]:
    """Variants with shards, host memory, fewer bits, LoRA: cost, options, settings."""
    changes: list[tuple[float, dict[str, object], str]] = [(0.0, {}, "")]
    for rank, (kind, place) in enumerate(PLACES):
        is_kept = own.is_sharded and kind != own.sharding
        has_zero3 = kind != "zero3" or (own.master_weights and own.optimizer_bits == 32)
        is_of_8 = place == "optimizer" and own.optimizer_bits == 8  # moments of 8 bits stay on the GPU
        if is_kept or not has_zero3 or is_of_8 or ((kind, place) == ("fsdp2", "none") and not is_several):
            continue
        words = [f"--set hardware.sharding={kind}"] * (kind != own.sharding)
        words += [f"--set hardware.offload={place}"] * (place != own.offload)
        changes.append((2.0 * rank, {"sharding": kind, "offload": place}, " ".join(words)))
    for cost, update, told in changes:
        yield cost, told, own.model_copy(update=update)
        is_here = update.get("sharding", own.sharding) != "zero3" and update.get("offload", own.offload) != "optimizer"
        if own.optimizer_bits == 32 and is_here:
            bits = f"{told} --set hardware.optimizer_bits=8".strip()
            yield cost + 8, bits, own.model_copy(update=update | {"optimizer_bits": 8})
        if own.lora is None:
            lora = f"{told} --set hardware.lora={{}} --set hardware.vision_tower=frozen".strip()
            yield cost + 12, lora, own.model_copy(update=update | {"lora": Lora(), "vision_tower": "frozen"})


def work_of(
    recipe: Recipe, stage: RecipeStage, pictures: tuple[int, int], *, hardware: HardwareConfig, processes: int
) -> Workload:
    """Work of one process in a stage; `pictures`: in a prompt, and their tokens."""
    count, seen = pictures
    if isinstance(stage, Warmup):
        patches = stage.per_device_train_batch_size * (CROP // PATCH) ** 2
        return Workload(prompts=1, answers=0, prompt_tokens=1, answer_tokens=0, patches=patches, trains_text=False)
    prompt = PROMPTS[stage.prompt or recipe.prompt or settle(recipe.card_name, {})[0].prompt]
    asked = seen + 8 * count + len(prompt.question) // 4 + CHAT_TOKENS
    patches = 4 * seen
    tower = not isinstance(stage, Write) and stage.vision_learning_rate != 0 and hardware.vision_tower == "train"
    if isinstance(stage, GrpoStage):
        k = stage.num_generations
        own = stage.clips_per_step * k // processes
        rows = min(stage.per_device_train_batch_size, own)
        group, is_shared = min(k, own), stage.shared_prefill
        written = max(group, rows // k * k) if is_shared else own
        return Workload(
            prompts=math.ceil(rows / k),
            answers=rows,
            prompt_tokens=asked,
            answer_tokens=stage.max_completion_length,
            patches=patches,
            is_packed=is_shared,
            recompute=stage.gradient_checkpointing,
            passes=max(1, own // rows // stage.num_mini_batches),
            # Under vLLM the model's weights are gathered for the probabilities that a reward asks of them alone.
            rollout_rows=0 if stage.vllm_mode and needed_pass(stage) != "probability" else written,
            held_prompts=math.ceil(own / k),
            trains_tower=tower,
        )
    if isinstance(stage, ColdStart):
        share = max(1, stage.global_batch_size // processes)
        rows = min(stage.per_device_train_batch_size or share, share)
        return Workload(
            prompts=rows,
            answers=rows,
            prompt_tokens=asked,
            answer_tokens=stage.max_new_tokens,
            patches=patches,
            is_packed=False,
            is_chunked=False,
            recompute=stage.gradient_checkpointing,
            passes=max(1, share // rows),
            trains_text=stage.text == "train",
            trains_tower=tower,
        )
    return Workload(
        prompts=1,
        answers=stage.num_return_sequences,
        prompt_tokens=asked,
        answer_tokens=stage.max_new_tokens,
        patches=patches,
        rollout_rows=stage.num_return_sequences,
        trains_text=False,
        trains_tower=False,
    )


def picture_tokens(recipe: Recipe, card: ModelCard, clips: Sequence[ListedClip] = ()) -> tuple[int, int]:
    """Pictures of a prompt and their tokens: of the largest of some prepared clips.

    Without prepared clips, of a clip of NATIVE size.
    """
    views = ViewsConfig(**card.views)
    prepared = [clip for clip in clips if clip.prepared is not None]
    few = prepared[:: max(1, len(prepared) // LOOKED_AT)][:LOOKED_AT]
    if few:
        seen = [view_of(clip, views) for clip in few]
        sizes = [[one.shape[:2] for one in (*own.global_pictures, *own.local_pictures)] for own in seen]
        return max(((len(own), sum(_tokens(h * w, card) for h, w in own)) for own in sizes), key=lambda pair: pair[1])
    width, height = views.shown_size or NATIVE
    scale = min(1.0, views.global_pixels / max(width, height))
    areas = [width * height * scale**2] * (1 if views.global_kind == "mosaic" else views.keyframes)
    is_whole = views.spatial == "frames"
    local = min(LOCAL_FRAME_PIXELS if is_whole else views.crop_pixels**2, width * height)
    areas += [local] * views.local_pictures
    return len(areas), sum(_tokens(area, card) for area in areas)


def _tokens(area: float, card: ModelCard) -> int:
    least, most = card.min_pixels or 0, card.max_pixels or 2**40
    return math.ceil(min(max(area, least), most) / TOKEN**2)


def _gb(size: float) -> str:
    return "-" if size < 5e-4 else f"{size:,.1f}" if size >= 1 else f"{size:.3f}"
