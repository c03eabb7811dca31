#!/usr/bin/env bash
# Builds the image of jobs/cluster/Dockerfile by buildah, which needs no daemon, and scores a clip in it, in one process
# and on Ray, under an account that the image does not know. Options of `buildah build` may follow, such as --from for
# another base. Not part of the test run.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
buildah build --isolation chroot --tag vqa-check "$@" --file "$root/jobs/cluster/Dockerfile" "$root"
container=$(buildah from vqa-check)
trap 'buildah rm "$container" >/dev/null; rm -rf "$place"' EXIT
mkdir "$place/clips"
cp "$root/vqa/assets/clips/big_buck_bunny_end.mp4" "$place/clips"
chmod -R a+rwX "$place"
inside() {
    buildah run --isolation chroot --user 4321 --volume "$place:/shared" "$container" -- "$@"
}
inside vqa --version
inside wget --version | head -1
for engine in local ray; do
    inside vqa score /shared/clips --out "/shared/$engine" --engine "$engine"
done
inside python -c '
from pathlib import Path
from vqa.data.score_table import TIMINGS, read_scores
local, ray = (read_scores(Path("/shared", engine)).drop_columns(list(TIMINGS)) for engine in ("local", "ray"))
assert local.column("status").to_pylist() == ["ok"]
assert local.equals(ray)
'
echo "image check passed"
