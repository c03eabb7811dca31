"""Types of metrics.json and of comparisons; no NaN, and a reason for each null."""

from typing import Literal, TypedDict

JoinKey = Literal["clip_id", "uri", "folder_and_name", "name"]


class Statistic(TypedDict):
    """One number with its bootstrap interval."""

    value: float | None
    low: float | None  # ends of the interval, null where none was computed
    high: float | None
    reason: str | None  # why the value is null


class FitRecord(TypedDict):
    """A curve from scores to opinions."""

    formula: str
    parameters: list[float] | None
    converged: bool
    reason: str | None  # why there are no parameters, or why the curve is not used


class Splits(TypedDict):
    """Statistics over random test parts, as usual for models trained on the rest."""

    count: int
    test_share: float
    by: Literal["content_id", "clip"]
    median: dict[str, float]
    min: dict[str, float]
    max: dict[str, float]


class SetMetrics(TypedDict):
    """Everything measured on one set of clips."""

    expected: int  # labelled clips
    used: int  # of these, clips with a score
    statistics: dict[str, Statistic]  # srcc plcc krcc rmse mae pairwise_accuracy, plcc_logistic4 rmse_logistic4
    # mae_logistic4, the same with logistic5, outlier_ratio auc_different_similar auc_better_worse
    fits: dict[str, FitRecord]  # logistic4, logistic5
    definitions: dict[str, str]  # of outlier_ratio, auc and rmse, in words
    splits: Splits | None


class ScoresSource(TypedDict):
    """The evaluated scores."""

    source: str
    kind: str  # vqa (an --out folder), csv, jsonl, parquet, txt
    rows: int
    column: str
    model_id: str | None
    model_revision: str | None


class LabelsSource(TypedDict):
    """The opinions."""

    source: str
    mos_column: str
    rows: int


class ClipCounts(TypedDict):
    """Numbers of clips and rows."""

    expected: int
    used: int
    by_status: dict[str, int]
    unmatched_scores: int
    duplicate_scores: int
    labels_without_opinion: int


# A tenth of the clips, by the spread of their scores: n, score_std (mean), rmse and mae of mapped score minus opinion.
ReliabilityBin = dict[str, float]


class Settings(TypedDict):
    """Settings of an evaluation."""

    resamples: int
    confidence: float
    seed: int
    splits: int
    allow_missing: bool
    split: str | None
    by: list[str]
    lower_is_better: bool


class PublishedNumbers(TypedDict):
    """What a reproduction card quotes."""

    srcc: float | None
    plcc: float | None
    clips: int | None
    source: str


class ClipRow(TypedDict):
    """The named columns of clips.parquet, see vqa.evaluate."""

    clip_id: str
    uri: str
    dataset: str
    mos: float
    mos_std: float | None
    score: float | None
    score_std: float | None
    status: str
    error_kind: str | None
    error: str | None
    reason: str | None
    used: bool
    mapped: float | None
    residual: float | None


class SharePoint(TypedDict):
    """Agreement where a cascade's reasoner scored this share, of widest `light_std`."""

    share: float  # 0-1 of the clips used
    clips: int  # that the reasoner scored
    srcc: float | None
    low: float | None
    high: float | None


class EvaluationMetrics(TypedDict):
    """metrics.json."""

    schema: int
    vqa: str  # version
    created: str  # ISO time
    scores: ScoresSource
    labels: LabelsSource
    join: JoinKey
    settings: Settings
    counts: ClipCounts
    reported: bool  # False if clips lack a score and --allow-missing was not given: statistics of such sets are null
    reason: str | None  # why not
    all: SetMetrics  # over everything; opinions of several sets share no scale, so prefer `means`
    datasets: dict[str, SetMetrics]
    groups: dict[str, dict[str, SetMetrics]]  # by column of --by, then by value
    means: dict[str, dict[str, Statistic]]  # over data sets: plain, and weighted by the clips used
    reliability: list[ReliabilityBin] | None  # bins of score_std, from the most certain tenth on
    shares: list[SharePoint] | None  # of a cascade, from the student alone on; None for other runs
    published: PublishedNumbers | None


class ComparedModel(ClipCounts):
    """One of the compared score files."""

    name: str
    source: str
    column: str


class Difference(TypedDict):
    """One statistic of two models on the same clips of one data set."""

    dataset: str
    clips: int
    first: str
    second: str
    statistic: str
    values: list[float | None]
    difference: float | None  # first - second
    low: float | None  # bootstrap interval of the difference, on paired resamples
    high: float | None
    p: dict[str, float | None]  # bootstrap, meng, steiger (the latter two for srcc and plcc only)
    p_holm: dict[str, float | None]  # after Holm's correction


class Comparison(TypedDict):
    """Output of `vqa compare`."""

    models: list[ComparedModel]
    expected: int
    used: int  # clips that every model scored
    reported: bool
    reason: str | None
    correction: str  # the family of tests that Holm's correction covers
    differences: list[Difference]
