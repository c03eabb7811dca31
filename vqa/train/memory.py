"""Memory of a training run per GPU and host, by arithmetic: no torch, no weights.

    weights, gradients, AdamW, reference      bytes per parameter, in shards or in host memory
    rollouts       + all weights gathered + caches of keys and values + logits of a token
    forward        + activations + one layer's working memory + a tile of the chunked logits
    backward       + the same, recomputed layer by layer under gradient checkpointing, + gradients

The activations that a layer keeps are counted from transformers' Qwen2.5-VL (SwiGLU, RMSNorm, SDPA) and checked against
peaks of small models in tests/train/test_memory.py. Korthikanti et al. (arXiv 2205.05198, section 4.1) count 34 bytes x
tokens x width for a GPT layer; with SwiGLU of 5.3 times the width it is 66 to 76.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vqa.train.hardware import HardwareConfig

GB = 1e9
Precision = Literal["float32", "mixed", "bfloat16"]  # mixed: float32 weights, products in bfloat16 (autocast)
# Bytes that a block keeps for its backward pass, per token: of its width, and of the inner width of its MLP.
TEXT_SAVED: Mapping[Precision, tuple[int, int]] = {"float32": (40, 16), "mixed": (34, 8), "bfloat16": (24, 8)}
TOWER_SAVED: Mapping[Precision, tuple[int, int]] = {"float32": (52, 16), "mixed": (32, 8), "bfloat16": (30, 8)}
RESIDUAL: Mapping[Precision, int] = {"float32": 4, "mixed": 4, "bfloat16": 2}  # bytes between two blocks
PRODUCT: Mapping[Precision, int] = {"float32": 4, "mixed": 2, "bfloat16": 2}  # bytes of an operand
TILE = 4096, 32_768  # tokens and vocabulary of a tile of trl's chunked log-probabilities
PATCH_VALUES = 3 * 2 * 14 * 14  # of a patch: colours, frames, height, width
FOLDED = 3.0, 7.5  # float32 copies of a tile on a CPU, in the forward and the backward pass: no Triton kernel folds it
SAMPLING_COPIES = 5  # float32 logits of a token, over temperature, noise, sorted
FULL_LOGITS = 12  # bytes beside the logits themselves: in float32, their softmax, its gradient
PROCESS_GB = 4.0  # Python, torch, CUDA and pinned buffers of a process, in host memory
PREFETCHED = 2  # gathered blocks at a time: the one at work and the next


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of an image-text-to-text model that its memory depends on."""

    parameters: int
    tower: int  # parameters of the vision tower, among them
    vocabulary: int
    is_tied: bool  # embedding and head are one matrix
    width: int
    inner: int  # of the MLP
    layers: int
    key_value: int  # width of the keys of all heads that are kept
    tower_width: int
    tower_inner: int
    tower_layers: int
    linear: Mapping[str, tuple[int, int]]  # of a text block: name -> inputs, outputs

    @property
    def block(self) -> int:
        """Parameters of a text block."""
        return sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def root(self) -> int:
        """Parameters outside text blocks and tower: embedding and head."""
        return self.vocabulary * self.width * (1 if self.is_tied else 2)

    def lora(self, r: int, targets: tuple[str, ...], *, tower: bool) -> int:
        """Parameters of low-rank additions to `targets` and, with `tower`, to all of it."""
        text = sum(sum(size) for name, size in self.linear.items() if name in targets)
        own = 4 * self.tower_width + 2 * self.tower_width + 3 * (self.tower_width + self.tower_inner)
        return r * (text * self.layers + own * self.tower_layers * tower)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Work of one process at once, in tokens."""

    prompts: int  # of a forward pass
    answers: int  # of a forward pass
    prompt_tokens: int
    answer_tokens: int
    patches: int  # of a prompt's pictures
    is_packed: bool = True  # the answers to a prompt in one row behind it; false: the prompt once an answer
    is_chunked: bool = True  # log-probabilities in tiles; false: all logits of the answers
    recompute: bool = False  # gradient checkpointing
    passes: int = 1  # forward and backward passes of an update
    rollout_rows: int = 0  # answers written at once; 0: none are
    held_prompts: int = 0  # whose pictures stay on the GPU for the whole step
    trains_text: bool = True
    trains_tower: bool = True

    @property
    def is_trained(self) -> bool:
        """Whether any weight is trained."""
        return self.trains_text or self.trains_tower

    @property
    def row(self) -> int:
        """Tokens of a row."""
        if not self.is_packed or not self.answers:
            return self.prompt_tokens + self.answer_tokens
        return self.prompt_tokens - 1 + -(-self.answers // self.prompts) * (self.answer_tokens + 1)

    @property
    def rows(self) -> int:
        """Rows of a forward pass."""
        return self.prompts if self.is_packed else self.answers

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass."""
        return self.rows * self.row

    @property
    def all_patches(self) -> int:
        """Patches of a forward pass."""
        return self.rows * self.patches


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on a GPU by phase and item, and in the host of `processes` of them."""

    phases: Mapping[str, Mapping[str, float]]
    host: Mapping[str, float]

    @property
    def peak(self) -> float:
        """Bytes of the largest phase."""
        return max(sum(items.values()) for items in self.phases.values())

    @property
    def host_peak(self) -> float:
        """Bytes in host memory, loading and training at their largest."""
        return sum(self.host.values())


def numbers_of(hardware: HardwareConfig, *, is_half: bool) -> Precision:
    """Number format of matrix products and of what lies between them.

    Args:
        hardware: of the recipe.
        is_half: whether its precision is bfloat16.
    """
    if not is_half:
        return "float32"
    return "mixed" if hardware.master_weights and not hardware.is_sharded else "bfloat16"


def state_bytes(
    shape: ModelShape, work: Workload, hardware: HardwareConfig, *, numbers: Precision, reference: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of the whole model's training state, on GPUs and in host memory.

    Of weights, gradients, optimiser and reference. With bfloat16 products and float32 master weights a trained
    parameter takes 16 bytes, as 4 + 4 + 8 (weight, gradient, two moments) or 2 + 2 + 12 (ZeRO: Rajbhandari et al.,
    arXiv 1910.02054, section 3.1).

    Args:
        shape: of the model.
        work: says which parts are trained.
        hardware: of the recipe.
        numbers: of `numbers_of`.
        reference: whether a second model is kept for the KL.
    """
    text = shape.parameters - shape.tower
    trained = text * work.trains_text + shape.tower * work.trains_tower
    total, product = shape.parameters, PRODUCT[numbers]
    if hardware.lora is not None:
        trained = shape.lora(hardware.lora.r, hardware.lora.target_modules, tower=work.trains_tower)
        total += trained
    is_mastered = hardware.master_weights or numbers == "float32"
    moment = 1.03 if hardware.optimizer_bits == 8 else 4 if is_mastered else product
    # ZeRO-3 keeps the float32 weights with the moments, others in the weights' place.
    has_copy = is_mastered and product < 4 and hardware.sharding == "zero3"
    own = 4 if is_mastered and not has_copy else product
    here = {
        "weights": float(own * total),
        "gradients": float(own * trained),
        "optimizer": float((2 * moment + 4 * has_copy) * trained),
        "reference": float((own if hardware.lora is None else 0) * shape.parameters * reference),
    }
    host: dict[str, float] = {}
    moved = {"none": (), "optimizer": ("optimizer",), "parameters": tuple(here)}[hardware.offload]
    for name in moved:
        host[name], here[name] = here[name], 0.0
    return here, host


