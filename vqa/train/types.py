"""Types for what transformers, trl and JSON files hand over loosely declared."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from vqa.prompt import ChatTurn

# transformers.PreTrainedModel, bare or wrapped by accelerate or peft. It leaves methods such as `eval` untyped, which
# mypy's strict mode refuses, and its parts are a tensor or a module each.
Model: TypeAlias = Any
Tower: TypeAlias = Any  # Qwen2.5-VL's vision transformer; torch declares a module's parts as tensor or module

Record: TypeAlias = Mapping[str, Any]  # an object read from JSON, or a row of a table
TrainingRow: TypeAlias = dict[str, Any]  # of the table that trl iterates over
Chat: TypeAlias = list[ChatTurn]
Batch: TypeAlias = dict[str, Any]  # a supervised batch by name: tensors, features of pictures, a count of columns
