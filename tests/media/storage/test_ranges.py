"""Files behind URLs, from real servers on loopback: read by ranges, and each fault of a line or store is named."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support import children, clips, web
from tests.support.buckets import s3
from vqa.cli import main
from vqa.data.sources import list_clips
from vqa.errors import ClipError, UsageError
from vqa.media import Guard, decode, fingerprint, probe
from vqa.media.storage import stores
from vqa.media.storage.objects import put_object
from vqa.media.storage.ranges import open_remote
from vqa.media.storage.stores import list_remote, remote_stamp

pytestmark = pytest.mark.slow

pytest.importorskip("aiohttp", reason="pip install 'vqa[http]'")

TIMES = np.sort([*((np.arange(16) + 0.5) / 16 * 600), 100.0, 300.0, 500.0])
FEW = TIMES[[0, 9, 18]]  # for faults: each time costs half a key-frame interval of decoding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`long.mp4`: ten minutes at GOP 250 with sound and the index at the end; `short.mp4`: 30 frames; `noise.mkv`."""
    folder = tmp_path_factory.mktemp("served")
    part = clips.write_video(folder / "part.mp4", frames=500, options={"g": "250"}, audio=True)
    clips.ffmpeg("-stream_loop", 29, "-i", part, "-c", "copy", folder / "long.mp4")
    clips.write_video(folder / "short.mp4", frames=30)
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(500_000))
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[web.Server]:
    with web.serve(folder) as server:
        yield server


def pixels(uri: str) -> list[bytes]:
    return [frame.tobytes() for frame in decode(uri, FEW, sizes=[None] * len(FEW)).pixels]


@pytest.fixture(scope="module")
def wanted(folder: Path) -> list[bytes]:
    """The pixels of the long file."""
    return pixels(str(folder / "long.mp4"))


def test_nineteen_frames_of_ten_minutes_cost_a_third_of_the_bytes_at_most(folder: Path, server: web.Server) -> None:
    """Measured: 0.32 for this file of few bytes a second, the hardest kind; fingerprint, probe and decode."""
    url = server.url("long.mp4")
    fingerprint(url)
    info, packets = probe(url)
    frames = decode(url, TIMES, sizes=[None] * 19, info=info, packets=packets)
    assert len(frames.pixels) == 19 and info.duration_seconds == pytest.approx(600, abs=5)
    assert server.sent_bytes <= 0.35 * (folder / "long.mp4").stat().st_size
    local = decode(str(folder / "long.mp4"), TIMES, sizes=[None] * 19)
    assert [frame.tobytes() for frame in frames.pixels] == [frame.tobytes() for frame in local.pixels]


@pytest.mark.parametrize("fault", ["getonly", "stateless", "cutonce", "busy2", "whole", "wholesaid"])
def test_odd_servers_and_passing_faults_change_no_pixel(wanted: list[bytes], server: web.Server, fault: str) -> None:
    """No HEAD, no ETag, one answer cut off, two refusals, ranges ignored silently or by announcement."""
    assert pixels(server.url("long.mp4", fault)) == wanted


def test_a_server_without_ranges_sends_the_file_once(folder: Path, server: web.Server) -> None:
    url = server.url("long.mp4", "wholesaid")
    assert pixels(url) == pixels(url)
    assert server.sent_bytes <= 1.2 * (folder / "long.mp4").stat().st_size


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("404", "not_found", "no such file"),
        ("401", "not_readable", r"permission denied \(401\)"),
        ("403", "not_readable", r"permission denied \(403\).*environment"),
        ("500", "not_readable", "status 500"),
        ("busy9", "not_readable", "status 503"),
        ("reset", "not_readable", "failed 3 times"),
        ("cut", "not_readable", "failed 3 times"),
    ],
)
def test_each_fault_has_its_kind_and_words(server: web.Server, fault: str, kind: str, said: str) -> None:
    url = server.url("long.mp4", fault)
    with pytest.raises(ClipError, match=said) as caught:
        pixels(url)
    assert (caught.value.kind, str(caught.value).startswith(url)) == (kind, True)
    assert len(server.requests) <= 12


