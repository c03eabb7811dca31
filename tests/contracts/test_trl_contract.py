"""The private steps of trl's GRPOTrainer that vqa.train replaces or calls: an upgrade that moves one fails by name."""

import inspect
from pathlib import Path

import pytest
import torch
import transformers as hf
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from tests.references.make_checkpoints import make


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_get_train_sampler", ["dataset"]),
        ("_prepare_inputs", ["generation_batch"]),
        ("_save_checkpoint", ["model", "trial"]),
        ("_clip_grad_norm", ["model"]),
        ("log", ["logs", "start_time"]),
        ("create_optimizer", ["model"]),
        ("_generate_and_score_completions", ["inputs"]),
        ("_compute_loss", ["model", "inputs"]),
        ("_get_per_token_logps_and_entropies", ["model", "input_ids", "attention_mask", "logits_to_keep"]),
    ],
)
def test_the_replaced_steps_take_what_they_took(method: str, parameters: list[str]) -> None:
    names = list(inspect.signature(getattr(GRPOTrainer, method)).parameters)
    assert names[1 : 1 + len(parameters)] == parameters


def test_rollouts_may_be_ours_and_need_no_log_probabilities() -> None:
    assert "rollout_func" in inspect.signature(GRPOTrainer.__init__).parameters
    source = inspect.getsource(GRPOTrainer._generate)
    assert "self.rollout_func(prompts, self)" in source
    assert {"prompt_ids", "completion_ids", "logprobs"} <= set(source.replace('"', " ").split())
    assert "sampling_per_token_logps_list is not None" in inspect.getsource(GRPOTrainer._generate_and_score_completions)


def test_the_settings_we_write_exist() -> None:
    wanted = {"num_generations", "steps_per_generation", "num_iterations", "beta", "epsilon", "epsilon_high"}
    wanted |= {"temperature", "top_p", "max_completion_length", "top_entropy_quantile", "loss_type", "scale_rewards"}
    assert wanted <= set(inspect.signature(GRPOConfig.__init__).parameters)


def test_generation_unwraps_the_model() -> None:
    assert list(inspect.signature(unwrap_model_for_generation).parameters)[:3] == [
        "model",
        "accelerator",
        "gather_deepspeed3_params",
    ]


def test_the_fused_head_scores_labels_one_place_ahead_and_divides_by_the_temperature(tmp_path: Path) -> None:
    folder = make("qwen2_5_vl", tmp_path)
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    logps = (model(input_ids=ids).logits / 2.0).log_softmax(dim=-1)
    add_fused_lm_head(model, temperature=2.0, outputs=("log_probs", "entropy"))
    out = model(input_ids=ids, labels=torch.tensor([[-100, -100, 7, 8]]), fused_lm_head=True)
    torch.testing.assert_close(out.log_probs, torch.stack([logps[0, 0, 5] * 0, logps[0, 1, 7], logps[0, 2, 8]])[None])
    entropy = -(logps.exp() * logps).sum(dim=-1)
    torch.testing.assert_close(out.entropy[0, 1:], entropy[0, 1:3])


def test_batches_split_in_order() -> None:
    parts = split_tensor_dict({"a": torch.arange(4), "b": None, "n": torch.tensor(3)}, 2)
    assert [part["a"].tolist() for part in parts] == [[0, 1], [2, 3]] and parts[1]["n"] == 3


def test_vllm_is_asked_with_ids_and_pictures() -> None:
    names = list(inspect.signature(VLLMGeneration.generate).parameters)
    assert names == ["self", "prompts", "images", "num_generations", "profiler"]
    source = inspect.getsource(GRPOTrainer._generate_single_turn)
    assert "[[lp[0] for lp in seq] for seq in logprobs]" in source
    assert {"use_vllm", "vllm_mode", "vllm_server_base_url", "vllm_gpu_memory_utilization"} <= set(
        inspect.signature(GRPOConfig.__init__).parameters
    )
