"""A script without `async`: the servers work in the background, calls return when they are done."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inventory import CONFIG, fresh_database
from mcp_types import TextContent, TextResourceContents

from mcp_multi_server import SyncMultiServerClient, print_capabilities_summary, substitute_template_variables


def show_shop(client: SyncMultiServerClient) -> None:
    """Read resources and a prompt."""
    print("On the shelves:")
    print(text_of(client, "stock:stock://report"))
    templates = {one.name: one.uri_template for one in client.list_resource_templates().resource_templates}
    uri = substitute_template_variables(templates["price_list"], {"name": "Northwind"})
    print(f"{uri} says:")
    print(text_of(client, uri))
    prompt = client.get_prompt("bargain", {"supplier": "Northwind", "sku": "COF"}).messages[0].content
    print("To a model:", prompt.text if isinstance(prompt, TextContent) else prompt.type)


def text_of(client: SyncMultiServerClient, uri: str) -> str:
    """A resource that is text."""
    contents = client.read_resource(uri, timeout=10).contents
    return "".join(part.text for part in contents if isinstance(part, TextResourceContents))


def show_offers(client: SyncMultiServerClient) -> None:
    """Ask for many things at a time: one client, as many threads as there are questions."""

    def offers(sku: str) -> list[dict[str, Any]]:
        answer = client.call_tool("offers_for", {"sku": sku}, timeout=10).structured_content
        return answer["result"] if answer else []

    skus = ["COF", "MUG", "SUG", "TEA"]
    with ThreadPoolExecutor() as threads:
        for sku, found in zip(skus, threads.map(offers, skus), strict=True):
            print(f"{sku}:", ", ".join(f"{one['supplier']} {one['cents'] / 100:.2f}" for one in found))


def main() -> None:
    """Look around in a fresh shop."""
    with fresh_database(), SyncMultiServerClient.from_config(CONFIG, strict_connect=True) as client:
        print_capabilities_summary(client)
        show_shop(client)
        show_offers(client)


if __name__ == "__main__":
    main()
