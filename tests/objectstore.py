"""A real S3 server on a loopback port (moto's), that counts requests and may refuse some of them."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "eozip-test"
DENIED = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
BUSY = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate."
    b"</Message></Error>"
)


@dataclass
class Server:
    """What the tests see of it.

    Attributes:
        url: of a bucket.
        requests: method and path of every request to it, in order.
        refused: share of the requests that it answers with 503.
        denied: which requests it answers with 403, by method and path; None: none.
        at: what is done as that many requests have come, before the last of them is answered.
    """

    url: str
    endpoint: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    refused: float = 0.0
    refusals: int = 0
    denied: Callable[[str, str], bool] | None = None
    at: tuple[int, Callable[[], object]] | None = None
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def wrapped(self, app: Any) -> Any:
        """The server with its counting, and its refusals, in front."""

        def counted(environ: dict[str, Any], start: Any) -> Any:
            if environ["PATH_INFO"].startswith(f"/{BUCKET}"):
                self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
                if self.at is not None and len(self.requests) == self.at[0]:
                    self.at[1]()
                if self._random.random() < self.refused:
                    self.refusals += 1
                    return _refused(environ, start, "503 Slow Down", BUSY)
                if self.denied is not None and self.denied(*self.requests[-1]):
                    return _refused(environ, start, "403 Forbidden", DENIED)
            return app(environ, start)

        return counted

    def forget(self) -> None:
        """Counts from here on."""
        self.requests.clear()


def _refused(environ: dict[str, Any], start: Any, status: str, body: bytes) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with an empty bucket; this process and its children find it by environment variables."""
    pytest.importorskip("moto", reason="needs moto's S3 server")
    pytest.importorskip("s3fs", reason="needs s3fs")
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = Server(f"s3://{BUCKET}", "")
    app = server.wrapped(DomainDispatcherApplication(create_backend_app))
    made = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.endpoint = f"http://127.0.0.1:{made.server_port}"
    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
    client = boto3.client("s3", endpoint_url=server.endpoint)
    client.create_bucket(Bucket=BUCKET)
    try:
        yield server
    finally:
        urlopen(Request(f"{server.endpoint}/moto-api/reset", method="POST")).close()
        made.shutdown()
        thread.join()
        fsspec.get_filesystem_class("s3").clear_instance_cache()