def test_a_refused_connection_is_not_readable() -> None:
    with pytest.raises(ClipError, match="Check the network") as caught:
        probe("http://127.0.0.1:9/a.mp4")
    assert caught.value.kind == "not_readable"


def test_silence_is_a_timeout_by_itself_and_by_the_guard(server: web.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Guard(deadline_seconds=1.5, memory_bytes=None) as guard:
        guard.start()
        with pytest.raises(ClipError, match=r"not done after 1\.5 s") as caught:
            guard.run(probe, server.url("long.mp4", "stall"))
        assert caught.value.kind == "timeout"
    monkeypatch.setattr(stores, "SILENCE_SECONDS", 0.5)
    with pytest.raises(ClipError, match=r"sent nothing for 0\.5 s") as caught:
        probe(server.url("long.mp4", "stall"))
    assert caught.value.kind == "timeout"


def test_wrong_files_are_named_as_local_ones_are(server: web.Server) -> None:
    for name, kind in [("noise.mkv", "not_video"), ("empty.mp4", "no_frames"), ("gone.mp4", "not_found")]:
        with pytest.raises(ClipError) as caught:
            probe(server.url(name))
        assert caught.value.kind == kind


def test_reads_at_any_place_give_the_bytes_of_the_file(folder: Path, server: web.Server) -> None:
    data = (folder / "noise.mkv").read_bytes()
    rng = np.random.default_rng(1)
    for fault in ("fine", "whole"):
        with open_remote(server.url("noise.mkv", fault)) as file:
            for start, length in itertools.chain(rng.integers(0, 500_000, (50, 2)), [(499_999, 9), (500_000, 9)]):
                file.seek(int(start))
                assert file.read(int(length)) == data[start : start + length]
            assert file.seek(-5, os.SEEK_END) == 499_995
            file.seek(0)
            assert file.readall() == data


def test_fingerprint_and_stamp_follow_the_state_that_the_store_names(folder: Path, server: web.Server) -> None:
    path = folder / "changing.mp4"
    path.write_bytes(b"a" * 3_000_000)
    url = server.url(path.name)
    first = (fingerprint(url), remote_stamp(url))
    assert (fingerprint(url), remote_stamp(url)) == first and server.sent_bytes == 0
    sampled = fingerprint(server.url(path.name, "stateless"))
    assert remote_stamp(server.url(path.name, "stateless")) is None
    assert 0 < server.sent_bytes <= 1_500_000, "16 blocks of 64 KiB, where nothing names the state"
    path.write_bytes(b"b" * 3_000_000)
    os.utime(path, ns=(1, 1))
    now = (fingerprint(url), remote_stamp(url))
    assert now[0] != first[0] and now[1] != first[1]
    seen = {sampled}
    for letter in b"cdefghij":  # each opened anew, where the last one's memory is free again
        path.write_bytes(bytes([letter]) * 3_000_000)
        seen.add(fingerprint(server.url(path.name, "stateless")))
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://bucket/a.mp4", r"pip install 'vqa\[gs\]'"),
        ("nosuch://a/b.mp4", "'nosuch' cannot be read"),
        ("local:///etc/passwd", "path or file://"),
        ("simplecache::s3://bucket/a.mp4", "chains"),
        ("zip://a.mp4::http://host/a.zip", "chains"),
    ],
)
def test_a_scheme_that_cannot_be_read_says_what_to_do(uri: str, said: str) -> None:
    if uri.startswith("gs") and "gcsfs" in sys.modules:
        pytest.skip("gcsfs is installed")
    if not re.match("[a-z]+://", uri):
        uri = uri.replace("simplecache::", "simplecache://x::")
    with pytest.raises(ClipError, match=said) as caught:
        probe(uri)
    assert caught.value.kind == "unsupported"


