"""The private steps of trl's GRPOTrainer that vqa.train.grpo replaces or calls: an upgrade that moves one fails by
name."""

import inspect

import pytest
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_get_train_sampler", ["dataset"]),
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
