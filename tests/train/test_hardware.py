"""What the block `hardware:` does: each way to fit a machine ends with the weights that two whole copies end with.

Two processes (gloo) run all of it once, on a tiny Qwen2.5-VL with random weights. `make test-all` runs more ways.
"""

import copy
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from tests.support import children
from tests.support.recipes import COLDSTART, GRPO, SIZES, written
from vqa.errors import UsageError
from vqa.prompt import PROMPTS
from vqa.train import _compat, checkpoints
from vqa.train.hardware import HardwareConfig
from vqa.train.optimizer import OffloadedAdamW
from vqa.train.recipe import STAGE_FILE
from vqa.train.runner import run_recipe
from vqa.train.scratch.model import make_model, make_processor, make_tokenizer
from vqa.train.sharding import begin_sharding

IS_FULL = bool(os.environ.get("VQA_TEST_FULL"))
COLD = COLDSTART | {"name": "cold", "max_steps": 2, "per_device_train_batch_size": 1, "gradient_checkpointing": True}
COLD |= {"save_steps": 2, "eval_steps": 99}  # at the end only: whole copies keep the best weights, shards the last
RL = GRPO | {"name": "rl", "max_steps": 2, "per_device_train_batch_size": 2}
LORA = {"r": 2, "lora_alpha": 4}
SHARDS = {"sharding": "fsdp2"}
RUNS: dict[str, dict[str, Any]] = {
    "whole": {},
    "fsdp2": SHARDS,
    "whole-lora": {"lora": LORA},
    "fsdp2-lora": SHARDS | {"lora": LORA},
}
PAIRS = [("fsdp2", "whole"), ("fsdp2-lora", "whole-lora")]
STOPPED = ("fsdp2", "fsdp2-resumed")
WITH_COLD = ("whole", *STOPPED)  # other runs have that stage in `make test-all` only
if IS_FULL:
    pytestmark = pytest.mark.timeout(3600)  # some forty runs, and DeepSpeed compiles its operators the first time
    frozen, moments, half = {"vision_tower": "frozen"}, {"offload": "optimizer"}, {"master_weights": False}
    eight = {"optimizer_bits": 8}
    # Each option alone, then options together: any two that go together are in one of these.
    ways = [("moments", moments), ("frozen", frozen), ("half", half), ("bf16", {})]
    ways += [("lora-frozen-moments-half", {"lora": LORA} | frozen | moments | half)]
    ways += [("lora-frozen-moments-bf16", {"lora": LORA} | frozen | moments)]
    ways += [("frozen-moments-half", frozen | moments | half), ("lora-frozen-bf16", {"lora": LORA} | frozen)]
    if find_spec("torchao"):
        wide = {"lora": {"r": 128, "lora_alpha": 256}}  # torchao keeps 32 bits of shards below 4,096 values
        ways += [("8", eight), ("frozen-8", frozen | eight), ("lora-8-bf16", wide | eight)]
        ways += [("lora-frozen-8-half", wide | frozen | eight | half)]
    for name, options in ways:
        RUNS |= {f"whole-{name}": options, f"fsdp2-{name}": SHARDS | options}
        PAIRS += [(f"fsdp2-{name}", f"whole-{name}")]
    PAIRS += [("fsdp2-moments", "whole"), ("whole-moments", "whole")]
    offloaded = {"offload": "parameters"}
    for way in ("", "-frozen", "-bf16", "-half", "-lora-frozen-bf16", "-lora-frozen-8-half"):
        if (whole := f"whole{way}") in RUNS:
            RUNS |= {f"fsdp2-offloaded{way}": RUNS[whole] | SHARDS | offloaded}
            PAIRS += [(f"fsdp2-offloaded{way}", whole)]
    if find_spec("deepspeed"):
        zero = {"sharding": "zero3"}
        RUNS |= {"zero3": zero, "zero3-lora": zero | {"lora": LORA}, "zero3-moments": zero | moments}
        RUNS |= {"zero3-offloaded": zero | offloaded, "zero3-offloaded-frozen": zero | offloaded | frozen}
        RUNS |= {"zero3-bf16": zero, "zero3-moments-bf16": zero | moments, "zero3-offloaded-bf16": zero | offloaded}
        RUNS |= {"zero3-moments-lora-frozen-bf16": zero | moments | frozen | {"lora": LORA}}
        RUNS |= {"zero3-offloaded-lora-frozen-bf16": zero | offloaded | frozen | {"lora": LORA}}
        PAIRS += [("zero3", "whole"), ("zero3-lora", "whole-lora"), ("zero3-moments", "whole")]
        PAIRS += [("zero3-offloaded", "whole"), ("zero3-offloaded-frozen", "whole-frozen")]
        PAIRS += [(f"zero3-{way}bf16", "whole-bf16") for way in ("", "moments-", "offloaded-")]
        PAIRS += [(f"zero3-{way}-lora-frozen-bf16", "whole-lora-frozen-bf16") for way in ("moments", "offloaded")]


