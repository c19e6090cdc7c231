"""The API server, asked directly."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossfold_operator.cluster import paths
from crossfold_operator.cluster.base import Key, Obj, key_of
from crossfold_operator.cluster.client import JSON, MERGE_PATCH, ApiError, ApiServer
from crossfold_operator.names import Kind


class Api:
    """Requests to the API server, one after the other, in one namespace."""

    def __init__(self, runner: asyncio.Runner, server: ApiServer, namespace: str) -> None:
        self.namespace = namespace
        self._runner = runner
        self._server = server

    def request(self, verb: str, path: str, body: Any = None, *, content_type: str = JSON, **query: str) -> Obj:
        return self._runner.run(self._server.request(verb, path, query=query, body=body, content_type=content_type))

    def create(self, manifest: Obj, *, dry: bool = False, validation: str = "Strict") -> Obj:
        manifest = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}
        path = paths.collection(Kind(manifest["kind"]), self.namespace)
        return self.request("POST", path, manifest, fieldValidation=validation, **_dry(dry))

    def patch(self, obj: Obj, patch: Obj, *, dry: bool = False, subresource: str = "") -> Obj:
        path = paths.path_of(key_of(obj), subresource)
        return self.request("PATCH", path, patch, content_type=MERGE_PATCH, fieldValidation="Strict", **_dry(dry))

    def get(self, kind: Kind, name: str) -> Obj:
        return self.request("GET", paths.path_of(Key(kind, self.namespace, name)))

    def refusal(self, call: Callable[[], Obj]) -> ApiError | None:
        """The error that a call meets, or None when it is accepted."""
        try:
            call()
        except ApiError as error:
            return error
        return None


def _dry(dry: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry else {}


@pytest.fixture(scope="session")
def api(crds: None, kubeconfig: Path, make_namespace: Callable[[], str], kubectl: Any) -> Iterator[Api]:
    """The API server, with the CRDs of this working tree and a namespace of its own."""
    namespace = make_namespace("crds")
    with asyncio.Runner() as runner:
        server = runner.run(ApiServer.connect())
        try:
            yield Api(runner, server, namespace)
        finally:
            runner.run(server.close())
            kubectl("delete", "namespace", namespace, "--wait=false", check=False)
