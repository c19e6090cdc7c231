"""kopf's decorators: hand every event of the own kinds on, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from crossfold_operator import names
from crossfold_operator.cluster.base import Obj
from crossfold_operator.cluster.client import Credentials

Observe = Callable[[str | None, Obj], None]


def register(registry: kopf.OperatorRegistry, observe: Observe, login: Callable[[], Awaitable[Credentials]]) -> None:
    """Register the handlers. on.event leaves no marks on objects and is never retried: it only tells."""

    async def on_event(event: Any, **_: Any) -> None:
        # The type is None for an object of a list; kopf lists again whenever a watch's history is lost.
        observe(event["type"], event["object"])

    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        found = await login()
        scheme, _space, token = found.authorization.partition(" ")
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ca_file,
            insecure=not found.verify,
            scheme=scheme or None,
            token=token or None,
            certificate_path=found.certificate_file,
            private_key_path=found.key_file,
            trust_env=True,
        )

    for kind in names.OWN_KINDS:
        kopf.on.event(names.GROUP, names.VERSION, names.PLURALS[kind], id=f"on-{kind}", registry=registry)(on_event)
    kopf.on.login(id="login", registry=registry)(on_login)
