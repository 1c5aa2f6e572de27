"""What keys of other hosts mean that stand in an entry and are not ours: credentials, approvals, and which are ours."""

from __future__ import annotations

import re

from ..settings import ServerConfig

_SHARED = frozenset({"disabled", "command", "args", "env", "cwd", "url", "headers", "type", "timeout"})
"""Fields that other hosts have under the same key."""
OWN = frozenset(
    key
    for name, field in ServerConfig.model_fields.items()
    if name not in _SHARED
    for key in (name, field.alias or name)
)
"""The keys that no other host has: an entry with one of them is written for this daemon."""
IN_SECONDS = frozenset({"alwaysAllow", "autoApprove", "watchPaths", "isActive"})
"""Keys of hosts that count `timeout` in seconds too, up to an hour: Cline, Roo Code, Kilo Code, Cherry Studio."""
LONGEST_IN_SECONDS = 3600
GEMINI = frozenset({"httpUrl", "trust", "includeTools", "excludeTools", "authProviderType", "targetAudience"})
"""Keys that Gemini CLI alone has: such an entry may write `$NAME` for a variable."""
_CREDENTIALS = re.compile(
    r"(?:oauth|oidc|auth(?!ors?$)|bearer|token$|apikey|accesstoken|clientid$|clientsecret|credentials?$|headershelper"
    r"|httpheaders|envheaders|envhttpheaders|target(?:audience|serviceaccount))",
)
_APPROVALS = frozenset({"alwaysAllow", "autoApprove", "trust", "requireApproval", "require_approval"})
"""What a host does without asking its user: here the client that calls decides that, whatever server it calls."""
CREDENTIALS_UNUSED = "these credentials are not used: without a token in headers the server will say 401"
APPROVALS_UNUSED = "ignored: whether a person is asked before a call is up to the client"


def holds_credentials(key: str, value: object) -> bool:
    """Whether a key says how to prove to the server who asks. `"oauth": false` says that there is no proof."""
    return value not in (None, False, "", {}, []) and bool(_CREDENTIALS.match(re.sub("[-_]", "", key).lower()))


def is_approval(key: str) -> bool:
    """Whether a key says for which tools nobody is asked."""
    return key in _APPROVALS
