"""What a client knows of its servers without asking them: lists, names and states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import mcp_types as types

from ..core.catalog.catalog import Kind
from .capabilities import ServerCapabilities
from .errors import check_single_page
from .listing import Listing
from .version_1 import no_attribute


class Overview(ABC):
    """The methods that both clients have in common: they answer at once, from what the client was told last.

    Whatever they return is the caller's own, and may be changed.
    """

    @property
    @abstractmethod
    def _listed(self) -> Listing:
        """What the client was told last."""

    if not TYPE_CHECKING:  # or a type checker would believe every misspelt name

        def __getattr__(self, name: str) -> object:
            raise no_attribute(self, name)

    def list_tools(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListToolsResult:
        """List the tools of all servers.

        Args:
            cursor: only None: a list is always one page.
            params: only None, likewise.

        Returns:
            The tools by the names under which they can be called, each with its server's name in `meta["serverName"]`.
            `meta["mcp-multi-server/name"]` is the server's own name for a tool that is listed under another.

        Raises:
            ValueError: `cursor` or `params` was given.

        """
        check_single_page(cursor, params)
        return types.ListToolsResult(tools=self._listed.tools())

    def list_prompts(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListPromptsResult:
        """List the prompts of all servers.

        Args:
            cursor: only None: a list is always one page.
            params: only None, likewise.

        Returns:
            The prompts, with names and `meta` as in `list_tools`.

        Raises:
            ValueError: `cursor` or `params` was given.

        """
        check_single_page(cursor, params)
        return types.ListPromptsResult(prompts=self._listed.prompts())

    def list_resources(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourcesResult:
        """List the resources of all servers.

        Args:
            cursor: only None: a list is always one page.
            use_namespace: whether URIs are `server:uri`, by which they can be read, or the servers' own.
            params: only None, as `cursor`.

        Returns:
            The resources, each with its server's name in `meta["serverName"]`.

        Raises:
            ValueError: `cursor` or `params` was given.

        """
        check_single_page(cursor, params)
        return types.ListResourcesResult(resources=self._listed.resources(use_namespace))

    def list_resource_templates(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourceTemplatesResult:
        """List the resource templates of all servers.

        Args:
            cursor: only None: a list is always one page.
            use_namespace: whether URIs are `server:uri`, which can be read once filled in, or the servers' own.
            params: only None, as `cursor`.

        Returns:
            The templates, each with its server's name in `meta["serverName"]`. `extract_template_variables` and
            `substitute_template_variables` fill them in.

        Raises:
            ValueError: `cursor` or `params` was given.

        """
        check_single_page(cursor, params)
        return types.ListResourceTemplatesResult(resource_templates=self._listed.templates(use_namespace))

    @property
    def capabilities(self) -> dict[str, ServerCapabilities]:
        """By server: its lists, with the names, URIs and `meta` that it gives them itself.

        A server whose lists were never read, since it has not been ready, is not there; `status` has every server.
        """
        return self._listed.capabilities()

    @property
    def tool_to_server(self) -> dict[str, str]:
        """By the name of each listed tool: its server."""
        return self._listed.servers_of(Kind.TOOL)

    @property
    def prompt_to_server(self) -> dict[str, str]:
        """By the name of each listed prompt: its server."""
        return self._listed.servers_of(Kind.PROMPT)

    def status(self) -> dict[str, Any]:
        """The state of every server and more, as the control method `daemon/status` has it.

        Returns:
            `servers` has a row for each: `name`, `state`, `reason`, `tools` (how many) and so on. `connected` says
            whether it is of now. If not, `away` says since when and why, and states are `unknown`. Empty if the client
            was never connected.

        """
        return deepcopy(dict(self._listed.status))

    def collisions(self) -> list[dict[str, Any]]:
        """The names that several servers claim.

        Returns:
            For each: its `kind` (`tool` or `prompt`), the `name`, the `owner` that has it, and in `shadowed` the
            servers whose own are listed as `server__name`.

        """
        return deepcopy(list(self._listed.status.get("collisions", [])))
