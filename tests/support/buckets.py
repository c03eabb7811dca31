"""A bucket of S3 on loopback: moto's server, in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

SERVER = (
    "from moto.server import ThreadedMotoServer as S; import time\n"
    "s = S('127.0.0.1', 0); s.start(); print('port', s.get_host_and_port()[1], flush=True); time.sleep(600)"
)


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """The URL of an empty bucket, which this process and its children find by the environment."""
    pytest.importorskip("s3fs", reason="pip install 'vqa[dev]'")
    pytest.importorskip("moto", reason="pip install 'vqa[dev]'")
    import boto3
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # another server's
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        lines = (line.decode().split() for line in process.stdout)  # moto has words of its own to say first
        place = f"http://127.0.0.1:{next(words[1] for words in lines if words[:1] == ['port'])}"
        names = {"AWS_ENDPOINT_URL": place, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (names | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="films")
            yield "s3://films"
        S3FileSystem.clear_instance_cache()
        process.terminate()
