"""As much of HTTP/1 as the metrics endpoint needs: what matters of a request, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass

_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What matters of a request; `parse_request` makes it. `host` is without its port."""

    method: str
    path: str
    host: str
    accept: str


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: str
    body: bytes
    content_type: str = _PLAIN
    headers: tuple[str, ...] = ()


class Refused(Exception):
    """The request gets this response without being looked at any further."""

    def __init__(self, status: str, body: bytes, *headers: str) -> None:
        super().__init__(status)
        self.response = Response(status, body, headers=headers)


def parse_request(head: bytes) -> HttpRequest:
    """What matters of a request; Refused where it is no HTTP/1 or does not say one host."""
    # Latin-1 decodes every byte: no request can make this raise.
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = [line.partition(":") for line in lines]
    words = first.split(" ")
    hosts = [content.strip() for name, _, content in fields if name.lower() == "host"]
    # RFC 9112, 3.2: a request without a host, or with several, gets 400.
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or len(hosts) != 1:
        raise Refused("400 Bad Request", b"")
    # RFC 9110, 5.3: several lines of one field are one list.
    accept = ",".join(content for name, _, content in fields if name.lower() == "accept")
    return HttpRequest(method=words[0], path=words[1].partition("?")[0], host=_without_port(hosts[0]), accept=accept)


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics to Prometheus's text, or likes both as much.

    prometheus_client has a function for it, which goes by the order and not by `q`, and fails at `version=x`.
    """
    openmetrics = _quality(accept, "application/openmetrics-text")
    return openmetrics > 0.0 and openmetrics >= _quality(accept, "text/plain")


def _quality(accept: str, media: str) -> float:
    """The highest `q` that `accept` gives to a media type; 0 where it is not named."""
    best = 0.0
    for choice in accept.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
        # float() alone would also take `nan`, `inf` and `1e9`.
        if name == media and quality.replace(".", "", 1).isdecimal():
            best = max(best, float(quality))
    return best


def _without_port(authority: str) -> str:
    """The host of `[::1]:9464` or `localhost:9464`, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()