def activation_bytes(shape: ModelShape, work: Workload, *, numbers: Precision, is_gpu: bool = True) -> dict[str, float]:
    """Bytes kept by a forward pass for the backward pass, and those at work at once.

    Args:
        shape: of the model.
        work: of a process.
        numbers: of `numbers_of`.
        is_gpu: whether it runs on a GPU, where the log-probabilities take less.

    Returns:
        `saved`; `layer`, of the block at work; `score` and `scored`, of the log-probabilities in the forward and the
        backward pass; `inputs`, pictures and mask.
    """
    tokens, patches, product = work.tokens, work.all_patches, PRODUCT[numbers]
    width, inner = TEXT_SAVED[numbers]
    # SDPA makes numbers of the boolean mask in every block and keeps them.
    text = tokens * (width * shape.width + inner * shape.inner) + product * work.rows * work.row**2
    width, inner = TOWER_SAVED[numbers]
    tower = patches * (width * shape.tower_width + inner * shape.tower_inner) * work.trains_tower
    ends = tokens * shape.width * 16 + patches * shape.tower_width * 16 * work.trains_tower  # embedding, norm, merger
    if work.recompute:
        kept = RESIDUAL[numbers] * (tokens * shape.width * shape.layers)
        kept += RESIDUAL[numbers] * patches * shape.tower_width * shape.tower_layers * work.trains_tower
        saved, layer = float(kept + ends), float(max(text, tower)) * 1.5
    else:
        saved = float(text * shape.layers + tower * shape.tower_layers + ends)
        layer = float(tokens * (2 * RESIDUAL[numbers] * shape.width + 3 * product * shape.inner))
    scored = work.answers * work.answer_tokens if is_gpu else tokens  # a CPU scores every position
    if work.is_chunked:
        rows = min(scored, TILE[0])
        tile = rows * TILE[1] * product
        more = [0.0, 0.0] if is_gpu else [4 * copies * rows * min(shape.vocabulary, TILE[1]) for copies in FOLDED]
        more[1] += 4 * (shape.vocabulary + scored) * shape.width  # float32 gradients of the head and of its input
    else:
        tile = work.answers * work.answer_tokens * shape.vocabulary * product
        more = [tile * 8 / product, tile * FULL_LOGITS / product]
    pictures = work.held_prompts * work.patches * PATCH_VALUES * RESIDUAL[numbers]
    return {
        "saved": saved,
        "layer": layer,
        "score": float(tile + more[0]),
        "scored": float(tile + more[1]),
        "inputs": float(work.rows * work.row**2 + pictures),
    }


