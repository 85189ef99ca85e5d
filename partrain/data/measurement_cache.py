"""Caches what was measured over large files (digest, mean, standard deviation) until the files change."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from partrain.data.file_fingerprint import FileFingerprint
from partrain.system.cache_directories import user_cache_directory
from partrain.system.trusted_directory import TrustedDirectory

_DIRECTORY = "measured"


class MeasurementCache:
    """Measurements of some files, kept in the cache under the fingerprints of the files.

    Parameters
    ----------
    files : the fingerprints; none if `variant` names digests of the whole content.
    variant : how the files are read, if there is more than one way.
    """

    def __init__(self, files: Sequence[FileFingerprint], variant: str = "") -> None:
        self.files = tuple(files)
        identity = repr([vars(file) for file in self.files]) + variant
        key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._name = f"{key}.json"

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the measurement `name`; call `measure` if it is not in the cache.

        Parameters
        ----------
        name : the key of the measurement.
        measure : returns a value that JSON can represent.

        Raises
        ------
        DataError
            A file was changed while it was measured; or what `measure` raises.

        Side effects
        ------------
        Writes into the directory `measured` of `user_cache_directory()`. If that fails, or if another user could change
        what is there, the next start measures again.
        """
        known = self._read()
        if name not in known:
            measured = measure()
            self.require_unchanged()
            known[name] = measured
            with contextlib.suppress(OSError):
                self._write(self._read() | known)
        return known[name]

    def require_unchanged(self) -> None:
        """Compare the files with their fingerprints.

        Raises
        ------
        DataError
            A file was changed.
        """
        for file in self.files:
            file.require_unchanged()

    def _read(self) -> dict[str, Any]:
        try:
            with TrustedDirectory.open(user_cache_directory() / _DIRECTORY) as directory:
                known = json.loads(directory.read(self._name))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, Any]) -> None:
        with TrustedDirectory.open(user_cache_directory() / _DIRECTORY, make=True) as directory:
            directory.write(self._name, json.dumps(known).encode())
