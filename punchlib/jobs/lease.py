"""The runner's sign of life in the bucket (punchlib.node.run_watch says who reads it)."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Any

from punchlib.errors import StorageError
from punchlib.jobs import storage
from punchlib.node.protocol import ASK, lease_key

#: Seconds without a renewal after which nodes take the runner for dead.
PATIENCE = 20.0
#: Seconds between two renewals: three may fail.
RENEWAL = 5.0


class Lease:
    """One object that changes for as long as its runner lives.

    Args:
        s3: an S3 client.
        bucket: where the scripts lie.
        folder_id: the run's folder.
    """

    def __init__(self, s3: Any, bucket: str, folder_id: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._key = lease_key(folder_id)
        self._asking = ""
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def start(self) -> None:
        """Writes it, and from now on again and again.

        Raises:
            StorageError: the bucket refused.
        """
        self._write()
        self._renewing.start()

    def ask(self, word: str) -> None:
        """Asks the nodes to tell what they do; they look every few seconds.

        Args:
            word: another one each time.
        """
        self._asking = word
        with contextlib.suppress(StorageError):  # the next renewal says it as well
            self._write()

    def stop(self) -> None:
        """Writes it no more; whoever removes the object now will not find it again."""
        self._over.set()
        if self._renewing.ident:
            self._renewing.join()

    def _write(self) -> None:
        # New bytes each time: the store's clock need not be finer than our renewals.
        said = {ASK: self._asking} if self._asking else {}
        storage.put(self._s3, self._bucket, self._key, secrets.token_hex(8).encode(), said)

    def _renew(self) -> None:
        while not self._over.wait(RENEWAL):
            try:
                self._write()
            except StorageError:
                continue  # the next one may get through; the nodes say so if none does
