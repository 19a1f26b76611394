"""What a service answered to a call of `punchlib.aws.quick`, in boto3's terms."""

from __future__ import annotations

import http.client
import json
import zlib
from email.utils import parsedate_to_datetime
from typing import Any


class Answer:
    """A service's answer; also the body of a GetObject, which is read once.

    Attributes:
        status: HTTP's.
        text: what was read at once.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        idle: list[http.client.HTTPConnection],
    ) -> None:
        self.status = response.status
        self.text = b""
        self._response = response
        self._connection = connection
        self._idle = idle
        self._open = True

    def read(self) -> bytes:
        """The body, to its end.

        Raises:
            BotoCoreError: the connection broke before.
        """
        try:
            return self.take()
        except (OSError, http.client.HTTPException) as error:
            raise no_answer(error, self._connection.host) from error

    def take(self) -> bytes:
        """The same, for who tries again.

        Raises:
            OSError, HTTPException: the connection broke before.
        """
        with self:
            data = self._response.read()
            if not self._response.will_close:
                self._open = False
                self._idle.append(self._connection)
            return data

    def close(self) -> None:
        """Lets go of what is not read."""
        if self._open:
            self._open = False
            self._connection.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def facts(self) -> dict[str, Any]:
        """What boto3 makes of the headers of an object, as far as it is used here."""
        headers = self._headers()
        facts: dict[str, Any] = {"ResponseMetadata": self._metadata()}
        if "etag" in headers:
            facts["ETag"] = headers["etag"]
        if "content-length" in headers:
            facts["ContentLength"] = int(headers["content-length"])
        if "last-modified" in headers:
            facts["LastModified"] = parsedate_to_datetime(headers["last-modified"])
        return facts

    def document(self) -> Any:
        """The JSON of an answer of DynamoDB.

        Raises:
            ResponseParserError: it is none, or was damaged on the way.
        """
        try:
            crc = self._headers().get("x-amz-crc32")
            if crc is not None and int(crc) != zlib.crc32(self.text):
                raise ValueError("its checksum is wrong")
            return json.loads(self.text)
        except ValueError as error:
            from botocore.parsers import ResponseParserError

            raise ResponseParserError(f"DynamoDB's answer cannot be read: {error}") from error

    def refusal(self, operation: str, method: str) -> Any:
        """The ClientError that boto3 raises for it."""
        from botocore.exceptions import ClientError

        more: dict[str, Any] = {}
        code, message = str(self.status), http.client.responses.get(self.status, "")
        if method == "POST":
            try:
                more = json.loads(self.text)
                code = str(more.pop("__type")).rpartition("#")[2]
                message = more.pop("message", more.pop("Message", ""))
            except (ValueError, KeyError, AttributeError):
                more = {}
        elif self.text:
            code = _element(self.text, "Code") or code
            message = _element(self.text, "Message") or message
        facts = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": self._metadata()}
        response: Any = {**more, **facts}
        return ClientError(response, operation)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self._response.getheaders()}

    def _metadata(self) -> dict[str, Any]:
        return {"HTTPStatusCode": self.status, "HTTPHeaders": self._headers()}


def no_answer(error: Exception, url: str) -> Exception:
    """What boto3 raises where no answer came."""
    from botocore import exceptions as known

    if isinstance(error, TimeoutError):
        return known.ReadTimeoutError(endpoint_url=url, error=error)
    if isinstance(error, (http.client.HTTPException, ConnectionResetError, BrokenPipeError)):
        return known.ConnectionClosedError(endpoint_url=url, error=error)
    return known.EndpointConnectionError(endpoint_url=url, error=error)


def _element(xml: bytes, name: str) -> str:
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(xml).findtext(name) or ""
    except ElementTree.ParseError:
        return ""