IN_BFLOAT16 = ("half", "bf16")


def _stages(name: str) -> dict[str, dict[str, Any]]:
    # Checkpoints are the subject of one run, which is stopped between its steps; shards take long to write.
    kept = {"cold": COLD, "rl": RL if IS_FULL or name in STOPPED else RL | {"save_steps": 2}}
    return kept if IS_FULL or name in WITH_COLD else {"rl": kept["rl"]}


def _values(folder: Path, name: str, hardware: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"card": "embedded", "start": str(folder / "start"), "threads": 1}
    values["validation_clips"] = 2 if name in WITH_COLD else 0
    values["views"] = {"local_pictures": 1, "keyframes": 4, "global_pixels": 112, "crop_pixels": 56}
    return values | {
        "export": "float32",
        "stand_in_opinions": True,
        "stages": list(_stages(name).values()),
        "hardware": hardware,
        "precision": "bfloat16" if name.endswith(IN_BFLOAT16) else "float32",
    }


def _half(rank: int, port: int, folder: Path, ladder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.compiler.set_stance("force_eager")  # torchao compiles its step, which takes longer than all of this

    tie, read = checkpoints.tie_as_read, list[bool]()

    def noted(model: Any) -> None:
        """Whether this process has read the weights: what it has not is on `meta`, without values."""
        read.append(not any(one.is_meta for one in model.parameters()))
        tie(model)

    checkpoints.tie_as_read = _compat.tie_as_read = noted  # of the policy, and of the reference

    def run(name: str, hardware: dict[str, Any]) -> None:
        read.clear()
        recipe = written(folder / f"{name}-{rank}.yaml", _values(folder, name, hardware))
        run_recipe(recipe, out=folder / name, data=[ladder])
        for variable in [one for one in os.environ if one.startswith(("ACCELERATE_", "FSDP_"))]:
            del os.environ[variable]
        (folder / f"{name}-{rank}.json").write_text(json.dumps(read))

    for name, hardware in RUNS.items():
        run(name, hardware)
        if name == "fsdp2":
            if rank == 0:
                _stop_after_one_step(folder / "fsdp2", folder / "fsdp2-resumed")
            PartialState().wait_for_everyone()
            run("fsdp2-resumed", SHARDS)
    torch.distributed.destroy_process_group()  # its threads may outlive the interpreter otherwise, which aborts


def _stop_after_one_step(run: Path, out: Path) -> None:
    """What a run leaves that is killed between its two steps."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("checkpoint-2"))
    for model in (out / "model", out / "rl" / "model"):
        shutil.rmtree(model)
    state = out / "rl" / STAGE_FILE
    state.write_text(json.dumps(json.loads(state.read_text()) | {"is_finished": False}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, ladder: Path) -> Path:
    """The folder with an output for each of RUNS, and `start`."""
    folder = tmp_path_factory.mktemp("hardware")
    tokenizer = make_tokenizer([one.question for one in PROMPTS.values()], vocabulary=300)
    sizes = {name: value for name, value in SIZES.items() if name != "vocabulary"}
    model = make_model(tokenizer, **sizes, seed=0)
    for one in model.parameters():  # as public weights are: DeepSpeed rounds them to bfloat16 before it copies them
        one.data = one.data.bfloat16().float()
    model.save_pretrained(folder / "start")
    make_processor(tokenizer, min_pixels=28 * 28, max_pixels=112 * 112).save_pretrained(folder / "start")
    children.both(_half, folder, ladder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """By name; FSDP saves the tied head beside the embedding that it is."""
    saved = load_file(folder / "model.safetensors")
    return {name: one.float() for name, one in saved.items() if name != "lm_head.weight"}


@pytest.mark.slow
@pytest.mark.parametrize(("run", "whole", "stage"), [(*pair, stage) for pair in PAIRS for stage in _stages(pair[1])])
def test_shards_end_with_the_weights_of_whole_copies(ran: Path, run: str, whole: str, stage: str) -> None:
    start = weights(ran / "start")
    if run.endswith("half"):  # what is not rounding alone
        start = {name: one.bfloat16().float() for name, one in start.items()}
    one, other = (weights(ran / name / stage / "model") for name in (run, whole))
    assert set(start) == set(one) == set(other)
    moved = sum(float((other[key] - start[key]).square().sum()) for key in start) ** 0.5
    apart = sum(float((other[key] - one[key]).square().sum()) for key in start) ** 0.5
    # Sums of two halves are rounded in other places, which Adam's first steps turn into whole steps in bfloat16.
    # Moments of 8 bits share a scale in blocks, which shards cut elsewhere.
    most = 0.2 if run.endswith(IN_BFLOAT16) else 0.02 if run.endswith("-8") else 1e-3
    assert moved > 1e-3 and apart < moved * most, (moved, apart)


@pytest.mark.slow
def test_a_sharded_run_stopped_between_two_steps_ends_with_the_weights_of_an_undisturbed_one(ran: Path) -> None:
    shards = list((ran / "fsdp2-resumed" / "rl" / "checkpoint-1").glob("*/*.distcp"))
    assert len({one.parent.name for one in shards}) == 2  # weights and optimiser, a file from each process
    assert len(shards) == 4
    undisturbed, resumed = (weights(ran / name / "rl" / "model") for name in ("fsdp2", "fsdp2-resumed"))
    for name, one in undisturbed.items():
        torch.testing.assert_close(resumed[name], one, rtol=0, atol=0)


@pytest.mark.slow
def test_under_fsdp_one_process_of_a_machine_reads_the_weights(ran: Path) -> None:
    for name, second in (("whole", True), ("fsdp2", False)):
        found = [json.loads((ran / f"{name}-{rank}.json").read_text()) for rank in range(2)]
        assert found == [[True] * 3, [second] * 3], name  # a cold start's model, that of GRPO and its reference


@pytest.mark.slow
def test_lora_of_grpo_trains_the_tower_too_unless_it_is_frozen(ran: Path) -> None:
    start = weights(ran / "start")
    for run in ("whole-lora", "whole-lora-frozen-bf16") if IS_FULL else ("whole-lora",):
        end = weights(ran / run / "rl" / "model")
        changed = {name for name in start if not torch.equal(start[name], end[name])}
        towers = {name for name in changed if "visual" in name}
        assert changed - towers and bool(towers) == (run == "whole-lora")
        assert all(name.endswith(("proj.weight", "qkv.weight", ".0.weight", ".2.weight")) for name in changed), changed


def test_offloaded_moments_come_to_the_device_for_one_weight_at_a_time() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    own = copy.deepcopy(plain)
    groups = [{"params": list(own[0].parameters()), "lr": 0.1}, {"params": list(own[1].parameters())}]
    optimizer = OffloadedAdamW(groups, lr=0.01, weight_decay=0.1)
    pairs = [{"params": list(plain[0].parameters()), "lr": 0.1}, {"params": list(plain[1].parameters())}]
    usual = torch.optim.AdamW(pairs, lr=0.01, weight_decay=0.1)
    moves: list[tuple[int, str]] = []
    place = optimizer.place_moments

    def noted(weight: torch.nn.Parameter, device: torch.device) -> None:
        moves.append((id(weight), "in" if not moves or moves[-1][1] == "out" else "out"))
        place(weight, device)

    optimizer.place_moments = noted  # type: ignore[method-assign]
    for step in range(3):
        for model, one in ((plain, usual), (own, optimizer)):
            one.zero_grad()
            model(torch.full((2, 4), float(step))).square().sum().backward()
            one.step()
    for mine, other in zip(own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)
    assert [way for _, way in moves] == ["in", "out"] * 12
    assert all(first[0] == second[0] for first, second in zip(moves[::2], moves[1::2], strict=True))


def test_shards_need_a_group_of_processes_and_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UsageError, match=r"hardware\.sharding is fsdp2, which needs a group.* Give --workers N"):
        begin_sharding(HardwareConfig(sharding="fsdp2"))
    if not find_spec("deepspeed"):
        with pytest.raises(UsageError, match=r"zero3 needs deepspeed, which is not installed.*vqa\[zero3\]"):
            begin_sharding(HardwareConfig(sharding="zero3"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"offload": "parameters"}, "offload: parameters needs shards"),
        ({"offload": "optimizer", "optimizer_bits": 8}, "moments of 8 bits stay on the device"),
        ({"sharding": "zero3", "master_weights": False}, "zero3 keeps float32 master weights"),
        ({"sharding": "zero3", "optimizer_bits": 8}, "zero3 flattens weights"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HardwareConfig(**values)
