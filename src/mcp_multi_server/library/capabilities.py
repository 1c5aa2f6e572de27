"""What one server offers, as the library shows it."""

from mcp_types import ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult, ListToolsResult
from pydantic import BaseModel


class ServerCapabilities(BaseModel):
    """The lists of one server, with the names, URIs and `meta` that it gives them itself.

    A list is None if the server does not support such things, and empty if it does and has none.

    Attributes:
        name: the server's name in the config.
        tools: its tools, in `tools.tools`.
        resources: its resources, in `resources.resources`.
        resource_templates: its resource templates, in `resource_templates.resource_templates`.
        prompts: its prompts, in `prompts.prompts`.

    """

    name: str
    tools: ListToolsResult | None = None
    resources: ListResourcesResult | None = None
    resource_templates: ListResourceTemplatesResult | None = None
    prompts: ListPromptsResult | None = None
