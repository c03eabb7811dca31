"""A stage that trains nothing: a model writes answers to clips, which a later cold start imitates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from vqa.errors import UsageError
from vqa.files import replacing
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.prompt import PromptName, dimensions, parse, reason
from vqa.train.clips.dataset import TrainingClip, seed_of
from vqa.train.metrics_log import MetricsLog
from vqa.train.modules import vocabulary_of
from vqa.train.recipe import Write
from vqa.train.validation import question

REASONS = "reasons.jsonl"  # a record a clip, as vqa.train.clips.conversations reads it


@torch.no_grad()
def write(
    model: Any,
    processor: Any,
    samples: Sequence[TrainingClip],
    texts: Sequence[Path],
    *,
    stage: Write,
    prompt: PromptName,
    folder: Path,
    seed: int,
    log: MetricsLog,
    state: PartialState,
) -> None:
    """Into FOLDER/reasons.jsonl: of each clip the answer nearest to its opinion among those that can be read.

    Clips whose answers cannot be read, or are further off than `max_error`, are skipped. A stopped stage resumes behind
    the last whole line. Each process writes for its share of the clips. Raises UsageError where no answer was of use.
    """
    model.eval()
    vocabulary = vocabulary_of(model, processor)
    given = said_of(texts)
    own = folder / f"part-{state.process_index}-of-{state.num_processes}.jsonl"
    done = rows_of(own)
    with replacing(own) as draft:  # without a torn last line
        draft.write_text("".join(json.dumps(row) + "\n" for row in done), encoding="utf-8")
    known = {row["id"] for row in done}
    share = [sample for sample in samples[state.process_index :: state.num_processes] if sample.clip_id not in known]
    with own.open("a", encoding="utf-8") as file:
        for sample in share:
            if texts and sample.clip_id not in given:
                continue
            words = stage.question and stage.question.replace("{reason}", reason(given.get(sample.clip_id, "")))
            asked = question(processor, sample, prompt=prompt, words=words).to(model.device)
            (answers,) = roll_out(
                model,
                [prefill(model, asked)],
                k=stage.num_return_sequences,
                vocabulary=vocabulary,
                max_new_tokens=stage.max_new_tokens,
                seeds=[
                    seed_of(seed, stage.name, sample.clip_id, number) for number in range(stage.num_return_sequences)
                ],
                sampling=Sampling(temperature=stage.temperature),
            )
            said = [processor.tokenizer.decode(one.tokens, skip_special_tokens=True) for one in answers]
            best: str | None = said[0]
            if not stage.plain:
                best = _nearest(said, sample.opinion, numbers=dimensions(prompt), within=stage.max_error)
            row: dict[str, Any] = {"id": sample.clip_id, "dataset_name": sample.dataset, "conversations": []}
            if best is not None:
                row["conversations"] = [{"from": "gpt", "value": best}]
            log.add("kept", float(best is not None))
            file.write(json.dumps(row) + "\n")
            file.flush()
    state.wait_for_everyone()
    if state.is_main_process:
        parts = [folder / f"part-{rank}-of-{state.num_processes}.jsonl" for rank in range(state.num_processes)]
        rows = [row for part in parts for row in rows_of(part) if row["conversations"]]
        log.write(len(samples), len(samples), answers=len(rows))
        if not rows:
            raise UsageError(
                f"stage {stage.name}: none of {len(samples)} clips got an answer that can be read"
                + (f" and lies within {stage.max_error:g} of its opinion" if stage.max_error else "")
                + "; begin from a model that answers, or raise k or within"
            )
        with replacing(folder / REASONS) as draft:
            draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _nearest(said: Sequence[str], opinion: float | None, *, numbers: int, within: float | None) -> str | None:
    """The readable answer whose mean is nearest to the opinion; None where none is near enough."""
    found = []
    for place, text in enumerate(said):
        values = parse(text, numbers)
        if values is not None:
            found.append((abs(float(np.mean(values)) - opinion) if opinion is not None else 0.0, place))
    if not found or (within is not None and min(found)[0] > within):
        return None
    return said[min(found)[1]]


def said_of(paths: Sequence[Path]) -> dict[str, str]:
    """The text of each clip in the files of earlier `write` stages."""
    return {row["id"]: row["conversations"][-1]["value"] for path in paths for row in rows_of(path)}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may end in the middle of one; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
