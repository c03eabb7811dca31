"""Plans of the 7B recipes on GPUs by name: counts, the arithmetic of the released launches, refusals and ways out."""

import re
from dataclasses import replace
from typing import Any

import pytest

from vqa.config import configs_folder
from vqa.errors import UsageError
from vqa.train.dry_run import estimate, planned
from vqa.train.gpus import parse_gpus
from vqa.train.hardware import HardwareConfig
from vqa.train.memory import GB, Workload, activation_bytes, plan_memory, state_bytes
from vqa.train.plan import least_change, plan_stage
from vqa.train.recipe import Recipe, load_recipe
from vqa.train.shapes import published_shape

FOLDER = configs_folder() / "train"
WORK = Workload(prompts=8, answers=48, prompt_tokens=384, answer_tokens=256, patches=1200, rollout_rows=48)


def recipe(name: str = "preresq_video", *assignments: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml", assignments)


@pytest.mark.parametrize(
    ("size", "parameters", "tower"),
    [
        ("3b", 3_754_622_976, 668_684_288),
        ("7b", 8_292_166_656, 676_550_144),
        ("32b", 33_452_718_336, 688_841_984),
        ("72b", 73_410_777_344, 704_573_696),
    ],
)
def test_parameters_are_counted_and_not_read_from_the_name(size: str, parameters: int, tower: int) -> None:
    shape = published_shape(size)
    assert (shape.parameters, shape.tower) == (parameters, tower)
    blocks = shape.layers * shape.block + shape.root + shape.tower
    assert blocks == pytest.approx(parameters, rel=1e-3)  # norms and biases are left


@pytest.mark.parametrize(
    ("gpus", "offload", "wanted"),
    [
        (8, "none", 18.7),
        (4, "none", 37.3),
        (2, "none", 74.6),
        (2, "optimizer", 24.9),
        (1, "optimizer", 49.8),
    ],
)
def test_states_are_those_of_the_released_launches(gpus: int, offload: Any, wanted: float) -> None:
    """ZeRO-3 in bfloat16 with a whole reference: 2 + 2 + 12 + 2 bytes per parameter, over the GPUs."""
    hardware = HardwareConfig(sharding="zero3", offload=offload)
    shape = published_shape("7b")
    here, host = state_bytes(shape, WORK, hardware, numbers="bfloat16", reference=True)
    assert sum(here.values()) / gpus / GB == pytest.approx(wanted, abs=0.06)
    assert sum(host.values()) / GB == pytest.approx(99.5 if offload == "optimizer" else 0, abs=0.06)


def test_rollouts_gather_one_copy_and_keep_56_kib_a_token() -> None:
    plan = plan_memory(published_shape("7b"), WORK, HardwareConfig(sharding="zero3"), processes=8, reference=True)
    rollouts = plan.phases["rollouts"]
    assert rollouts["gathered weights"] / GB == pytest.approx(16.6, abs=0.06)
    assert rollouts["keys and values"] == 48 * 640 * 56 * 1024


def test_an_engine_that_sleeps_is_there_with_what_stays_and_not_with_an_update() -> None:
    shape, hardware, work = published_shape("7b"), HardwareConfig(sharding="zero3"), replace(WORK, rollout_rows=0)
    alone, beside, asleep = (
        plan_memory(shape, work, hardware, processes=8, vllm=vllm, vllm_sleeps=sleeps)
        for vllm, sleeps in ((0.0, False), (40.0 * GB, False), (40.0 * GB, True))
    )
    for phase in ("forward", "backward", "step"):
        wanted = sum(alone.phases[phase].values())
        assert sum(asleep.phases[phase].values()) == pytest.approx(wanted)
        assert sum(beside.phases[phase].values()) == pytest.approx(wanted + 40 * GB)
    assert asleep.phases["rollouts"]["vLLM"] == 40 * GB
    own = plan_memory(shape, WORK, hardware, processes=8, vllm=40.0 * GB, vllm_sleeps=True)
    assert own.phases["rollouts"]["vLLM"] == 40 * GB and own.phases["step"]["vLLM"] == 0
    first = recipe("preresq_video", "stages.explore.vllm_mode=colocate", "stages.explore.vllm_enable_sleep_mode=true")
    assert first.stages[0].vllm_enable_sleep_mode


def test_whole_copies_in_float32_are_what_no_card_holds() -> None:
    """16 bytes of each trained parameter and 4 of the reference: 166 GB before activations."""
    plan = plan_memory(published_shape("7b"), WORK, HardwareConfig(), processes=8, reference=True)
    assert sum(plan.phases["step"].values()) / GB == pytest.approx(166, abs=1)


@pytest.mark.parametrize("tokens", [2048, 4096])
def test_long_answers_take_no_logits(tokens: int) -> None:
    """Log-probabilities come in tiles: 0.3 GB and the head's gradient, where all logits of 8 answers would be 10 GB."""
    shape = published_shape("7b")
    long = {"prompts": 1, "answers": 8, "prompt_tokens": 1500, "answer_tokens": tokens, "patches": 5000}
    tiled, whole = (
        activation_bytes(shape, Workload(**long, is_chunked=kept), numbers="bfloat16")["scored"] / GB
        for kept in (True, False)
    )
    assert tiled < 3.0
    assert whole > 8 * tokens * 152_064 * 2 / GB


def test_a_recipe_of_4096_tokens_is_planned_and_fits() -> None:
    chosen = recipe("omniquality_r", "hardware=auto")
    settled, plans, _ = planned(chosen, fleet=parse_gpus("8xh100"))
    assert {stage.max_completion_length for stage in settled.stages if stage.kind == "grpo"} == {4096}
    assert all(plan.excess <= 0 for plan in plans), [plan.complaint() for plan in plans]


@pytest.mark.parametrize(
    ("gpus", "sharding", "offload"),
    [
        ("8xh100", "fsdp2", "none"),
        ("2xh200", "fsdp2", "none"),
        ("2xh100", "fsdp2", "optimizer"),
        ("1xh100", "zero3", "optimizer"),
    ],
)
def test_auto_takes_the_quickest_that_fits(gpus: str, sharding: str, offload: str) -> None:
    settled, plans, _ = planned(recipe("preresq_video", "hardware=auto"), fleet=parse_gpus(gpus))
    assert (settled.hardware.sharding, settled.hardware.offload) == (sharding, offload)
    assert all(plan.excess <= 0 for plan in plans)
    assert settled.hardware.taught == {}  # nothing that weights depend on


def test_auto_keeps_moments_of_8_bits_on_the_gpu() -> None:
    settled, _, _ = planned(
        recipe("preresq_video", "hardware.auto=true", "hardware.optimizer_bits=8"), fleet=parse_gpus("2x4090")
    )
    assert (settled.hardware.sharding, settled.hardware.offload) == ("fsdp2", "parameters")
    HardwareConfig(**settled.hardware.model_dump())  # nothing in it that is refused


def test_auto_without_gpus_shards_nothing_and_auto_with_a_choice_is_refused() -> None:
    settled, _, _ = planned(recipe("preresq_video_tiny", "hardware=auto"), fleet=None)
    assert settled.hardware == HardwareConfig()
    with pytest.raises(UsageError, match=r"auto chooses sharding and offload itself"):
        recipe("preresq_video", "hardware.auto=true", "hardware.sharding=fsdp2")


@pytest.mark.parametrize("gpus", ["8xh100", "4xa100", "8xl40s", "8xa100-40", "1xh200", "2x4090"])
def test_what_does_not_fit_is_refused_and_the_way_out_fits(gpus: str) -> None:
    """The options that the message names make the stage fit, until all do; need and limit are named."""
    options: list[str] = ["hardware.sharding=none"]
    fleet = parse_gpus(gpus)
    for _ in range(4):
        try:
            lines = list(estimate(recipe("preresq_video", *options), fleet=fleet))
        except UsageError as error:
            message = str(error)
            assert re.search(r"stage \w+ needs [\d.]+ GB on each GPU \(\w+\); .* has [\d.]+ GB each\. Nearest", message)
            found = re.findall(r"--set (\S+)", message)
            assert found, message
            options += found
        else:
            break
    assert any(line.strip().startswith("total") and "GB are there" in line for line in lines)
    assert len(options) > 1  # whole copies fit nowhere


def test_what_fits_nowhere_is_said_to() -> None:
    """Rollouts gather 147 GB of a 72B on each GPU, however many there are."""
    chosen = recipe("preresq_video", "hardware.sharding=fsdp2", "hardware.offload=parameters")
    found = plan_stage(chosen, chosen.stages[0], published_shape("72b"), (4, 4593), fleet=parse_gpus("8x4090"))
    assert found.memory.peak > 147 * GB
    assert least_change(chosen, found).startswith("Nothing that is known here makes it fit; take a smaller model")


@pytest.mark.parametrize("text", ["8xp100", "0xh100", "x", "h100x8", "-1xh100"])
def test_gpus_are_a_count_and_a_known_name(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--gpus {text}: not a count .*GPUs: 4090, a100, a100-40, h100, h200, l40s"):
        parse_gpus(text)


def test_an_unknown_model_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        UsageError, match=r"start nobody/knows-9B: its config is not on this machine.*--set start=FOLDER"
    ):
        list(estimate(recipe("preresq_video", "start=nobody/knows-9B", "card=embedded")))


def test_host_memory_is_compared_where_it_is_known() -> None:
    """Eight processes that load whole copies in float32: 66 GB each and as much for the reference."""
    _, plans, _ = planned(recipe("preresq_video", "hardware.sharding=none"), fleet=parse_gpus("8xh100"))
    assert plans[0].memory.host_peak / GB == pytest.approx(8 * 2 * 33.2, rel=0.02)
