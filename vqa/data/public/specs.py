"""Public data sets (configs/data/*.yaml) and other projects' label dialects.

A file is recognised by its format and columns: first the forms of the set's authors, then the dialects. A set whose
rating scale is documented nowhere has no `scale`, and `vqa data import` requires `--scale` for it.
"""

from pydantic import Field

from vqa.config import Strict, configs_folder, load_config
from vqa.data.dialects import Separator
from vqa.data.manifest import MediaKind, RatingScale
from vqa.data.tables import TableFormat
from vqa.errors import UsageError


class ScaleSpec(Strict):
    """Rating scale: its ends, which end is better, and where that is documented."""

    low: float
    high: float
    higher_is_better: bool = True
    source: str = ""

    def scale(self) -> RatingScale:
        """Return the scale as a manifest records it."""
        return RatingScale(low=self.low, high=self.high, higher_is_better=self.higher_is_better, source=self.source)


class LabelForm(Strict):
    """A label file's layout: what its columns mean (1, 2, 3, ... without a header)."""

    format: TableFormat
    name: tuple[str, ...] = Field(
        (), description="columns, joined by / to the file's name; empty: names come from --names"
    )
    mos: str
    fields: int | None = Field(None, description="number of fields per line, in a file without a header")
    positional: bool = Field(False, description="name the columns of a CSV 1, 2, 3, ... beside the names in its header")
    separator: Separator = "comma"
    decimal_comma: bool = False
    std: str | None = None
    variance: str | None = None
    subject: str | None = Field(
        None,
        description="column of the subject: a row is one vote; opinion and spread of a clip are those of its votes",
    )
    reference: str | None = None
    content: str | None = None
    split: str | None = None
    aspects: dict[str, str] = Field({}, description="name in the manifest: column")
    aspect_unknown: float | None = Field(None, description="value that marks an aspect as unknown")
    aspects_within: tuple[float, float] | None = Field(
        None, description="range of the aspects; outside it, the file has another layout"
    )
    keep: dict[str, str] = Field({}, description="column: value that a row must have to be imported")
    beside: tuple[str, ...] = Field((), description="further .mat files in the same folder")
    skip: int = Field(0, description="number of leading rows that do not belong to the set")
    scale: ScaleSpec | None = Field(None, description="if it differs from the scale of the set")
    note: str | None = Field(None, description="shown on import")

    def columns(self) -> tuple[str, ...]:
        """Return every column that the file must have."""
        named = (self.std, self.variance, self.subject, self.reference, self.content, self.split)
        return (*self.name, self.mos, *(name for name in named if name), *self.aspects.values(), *self.keep)


class PublishedList(Strict):
    """A published split, with its contents, with its names, or with neither."""

    source: str = Field(description="repository and path")
    counts: dict[str, int] = Field(description="clips of each part")
    contents: dict[str, tuple[str, ...]] = Field({}, description="of each part")
    names: dict[str, str] = Field(
        {}, description="of each part: a file in configs/data/lists, a clip's name a line. Without both: give files"
    )
    in_labels: bool = Field(False, description="the source is a label file with a column for it, to be given as labels")
    note: str | None = Field(None, description="shown on import")

    @property
    def is_here(self) -> bool:
        """Whether its parts come with vqa."""
        return bool(self.contents or self.names)

    def part_of(self) -> dict[str, str]:
        """The part of each content, or of each name. Empty for a list that is not here."""
        if self.names:
            folder = configs_folder() / "data" / "lists"
            return {name: part for part, file in self.names.items() for name in (folder / file).read_text().split()}
        return {content.lower(): part for part, contents in self.contents.items() for content in contents}


