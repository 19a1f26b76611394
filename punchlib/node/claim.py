"""Who runs an event that Lambda delivered twice.

Lambda delivers an asynchronous event at least once. A second copy would register with the keys of
the first and wait for peers that have met already, for the whole of PUNCH_TIMEOUT. Both copies bear
the same request id, so whoever writes it into the rendezvous table first runs the event.
"""

from __future__ import annotations

import time
from typing import Any

from punchlib.aws.errors import code_of, is_code
from punchlib.node.handling import log

#: Seconds for which a claim is kept: Lambda keeps an asynchronous event for six hours at most.
KEPT = 6 * 3600
#: Lies beside the rendezvous records; no connection's key begins like this.
PREFIX = "claim/"


def is_ours(dynamodb: Any, table: str, request_id: str) -> bool:
    """Claims an event.

    Args:
        dynamodb: a client.
        table: the rendezvous table.
        request_id: what Lambda calls this event, in every copy of it.

    Returns:
        False only when another worker has claimed it. A table that does not answer is no reason
        not to run: copies are rare.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        dynamodb.update_item(
            TableName=table,
            Key={"key": {"S": PREFIX + request_id}},
            UpdateExpression="SET expires_at = :expires",
            ConditionExpression="attribute_not_exists(#key)",
            ExpressionAttributeNames={"#key": "key"},
            ExpressionAttributeValues={":expires": {"N": str(int(time.time()) + KEPT)}},
        )
    except (ClientError, BotoCoreError) as error:
        if is_code(error, "ConditionalCheckFailedException"):
            return False
        log(f"[lambda-function.py] event {request_id} is run unclaimed: {code_of(error) or error}")
    return True
