"""Rejection sampling: a model's answers, the best of which a cold start imitates."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import ProcessorMixin

from vqa.errors import UsageError
from vqa.files import open_in_place, replacing
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.prompt import dimensions, parse, reason
from vqa.train.clips.dataset import TrainingClip, seed_of
from vqa.train.context import StageContext
from vqa.train.modules import vocabulary_of
from vqa.train.recipe import Write
from vqa.train.types import Model, Record
from vqa.train.validation import encode_question

REASONS = "reasons.jsonl"  # one record per clip, as vqa.train.clips.conversations reads it


@torch.no_grad()
def generate_reasons(
    model: Model,
    processor: ProcessorMixin,
    clips: Sequence[TrainingClip],
    texts: Sequence[Path],
    *,
    stage: Write,
    context: StageContext,
) -> None:
    """Write reasons.jsonl: of each clip the parsed answer nearest to its opinion.

    Clips without a parsed answer, or with none within `stage.max_error`, are skipped. A stopped stage resumes after
    the last whole line. Each process answers for its share of the clips.

    Args:
        model: that answers.
        processor: of the model.
        clips: to answer for.
        texts: files of earlier stages whose words `stage.question` quotes; clips that are not in them are skipped.
        stage: settings.
        context: of the stage.

    Raises:
        UsageError: where no clip got an answer.
    """
    log, state, folder, prompt = context.log, context.processes, context.folder, context.prompt
    model.eval()
    vocabulary = vocabulary_of(model, processor)
    given = texts_by_clip(texts)
    own = folder / f"part-{state.process_index}-of-{state.num_processes}.jsonl"
    done = read_jsonl(own)
    with replacing(own) as draft:  # without a torn last line
        draft.write_text("".join(json.dumps(row) + "\n" for row in done), encoding="utf-8")
    known = {row["id"] for row in done}
    share = [clip for clip in clips[state.process_index :: state.num_processes] if clip.clip_id not in known]
    with open_in_place(own, "a") as file:
        for clip in share:
            if texts and clip.clip_id not in given:
                continue
            words = stage.question and stage.question.replace("{reason}", reason(given.get(clip.clip_id, "")))
            asked = encode_question(processor, clip, prompt=prompt, question=words).to(model.device)
            (answers,) = roll_out(
                model,
                [prefill(model, asked)],
                k=stage.num_return_sequences,
                vocabulary=vocabulary,
                max_new_tokens=stage.max_new_tokens,
                seeds=[
                    seed_of(context.seed, stage.name, clip.clip_id, number)
                    for number in range(stage.num_return_sequences)
                ],
                sampling=Sampling(temperature=stage.temperature),
            )
            written = [processor.tokenizer.decode(one.tokens, skip_special_tokens=True) for one in answers]
            best: str | None = written[0]
            if not stage.plain:
                best = _nearest(written, clip.opinion, numbers=dimensions(prompt), within=stage.max_error)
            row: dict[str, object] = {"id": clip.clip_id, "dataset_name": clip.dataset, "conversations": []}
            if best is not None:
                row["conversations"] = [{"from": "gpt", "value": best}]
            log.add("kept", float(best is not None))
            context.before_write()
            file.write(json.dumps(row) + "\n")
            file.flush()
    state.wait_for_everyone()
    if state.is_main_process:
        parts = [folder / f"part-{rank}-of-{state.num_processes}.jsonl" for rank in range(state.num_processes)]
        rows = [row for part in parts for row in read_jsonl(part) if row["conversations"]]
        log.write(len(clips), len(clips), answers=len(rows))
        if not rows:
            raise UsageError(
                f"stage {stage.name}: none of {len(clips)} clips got an answer that can be parsed"
                + (f" and lies within {stage.max_error:g} of its opinion" if stage.max_error else "")
                + ". Start from a model that answers, or raise num_return_sequences or max_error."
            )
        context.before_write()
        with replacing(folder / REASONS) as draft:
            draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _nearest(written: Sequence[str], opinion: float | None, *, numbers: int, within: float | None) -> str | None:
    """Parsed answer whose mean is nearest to the opinion; None where none is near."""
    found = []
    for place, text in enumerate(written):
        values = parse(text, numbers)
        if values is not None:
            found.append((abs(float(np.mean(values)) - opinion) if opinion is not None else 0.0, place))
    if not found or (within is not None and min(found)[0] > within):
        return None
    return written[min(found)[1]]


def texts_by_clip(paths: Sequence[Path]) -> dict[str, str]:
    """The text of each clip in the files of earlier `write` stages, by clip id."""
    return {row["id"]: row["conversations"][-1]["value"] for path in paths for row in read_jsonl(path)}


def read_jsonl(path: Path) -> list[Record]:
    """Rows of a JSONL file, without a torn last line; none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
