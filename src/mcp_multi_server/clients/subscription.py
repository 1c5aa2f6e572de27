"""A `subscriptions/listen` request of a modern client (2026-07-28, basic/patterns/subscriptions)."""

from __future__ import annotations

from ..calls.request import Caller
from ..core import jsonrpc, protocol
from ..core.catalog.catalog import Kind


class Subscription:
    """An open request for notifications of changed lists. The client's session makes it.

    It ends when the client cancels it or is gone, or when we part with the client.
    """

    def __init__(self, client: Caller, id: bytes, kinds: frozenset[Kind]) -> None:
        self._client = client
        self.id = id
        self.kinds = kinds
        """The lists whose changes are told."""

    def cancel(self, reason: str) -> None:
        """The client does not want it any more; such a request has no answer."""
        self._client.open_requests.remove(self.id, self)

    def notify(self, method: str) -> None:
        """Tell of a change, under the id of the subscription."""
        self._client.notify(method, jsonrpc.encode({"_meta": protocol.subscription_meta(self.id)}))

    def end(self) -> None:
        """End it from our side with a result (subscriptions, "Graceful Closure")."""
        meta = protocol.subscription_meta(self.id)
        # The only answer that such a request ever gets: it says that nothing more is told.
        self._client.answer(self.id, jsonrpc.encode({"resultType": "complete", "_meta": meta}))
        self._client.open_requests.remove(self.id, self)
