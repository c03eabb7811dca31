#!/usr/bin/env bash
# Builds the wheel and installs it without extras in a clean environment away from the checkout. There the base install
# scores a bundled clip, and what needs an extra ends in one line that names it. Not part of the test run.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH
"$root/.venv/bin/uv" build --quiet --wheel --out-dir "$place/dist" "$root"
python3 -m venv "$place/venv"
"$root/.venv/bin/uv" pip install --quiet --python "$place/venv/bin/python" --constraint "$root/constraints.txt" "$place"/dist/*.whl
cd "$place"
for package in trl accelerate datasets peft imageio_ffmpeg s3fs; do
    if venv/bin/python -c "import $package" 2>/dev/null; then
        echo "wheel check failed: the base install brings $package" >&2
        exit 1
    fi
done
cp "$root/vqa/assets/clips/big_buck_bunny_end.mp4" .
venv/bin/vqa score big_buck_bunny_end.mp4 --out out
venv/bin/vqa show out
venv/bin/python -c '
import pathlib, vqa
assert "venv" in pathlib.Path(vqa.__file__).parts, vqa.__file__
from vqa import Scorer
score = Scorer.load("embedded").score_file("big_buck_bunny_end.mp4")
assert score.score is not None and 1 <= score.score <= 5, score
print(score)
'

# lacks EXTRA COMMAND...: the command fails with one line on stderr, which says how to install the extra.
lacks() {
    local extra=$1 said
    shift
    if said=$("$@" 2>&1 >/dev/null); then
        echo "wheel check failed: $* ends well without the extra $extra" >&2
        exit 1
    fi
    if [ "$(wc -l <<<"$said")" != 1 ] || [[ $said != *"pip install 'vqa[$extra]'"* ]]; then
        echo "wheel check failed: $* says: $said" >&2
        exit 1
    fi
    echo "$said"
}
lacks train venv/bin/vqa train "$root/configs/train/embedded.yaml" --data out --out trained
lacks synth venv/bin/vqa data synth big_buck_bunny_end.mp4 --out ladder
lacks synth venv/bin/vqa data demo --out clips
lacks s3 venv/bin/vqa score s3://bucket/clips --out scores
echo "wheel check passed"
