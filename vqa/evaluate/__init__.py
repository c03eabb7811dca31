"""Agreement of scores with opinions, with intervals; each missing score reported.

`vqa evaluate SCORES --labels M --out DIR` writes three files, which the report reads too.

DIR/clips.parquet, one row per expected clip (a row of the labels with an opinion), in the order of the labels:
    clip_id, uri, dataset   string   of the labels (default: clip_id = the path, dataset = name of the file)
    mos, mos_std            double   opinion on the scale of the labels (manifests: 1-5), spread of its ratings or null
    score, score_std        double   null without a score; negated by --lower-is-better
    status                  string   ok partial unparsed failed (as in the scores table); missing = no row in SCORES;
                                     unscored = a row without a finite number; duplicate = rows that contradict
    error_kind, error       string   of failed rows
    reason                  string   of the model's answer
    used                    bool     whether the clip counts in the statistics
    mapped                  double   score on the opinion scale by the data set's 4-parameter logistic, or null
    residual                double   mapped - mos: above 0 the score is higher than the opinion
    start_seconds, end_seconds, keyframe_seconds, crop_boxes, width, height, fps, duration_seconds, codec
                                     as in the scores table (vqa.data.score_table.SCHEMA); null for files of other tools
    every other column of the labels (split, content_id, kind, mos_raw, distortion, ...), nested ones as JSON text;
    `label_` is prefixed to a name that is used above.

DIR/unused.csv, one line per row that was left out: side (scores, labels), row (from 1), clip, reason: unmatched or
duplicate rows of the scores; labels with no opinion, or whose clip has no score (its status).

DIR/metrics.json, as typed in vqa.evaluate.schema.EvaluationMetrics.
"""
