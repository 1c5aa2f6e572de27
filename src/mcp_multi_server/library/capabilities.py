"""What one server offers, as the library shows it."""

from mcp_types import ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult, ListToolsResult
from pydantic import BaseModel


class ServerCapabilities(BaseModel):
    """A server's lists, under the names and URIs that the server itself gives them.

    None where it has no such thing or has not listed it yet.
    """

    name: str
    tools: ListToolsResult | None = None
    resources: ListResourcesResult | None = None
    resource_templates: ListResourceTemplatesResult | None = None
    prompts: ListPromptsResult | None = None
