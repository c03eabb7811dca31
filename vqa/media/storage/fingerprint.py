"""Digest of a file's content, cheap at any size; part of `run_key`."""

import hashlib
import os

from vqa.media.storage.open import media_errors, open_source
from vqa.media.storage.ranges import RemoteFile

BLOCK_BYTES = 1 << 20
REMOTE_BLOCK_BYTES = 1 << 16
BLOCKS = 16


def fingerprint(uri: str) -> str:
    """BLAKE2b digest (32 hex digits) of a file's size and content.

    Of a file up to 16 MiB all is read, of a larger one 16 blocks of 1 MiB: the head, the tail and 14 evenly spaced
    between them. There a change between two blocks that leaves the length as it is goes unnoticed. Of a remote file no
    content is read where its store names a state (an ETag, else the time of change): the digest is of size and state,
    and differs from that of a local copy. Where the store names none, the blocks are 64 KiB.

    Args:
        uri: Path or URL.

    Returns:
        The digest in hexadecimal.

    Raises:
        ClipError: The kinds of `open_source`.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open_source(uri) as file, media_errors(uri, doing="reading it"):
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        state = file.state if isinstance(file, RemoteFile) else ""
        block_bytes = REMOTE_BLOCK_BYTES if isinstance(file, RemoteFile) else BLOCK_BYTES
        if state:
            digest.update(b"state " + state.encode())
        elif size <= BLOCKS * block_bytes:
            file.seek(0)
            digest.update(file.read())
        else:
            for block in range(BLOCKS):
                at = (size - block_bytes) * block // (BLOCKS - 1)
                if block < BLOCKS - 1 and block_bytes == REMOTE_BLOCK_BYTES:
                    at -= at % block_bytes  # one block of the cache instead of parts of two
                file.seek(at)
                digest.update(file.read(block_bytes))
    return digest.hexdigest()