class SetSpec(Strict):
    """One public data set."""

    kind: MediaKind
    scale: ScaleSpec | None = Field(
        None, description="of the opinions as published; null: not documented, --scale is required"
    )
    std_within: tuple[float, float] | None = Field(
        None, description="range that mos_std refers to, if it differs from the scale"
    )
    counts: dict[int, str] = Field({}, description="number of clips: source of that number")
    split: str | None = Field(None, description="of every row, if no column holds it")
    lists: dict[str, PublishedList] = Field(
        {},
        description="published splits by name; the first that is here is taken where neither user nor labels name one",
    )
    people: bool = Field(
        False, description="the file of its name in configs/people has its published split and the size people saw"
    )
    content: str = Field(
        r"^(.*)$", description="regular expression; group 1 of the name, in lower case, is the content"
    )
    level: str | None = Field(
        None,
        description="regular expression; group 1 of the name is the level of distortion, with which opinions must fall",
    )
    folder: str = Field("", description="folder of the files below --root")
    reference_folder: str | None = None
    rename: tuple[tuple[str, str], ...] = Field(
        (), description="pairs of regular expression and replacement: from labels to file names"
    )
    forms: tuple[LabelForm, ...] = ()
    dialect_scales: dict[str, ScaleSpec] = Field({}, description="scales of dialects that differ from the set's")


class LabelDialect(Strict):
    """Layouts in which a family of projects ships the labels of any set."""

    forms: tuple[LabelForm, ...]
    scale: ScaleSpec | None = None  # None: the scale of the set's authors


_MAPPED = ScaleSpec(low=1, high=5, source="the dialect maps opinions to 1-5 (DanceSkyCode/General-Visual-Quality-RL)")
DIALECTS: dict[str, LabelDialect] = {
    "fast-vqa-txt": LabelDialect(
        forms=(
            LabelForm(
                format="txt",
                fields=4,
                name=("1",),
                mos="4",
                aspects={"duration_seconds": "2", "fps": "3"},
                aspect_unknown=-1,
            ),
        )
    ),
    "q-align-json": LabelDialect(
        forms=(
            LabelForm(format="json", name=("image",), mos="gt_score"),
            LabelForm(format="json", name=("img_path",), mos="gt_score"),
        )
    ),
    "vqathinker-json": LabelDialect(forms=(LabelForm(format="json", name=("image_id",), mos="score"),)),
    "r1-jsonl": LabelDialect(
        forms=(
            LabelForm(format="jsonl", name=("image",), mos="gpt"),
            LabelForm(format="json", name=("image",), mos="gpt"),
        ),
        scale=_MAPPED,
    ),
    "r1-txt": LabelDialect(
        forms=(
            LabelForm(format="txt", fields=2, name=("1",), mos="2"),
            LabelForm(format="txt", fields=2, separator="blank", name=("1",), mos="2"),
            LabelForm(format="txt", fields=3, separator="blank", name=("1",), mos="2", std="3"),
            LabelForm(format="txt", fields=3, separator="blank", reference="1", name=("2",), mos="3"),
            LabelForm(format="txt", fields=4, separator="blank", reference="1", name=("2",), mos="3", std="4"),
        ),
        scale=_MAPPED,
    ),
    "hf-videofolder": LabelDialect(
        forms=tuple(
            LabelForm(format=kind, name=("file_name",), mos="mos", std=std)
            for std in ("mos_std", None)  # with a spread as `vqa data recover` writes it, or without
            for kind in ("csv", "jsonl", "parquet")
        )
    ),
}


def set_names() -> list[str]:
    """Return the names of the public data sets of configs/data."""
    return sorted(path.stem for path in (configs_folder() / "data").glob("*.yaml"))


def load_set(name: str) -> SetSpec:
    """Return a data set's specification. Raises UsageError, naming the known sets."""
    if name not in set_names():
        raise UsageError(
            f"data set {name!r} is not known. Give one of {', '.join(set_names())}; a dialect with --dataset: "
            f"{', '.join(DIALECTS)}; or ladder."
        )
    return load_config(configs_folder() / "data" / f"{name}.yaml", SetSpec)
