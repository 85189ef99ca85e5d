"""Caches the content of compressed files, so that they are decompressed once and not at each start.

An entry is named by the SHA-256 of the whole compressed file, so it cannot belong to another version of the file. It
begins with the SHA-256 of its content, which is verified at each use.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence

from partrain.system.cache_directories import user_cache_directory
from partrain.system.durable_files import sweep_temporaries
from partrain.system.trusted_directory import TrustedDirectory

_DIRECTORY = "decoded"
_DIGEST_BYTES = hashlib.sha256().digest_size


@contextlib.contextmanager
def open_decoded(compressed: bytes) -> Iterator[tuple[io.BufferedReader, str] | None]:
    """Open the cached content of a compressed file.

    Parameters
    ----------
    compressed : the whole compressed file.

    Yields
    ------
    A stream of the content, and the SHA-256 in hex that the content must have; None if the cache has no entry, or if
    another user could change it.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(TrustedDirectory.open(user_cache_directory() / _DIRECTORY))
            stream = stack.enter_context(directory.open_file(_name_of(compressed)))
            digest = stream.read(_DIGEST_BYTES)
        except OSError:
            yield None
            return
        yield stream, digest.hex()


def keep_decoded(compressed: bytes, content: Sequence[bytes | memoryview], sha256: str) -> None:
    """Write the content of a compressed file into the cache; without effect if that is not possible.

    Parameters
    ----------
    compressed : the whole compressed file.
    content : the parts of the content, in their order.
    sha256 : SHA-256 in hex of the content.

    Side effects
    ------------
    Writes into the directory `decoded` of `user_cache_directory()`; deletes what killed processes have left there.
    """
    with (
        contextlib.suppress(OSError),
        TrustedDirectory.open(user_cache_directory() / _DIRECTORY, make=True) as directory,
    ):
        sweep_temporaries(directory.pinned_path)
        directory.write(_name_of(compressed), bytes.fromhex(sha256), *content)


def _name_of(compressed: bytes) -> str:
    return hashlib.sha256(compressed).hexdigest()
