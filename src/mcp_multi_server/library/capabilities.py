"""What one server offers, as the library shows it."""

from mcp_types import ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult, ListToolsResult
from pydantic import BaseModel


class ServerCapabilities(BaseModel):
    """The lists of one server, with the names and URIs that it gives them itself.

    A list is None if the server has no such thing, or if it has not been read yet.

    Attributes:
        name: the server's name in the config.
        tools: its tools.
        resources: its resources.
        resource_templates: its resource templates.
        prompts: its prompts.

    """

    name: str
    tools: ListToolsResult | None = None
    resources: ListResourcesResult | None = None
    resource_templates: ListResourceTemplatesResult | None = None
    prompts: ListPromptsResult | None = None
