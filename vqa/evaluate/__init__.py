"""How far scores can be trusted: joined with opinions, never silently, and measured with intervals.

`vqa evaluate SCORES --labels M --out DIR` writes three files that others read (the page, for one).

DIR/clips.parquet, one row per expected clip (a row of the labels with an opinion), in the order of the labels:
    clip_id, uri, dataset   string   the labels' (clip_id = the path, dataset = the file's name, where not given)
    mos, mos_std            double   opinion on the labels' scale (manifests: 1-5), spread of its ratings or null
    score, score_std        double   null where there is none; score is negated under --lower-is-better
    status                  string   ok partial unparsed failed (as in the scores table); missing = no row in SCORES;
                                     unscored = a row without a finite number; duplicate = rows that contradict
    error_kind, error       string   of failed rows
    reason                  string   the model's words
    used                    bool     counted in the figures
    mapped                  double   the score on the opinion scale by the data set's 4-parameter logistic, or null
    residual                double   mapped - mos: above 0 the model likes it better than people do
    start_seconds, end_seconds, keyframe_seconds, crop_boxes, width, height, fps, duration_seconds, codec
                                     as in the scores table (vqa.data.score_table.SCHEMA); null for other tools' files
    every other column of the labels (split, content_id, kind, mos_raw, distortion, ...), nested ones as JSON text;
    `label_` goes before a name that is taken above.

DIR/unused.csv: what was left out, one line each: side (scores, labels), row (from 1), clip, why: unmatched or
duplicate rows of the scores; labels with no opinion, or whose clip has no score (its status).

DIR/metrics.json; no number in it is ever NaN, a null has a reason:
    schema, vqa, created    1, version, ISO time
    scores                  {source, kind (vqa csv jsonl parquet txt), column, rows, model_id, model_revision}
    labels                  {source, mos_column, rows}
    join                    clip_id uri tail (folder and name) name: what joined them
    settings                {resamples, confidence, seed, splits, allow_missing, split, by, lower_is_better}
    counts                  {expected, used, by_status, unmatched_scores, duplicate_scores, labels_without_opinion}
    stands, reason          false where used < expected without --allow-missing: figures of such sets are null; why
    all                     FIGURES over everything (opinions of several sets share no scale: prefer `means`)
    datasets                {name: FIGURES}
    groups                  {column of --by: {value: FIGURES}}
    means                   {plain: {name: STATISTIC}, weighted: {...}} over data sets, weights = clips used
    reliability             bins of score_std, or null: [{n, score_std, rmse, mae}] from the surest tenth on
    published               what a reproduction card says, or null
FIGURES = {expected, used, statistics: {name: STATISTIC}, fits: {logistic4, logistic5: FIT}, rules: {...: words},
           splits: null or {count, test_share, by, median, least, most: {name: number}}}
STATISTIC = {value, low, high, reason}; low and high are the bootstrap's 95 % interval, null where not made.
FIT = {formula, parameters, converged, reason}
Names of statistics: srcc plcc krcc rmse mae pairwise_accuracy, plcc_logistic4 rmse_logistic4 mae_logistic4, the same
with logistic5, outlier_ratio auc_different_similar auc_better_worse.
"""