def plan_memory(
    shape: ModelShape,
    work: Workload,
    hardware: HardwareConfig,
    *,
    is_half: bool = True,
    processes: int = 1,
    nodes: int = 1,
    reference: bool = False,
    mean: bool = False,
    vllm: float = 0.0,
    vllm_sleeps: bool = False,
    is_gpu: bool = True,
) -> MemoryPlan:
    """Bytes that each GPU and each host needs, by phase of a step.

    Args:
        shape: of the model.
        work: of one process.
        hardware: of the recipe.
        is_half: whether the recipe's precision is bfloat16.
        processes: GPUs.
        nodes: hosts that they stand in.
        reference: whether a second model is kept for the KL; LoRA needs none.
        mean: whether a running mean of the trained weights is kept.
        vllm: bytes that an engine in the same process takes.
        vllm_sleeps: whether it gives them back during updates.
        is_gpu: as of `activation_bytes`.
    """
    numbers = numbers_of(hardware, is_half=is_half)
    product = PRODUCT[numbers]
    states, moved = state_bytes(shape, work, hardware, numbers=numbers, reference=reference)
    parts = processes if hardware.is_sharded else 1
    states = {name: size / parts for name, size in states.items()}
    fixed = {name: states[name] for name in ("weights", "optimizer", "reference")}
    active = activation_bytes(shape, work, numbers=numbers, is_gpu=is_gpu)
    fixed |= {"running mean": states["gradients"] * mean, "pictures, mask": active["inputs"]}
    fixed["vLLM"] = 0.0 if vllm_sleeps else vllm
    copies = 2.0 * shape.parameters if numbers == "mixed" else 0.0  # autocast keeps what it has rounded
    phases: dict[str, dict[str, float]] = {}
    if work.is_trained:
        gathered = product * float(PREFETCHED * shape.block + shape.root) if hardware.is_sharded else 0.0
        if hardware.is_sharded and numbers != "float32":
            gathered += 4.0 * shape.vocabulary * shape.width  # trl gathers the head in its stored precision
        # Without checkpointing activations leave as gradients come: the first pass has one or the other.
        held = states["gradients"] * (work.passes > 1)
        forward, backward = active["layer"] + active["score"], active["scored"]
        if work.recompute:  # the logits are done before the last block is computed again
            forward, backward = max(active["layer"] / 2, active["score"]), max(active["layer"], active["scored"])
        phases["forward"] = fixed | {
            "gradients": held,
            "gathered weights": gathered + copies,
            "activations": active["saved"],
            "at work": forward,
        }
        phases["backward"] = fixed | {
            "gradients": states["gradients"] if work.recompute else held,
            "gathered weights": gathered + (0.0 if work.recompute else copies),
            "activations": active["saved"],
            "at work": backward,
        }
        phases["step"] = fixed | {"gradients": states["gradients"]}
    if work.rollout_rows:
        kept = work.rollout_rows * (work.prompt_tokens + work.answer_tokens)
        whole = product * float(shape.parameters) if hardware.is_sharded else 0.0
        cache = kept * shape.layers * shape.key_value * (RESIDUAL[numbers] + product)
        phases["rollouts"] = fixed | {
            "vLLM": vllm,
            "gathered weights": whole + copies,
            "keys and values": float(cache),
            "at work": float(SAMPLING_COPIES * 4 * work.rollout_rows * shape.vocabulary),
        }
    elif vllm_sleeps:
        phases["rollouts"] = fixed | {"vLLM": vllm}
    per_node = processes / nodes
    copy = (4 if numbers != "bfloat16" or hardware.master_weights else product) * float(shape.parameters)
    loading = copy * (1 + (reference and hardware.lora is None)) * (1 if hardware.sharding == "fsdp2" else per_node)
    host = {"processes": per_node * PROCESS_GB * GB}
    host |= {name: size / (nodes if hardware.is_sharded else 1 / per_node) for name, size in moved.items()}
    host["loading"] = max(0.0, loading - sum(host.values()))
    return MemoryPlan(phases, host)