def test_a_url_and_a_manifest_of_urls_are_clips(tmp_path: Path, server: web.Server) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{server.url('short.mp4')}\n{server.url('gone.mp4')}\n")
    listing = list_clips([server.url("short.mp4") + "?token=a", str(manifest)])
    assert [clip.clip_id for clip in listing.clips] == ["short.mp4", server.url("short.mp4"), server.url("gone.mp4")]
    with pytest.raises(UsageError, match="local files only"):
        list_clips([server.url("list.csv")])


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    """A bucket with clips under `clips/`, on moto's server in a process of its own, named by the environment."""
    with s3() as url:
        for key in ("clips/long.mp4", "clips/deep/short.mp4", "clips/.hidden.mp4", "clips/notes.md"):
            source = folder / key.rpartition("/")[2]
            put_object(f"{url}/{key}", source.read_bytes() if source.exists() else b"x")
        yield url


def test_s3_gives_the_same_frames_and_its_folders_are_listed(wanted: list[bytes], bucket: str) -> None:
    assert pixels(f"{bucket}/clips/long.mp4") == wanted
    for source in (f"{bucket}/clips", f"{bucket}/clips/", f"{bucket}/clips/**"):
        listing = list_clips([source])
        assert [clip.clip_id for clip in listing.clips] == ["deep/short.mp4", "long.mp4"]
        assert listing.skipped_by_suffix == {".md": 1}
    assert listing.clips[0].uri == f"{bucket}/clips/deep/short.mp4"
    assert list(list_remote(f"{bucket}/clips/notes.md")) == [f"{bucket}/clips/notes.md"]
    assert fingerprint(listing.clips[0].uri) == fingerprint(listing.clips[0].uri)
    assert remote_stamp(listing.clips[0].uri) is not None


def test_a_prefix_is_listed_page_by_page_as_its_names_are_wanted(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two names, as a store may send fewer than it is asked for; flat, with folders and a folder's marker."""
    from s3fs import S3FileSystem

    keys = [*(f"flat/{n}.mp4" for n in range(5)), "flat/a/0.mp4", "flat/a-b.mp4", "flat/a b/\u00fc.mp4", "flat/empty/"]
    for key in keys:
        put_object(f"{bucket}/{key}", b"x")
    send, asked = S3FileSystem.call_s3, list[dict[str, str]]()

    def two(self: S3FileSystem, method: str, **arguments: str) -> object:
        asked.append(arguments)
        return send(self, method, **arguments, MaxKeys=2)

    monkeypatch.setattr(S3FileSystem, "call_s3", two)
    names = list_remote(f"{bucket}/flat")
    assert next(names) == f"{bucket}/flat/0.mp4" and len(asked) == 1
    assert next(names) == f"{bucket}/flat/1.mp4" and len(asked) == 1
    assert next(names) == f"{bucket}/flat/2.mp4" and len(asked) == 2
    store, path = stores.store_of(f"{bucket}/flat")
    wanted = [f"s3://{name}" for name in sorted(store.find(path, detail=True))]
    assert [f"{bucket}/flat/0.mp4", f"{bucket}/flat/1.mp4", f"{bucket}/flat/2.mp4", *names] == wanted
    assert len(asked) == 5 and len(wanted) == len(keys)


def test_s3_says_what_is_absent_and_what_is_a_folder(bucket: str) -> None:
    for uri, kind in [("clips/gone.mp4", "not_found"), ("clips", "not_readable"), ("../none/a.mp4", "not_found")]:
        with pytest.raises(ClipError) as caught:
            probe(f"{bucket}/{uri}".replace("films/../", ""))
        assert caught.value.kind == kind
    with pytest.raises(UsageError, match="no such"):
        list_clips([f"{bucket}/nothing"])


@pytest.fixture
def instead(
    bucket: str, folder: Path, server: web.Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Another real server in the store's place, that fails as asked; gives the URL of the long file there."""
    import s3fs

    (folder / "films" / "clips").mkdir(parents=True, exist_ok=True)
    if not (folder / "films/clips/long.mp4").exists():
        (folder / "films/clips/long.mp4").hardlink_to(folder / "long.mp4")

    def failing(fault: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}/{fault}")
        return f"{bucket}/clips/long.mp4"

    yield failing
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("403", "not_readable", r"permission denied \(403\)"),
        ("404", "not_found", "no such file"),
        ("503", "not_readable", "status 503"),
        ("reset", "not_readable", "failed 3 times"),
        ("cut", "not_readable", "failed 3 times"),
        ("stall", "timeout", r"sent nothing for 0\.5 s"),
    ],
)
def test_a_store_that_fails_is_named_within_few_tries(
    instead: Callable[[str], str], server: web.Server, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str, said: str
) -> None:
    monkeypatch.setattr(stores, "SILENCE_SECONDS", 0.5 if fault == "stall" else 30.0)
    with pytest.raises(ClipError, match=said) as caught:
        pixels(instead(fault))
    assert caught.value.kind == kind, caught.value
    assert len(server.requests) <= 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no credentials for the store (Unable to locate credentials)"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "no credentials for the store (Partial credentials found in env, missing: "),
        ({"AWS_PROFILE": "nobody"}, "no credentials for the store (The config profile (nobody) could not be found)"),
    ],
)
def test_a_store_without_credentials_names_them_and_where_to_set_them(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], said: str
) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    elsewhere = {"AWS_CONFIG_FILE": tmp_path / "no", "AWS_SHARED_CREDENTIALS_FILE": tmp_path / "no"}
    for name, value in (elsewhere | {"AWS_EC2_METADATA_DISABLED": "true"} | given).items():
        monkeypatch.setenv(name, str(value))
    S3FileSystem.clear_instance_cache()
    for call in (lambda: list(stores.list_remote(f"{bucket}/clips")), lambda: probe(f"{bucket}/clips/long.mp4")):
        with pytest.raises(ClipError, match=re.escape(said)) as caught:
            call()
        assert caught.value.kind == "not_readable"
        way_out = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment; for a public "
        assert f"{way_out}bucket FSSPEC_S3_ANON=true." in str(caught.value)
    assert not stores.is_away(f"{bucket}/clips/long.mp4"), "nothing to wait for"


