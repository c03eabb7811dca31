"""What is known of each public data set, configs/data/*.yaml, and the dialects in which others pass labels on.

A file is recognised by its format and columns: first the forms of the set's authors, then the dialects. Where nobody
could be found to say in what range the opinions lie, a set has no scale, and `vqa data import` asks for it.
"""

from pydantic import Field

from vqa.config import Strict, configs_folder, load
from vqa.data.manifest import Kind, Scale
from vqa.data.public.label_files import Format, Separator
from vqa.errors import UsageError


class ScaleSpec(Strict):
    """Where opinions can lie, which end is good, and who says so."""

    low: float
    high: float
    higher_is_better: bool = True
    source: str = ""

    def scale(self) -> Scale:
        """As the manifest records it."""
        return Scale(low=self.low, high=self.high, higher_is_better=self.higher_is_better, source=self.source)


class Form(Strict):
    """One layout of a label file: which column is what. Columns of a file without a header are 1, 2, 3..."""

    format: Format
    name: tuple[str, ...] = Field((), description="columns, joined by / to the file's name; none = --names tells")
    mos: str
    fields: int | None = Field(None, description="how many fields a line has, in a file without a header")
    positional: bool = Field(False, description="call the columns of a csv 1, 2, 3... too, whatever its header says")
    separator: Separator = "comma"
    decimal_comma: bool = False
    std: str | None = None
    variance: str | None = None
    reference: str | None = None
    content: str | None = None
    split: str | None = None
    aspects: dict[str, str] = Field({}, description="name in the manifest: column")
    aspect_unknown: float | None = Field(None, description="this value of an aspect means nothing")
    aspects_within: tuple[float, float] | None = Field(None, description="aspects outside: the file is another layout")
    keep: dict[str, str] = Field({}, description="column: the value that a row must have")
    beside: tuple[str, ...] = Field((), description="further .mat files in the same folder")
    skip: int = Field(0, description="leading rows that are no part of the set")
    scale: ScaleSpec | None = Field(None, description="where it differs from the set's")
    note: str | None = Field(None, description="told to whoever imports it")

    def columns(self) -> tuple[str, ...]:
        """Every column that must be there."""
        named = (self.std, self.variance, self.reference, self.content, self.split)
        return (*self.name, self.mos, *(name for name in named if name), *self.aspects.values(), *self.keep)


class SetSpec(Strict):
    """One public data set."""

    kind: Kind
    scale: ScaleSpec | None = Field(None, description="of the opinions as shipped; null: NOT FOUND, asked by --scale")
    std_within: tuple[float, float] | None = Field(None, description="range that mos_std belongs to, if another")
    counts: dict[int, str] = Field({}, description="clips: whose count it is")
    split: str | None = Field(None, description="of every row, where no column tells")
    train_contents: tuple[str, ...] = Field((), description="published training contents; the rest is dealt, see notes")
    content: str = Field(r"^(.*)$", description="regular expression; group 1 of the name is the content, in lower case")
    level: str | None = Field(None, description="group 1 of the name is how strong the damage is: opinions must fall")
    folder: str = Field("", description="where the files lie below --root")
    reference_folder: str | None = None
    rename: tuple[tuple[str, str], ...] = Field((), description="regular expression, replacement: labels to file names")
    forms: tuple[Form, ...] = ()
    dialect_scales: dict[str, ScaleSpec] = Field({}, description="where a dialect has its own")


class Dialect(Strict):
    """How a family of projects writes labels of any set."""

    forms: tuple[Form, ...]
    scale: ScaleSpec | None = None  # none: as the set's authors ship it


_MAPPED = ScaleSpec(low=1, high=5, source="the dialect maps opinions to 1-5 (DanceSkyCode/General-Visual-Quality-RL)")
DIALECTS: dict[str, Dialect] = {
    "fast-vqa-txt": Dialect(
        forms=(
            Form(
                format="txt",
                fields=4,
                name=("1",),
                mos="4",
                aspects={"duration_seconds": "2", "fps": "3"},
                aspect_unknown=-1,
            ),
        )
    ),
    "q-align-json": Dialect(
        forms=(
            Form(format="json", name=("image",), mos="gt_score"),
            Form(format="json", name=("img_path",), mos="gt_score"),
        )
    ),
    "vqathinker-json": Dialect(forms=(Form(format="json", name=("image_id",), mos="score"),)),
    "r1-jsonl": Dialect(
        forms=(Form(format="jsonl", name=("image",), mos="gpt"), Form(format="json", name=("image",), mos="gpt")),
        scale=_MAPPED,
    ),
    "r1-txt": Dialect(
        forms=(
            Form(format="txt", fields=2, name=("1",), mos="2"),
            Form(format="txt", fields=2, separator="blank", name=("1",), mos="2"),
            Form(format="txt", fields=3, separator="blank", name=("1",), mos="2", std="3"),
            Form(format="txt", fields=3, separator="blank", reference="1", name=("2",), mos="3"),
            Form(format="txt", fields=4, separator="blank", reference="1", name=("2",), mos="3", std="4"),
        ),
        scale=_MAPPED,
    ),
    "hf-videofolder": Dialect(
        forms=tuple(
            Form(format=kind, name=("file_name",), mos="mos", std=std)
            for std in ("mos_std", None)  # as of `vqa data recover`, or without
            for kind in ("csv", "jsonl", "parquet")
        )
    ),
}


def set_names() -> list[str]:
    """The public data sets that are known."""
    return sorted(path.stem for path in (configs_folder() / "data").glob("*.yaml"))


def load_set(name: str) -> SetSpec:
    """What is known of a data set. Raises UsageError with the names there are."""
    if name not in set_names():
        raise UsageError(
            f"data set {name!r} is not known; there are {', '.join(set_names())}; "
            f"dialects (with --dataset): {', '.join(DIALECTS)}; and ladder"
        )
    return load(configs_folder() / "data" / f"{name}.yaml", SetSpec)
