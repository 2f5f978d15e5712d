"""Roots for the partition store: a local folder, memory, and a bucket of a real S3 server on this machine."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

BUCKET = "tributary"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server on a free port, known to fsspec's configuration, with one bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    fsspec.config.conf["s3"] = {
        "endpoint_url": endpoint,
        "key": "test",
        "secret": "test",
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    fsspec.filesystem("s3").mkdir(BUCKET)
    yield endpoint
    del fsspec.config.conf["s3"]
    server.stop()


@pytest.fixture
def s3_root(s3_endpoint: str) -> str:
    """Root in an object store, empty and with no folder made."""
    return f"s3://{BUCKET}/{uuid4().hex}/lakehouse"


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One root of each kind."""
    if request.param == "local":
        return str(tmp_path / "lakehouse")
    if request.param == "memory":
        return f"memory://{uuid4().hex}/lakehouse"
    return request.getfixturevalue("s3_root")