def test_a_public_object_is_read_as_the_message_says(bucket: str) -> None:
    """In a process of its own: fsspec reads its settings from the environment once."""
    import boto3

    boto3.client("s3").put_object(Bucket="films", Key="public.txt", Body=b"hello", ACL="public-read")
    code = "import sys; from vqa.media.storage.objects import read_object; print(read_object(sys.argv[1]))"
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    env = {name: value for name, value in os.environ.items() if name not in secrets}
    env |= {"FSSPEC_S3_ANON": "true", "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-c", code, f"{bucket}/public.txt"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "b'hello'", done.stderr


def test_a_passing_fault_of_a_store_changes_no_pixel(wanted: list[bytes], instead: Callable[[str], str]) -> None:
    assert pixels(instead("cutonce")) == wanted


# --- a job ------------------------------------------------------------------------------------------------------------


def command(*words: str) -> None:
    """`vqa WORDS`, in a fork: the server of this process's guards is older than the bucket's environment."""
    sys.argv = ["vqa", *words]
    main()


def test_a_job_over_urls_and_a_folder_of_a_store_gives_the_rows_of_local_files(
    folder: Path, server: web.Server, bucket: str, tmp_path: Path
) -> None:
    urls = [server.url("short.mp4"), server.url("gone.mp4"), server.url("short.mp4", "403")]
    (tmp_path / "list.txt").write_text("\n".join(urls) + "\n")
    sources = [str(tmp_path / "list.txt"), f"{bucket}/clips", str(folder / "short.mp4")]
    # Sampled answers would differ a little: their seeds come from the clip_id, which names the place.
    words = ("score", *sources, "--out", str(tmp_path / "out"), "--max-failed", "100%", "--k", "1")
    job = children.forked().Process(target=command, args=words)
    job.start()
    job.join()
    assert job.exitcode == 0
    found = pq.read_table(tmp_path / "out" / "scores").to_pylist()
    rows = {row["uri"]: (row["status"], row["error_kind"], row["score"]) for row in found}
    status, kind, score = good = rows[str(folder / "short.mp4")]
    assert (status, kind) == ("ok", None) and 1 <= score <= 5
    assert rows[urls[0]] == rows[f"{bucket}/clips/deep/short.mp4"] == good
    assert rows[f"{bucket}/clips/long.mp4"][0] == "ok"
    assert rows[urls[1]] == ("failed", "not_found", None)
    assert rows[urls[2]] == ("failed", "not_readable", None)
    assert len(rows) == len(found) == 6
