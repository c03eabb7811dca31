"""Answers to a batch's prompts: by the model in training, or by vLLM."""

from collections.abc import Callable, Sequence

from PIL import Image
from trl import GRPOTrainer

from vqa.errors import ModelError
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.model.vocabulary import Vocabulary
from vqa.train import _compat
from vqa.train.grpo.packing import EncodedPrompt, batch_runs, collapse_repeats, find_runs
from vqa.train.types import Model


def write_answers(
    model: Model,
    places: Sequence[int],
    prompt_of: Callable[[int], EncodedPrompt],
    *,
    vocabulary: Vocabulary,
    sampling: Sampling,
    max_new_tokens: int,
    seeds: Sequence[int],
    rows_at_once: int,
) -> list[list[int]]:
    """Write an answer for each row by the model in training, by one prefill per clip.

    Placeholders of pictures and unused ids are never drawn.

    Args:
        model: the model, whole on this process.
        places: of each row, the clip's place in the table of examples.
        prompt_of: the prompt of a clip, by its place.
        vocabulary: roles of the model's tokens.
        sampling: how tokens are drawn.
        max_new_tokens: of an answer at most.
        seeds: one for each row, so that it gets the same answer for any number of processes.
        rows_at_once: rows that are written together at most.

    Returns:
        Token ids of each row's answer, with the end where it came to one.
    """
    written: list[list[int]] = []
    for group in batch_runs(find_runs(places), rows=rows_at_once):
        start, stop = group[0][0], group[-1][1]
        answers = roll_out(
            model,
            [prefill(model, prompt_of(places[begin]).inputs) for begin, _ in group],
            k=group[0][1] - start,
            vocabulary=vocabulary,
            max_new_tokens=max_new_tokens,
            seeds=seeds[start:stop],
            sampling=sampling,
        )
        written += [one.tokens + [vocabulary.ends[0]] * one.is_finished for clip in answers for one in clip]
    return written


def ask_vllm(
    trainer: GRPOTrainer, asked: Sequence[tuple[EncodedPrompt, list[Image.Image]]], *, is_server: bool
) -> tuple[list[list[int]], list[list[float]]]:
    """Generate an answer per prompt by vLLM, with its tokens' log-probabilities.

    Args:
        trainer: has sent vLLM the weights.
        asked: prompts and their pictures.
        is_server: whether vLLM runs beside this process, not in it.

    Returns:
        Token ids, and as many log-probabilities.

    Raises:
        ModelError: where vLLM's processor makes other tokens of a prompt's pictures than the model's.
    """
    if not asked:
        return [], []
    ids = [prompt.ids.tolist() for prompt, _ in asked]
    picture = trainer.processing_class.image_token_id
    seen, written, logprobs = _compat.generate_by_vllm(
        trainer,
        # In this process vLLM expands one placeholder to a picture's tokens, and each of many as well.
        prompts=ids if is_server else [collapse_repeats(prompt, picture) for prompt in ids],
        images=[pictures for _, pictures in asked],
    )
    for own, its in zip(ids, seen, strict=True):
        if own != list(its):
            raise ModelError(
                f"grpo: a prompt is {len(its)} tokens to vLLM and {len(own)} to the model: its processor "
                "resizes pictures differently. Save the model with its processor, and start from that folder."
            )
    return written, logprobs
