"""The functions under the name that version 1 had for their module, from which its programs import them."""

from .library.formats import mcp_tools_to_openai_format, print_capabilities_summary
from .library.logs import configure_logging
from .library.uris import (
    extract_template_variables,
    format_namespace_uri,
    parse_namespace_uri,
    substitute_template_variables,
)

__all__ = [
    "configure_logging",
    "extract_template_variables",
    "format_namespace_uri",
    "mcp_tools_to_openai_format",
    "parse_namespace_uri",
    "print_capabilities_summary",
    "substitute_template_variables",
]
