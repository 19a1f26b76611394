"""Publishes a Lambda layer; each version of one is there for good until it is deleted."""

from __future__ import annotations

import base64
import hashlib

from punchlib.aws.clients import client
from punchlib.aws.errors import translate
from punchlib.config import Config
from punchlib.errors import PunchError

#: Seconds until AWS has read 50 MB, by whatever line, and has looked into it.
PATIENCE = 600.0


def published(name: str, content: bytes, config: Config) -> str | None:
    """The version that holds these bytes already, if it is the latest.

    Raises:
        PunchError: AWS refused.
    """
    wanted = base64.b64encode(hashlib.sha256(content).digest()).decode()
    try:
        lambda_ = client("lambda", config)
        versions = lambda_.list_layer_versions(LayerName=name, MaxItems=1)["LayerVersions"]
        if not versions:
            return None
        number = versions[0]["Version"]
        latest = lambda_.get_layer_version(LayerName=name, VersionNumber=number)
    except Exception as error:
        raise translate(error, f"the layer {name}", PunchError) or error from error
    return str(latest["LayerVersionArn"]) if latest["Content"]["CodeSha256"] == wanted else None


def publish(name: str, content: bytes, python: str, architecture: str, config: Config) -> str:
    """Publishes a version of a layer.

    Args:
        name: the layer's.
        content: the zip, of 50 MB at most.
        python: as `3.12`.
        architecture: `x86_64` or `arm64`.
        config: the region.

    Returns:
        The version's ARN.

    Raises:
        PunchError: AWS refused.
    """
    patient = client(
        "lambda",
        config,
        # It also limits how long the request may take to be sent.
        connect_timeout=PATIENCE,
        read_timeout=PATIENCE,
        # A second attempt while the first is under way would make a second version.
        retries={"total_max_attempts": 1},
    )
    try:
        made = patient.publish_layer_version(
            LayerName=name,
            Description=f"punchlib for zip functions of python{python}",
            Content={"ZipFile": content},
            CompatibleRuntimes=[f"python{python}"],
            CompatibleArchitectures=[architecture],
        )
    except Exception as error:
        raise translate(error, f"the layer {name}", PunchError) or error from error
    return str(made["LayerVersionArn"])
