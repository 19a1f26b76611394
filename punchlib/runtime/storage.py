"""What the S3 tools have in common: the bucket, and S3's errors in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from punchlib.aws.errors import translate
from punchlib.config import Config
from punchlib.errors import PunchError, UsageError
from punchlib.runtime import state, tool_edge


def bucket(config: Config) -> str:
    """The bucket from AWS_BUCKET.

    Raises:
        UsageError: it is not set.
    """
    if not config.bucket:
        raise UsageError("AWS_BUCKET is not set", next_step="export AWS_BUCKET=NAME")
    return config.bucket


def run(component: str, body: Callable[[], int]) -> int:
    """Like `tool_edge.run`, for tools that talk to S3: botocore's errors become ours."""

    def translated() -> int:
        try:
            # Now, while whoever started us is most likely still there: a put asks later who judges
            # its script's stages (commit.deferred).
            with contextlib.suppress(OSError):
                state.scope()
            return body()
        except (PunchError, OSError):
            raise
        except Exception as error:
            known = translate(error)
            if known is None:
                raise
            raise known from error

    return tool_edge.run(component, translated)
