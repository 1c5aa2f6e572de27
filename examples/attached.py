"""One program, two ways to its servers: those that a daemon keeps running, or its own.

Start the daemon in another terminal, then this as often as you like; it starts no server and so takes no time:

    .venv/bin/mcp-multi-server serve --config examples/inventory/mcp_servers.json
    .venv/bin/python examples/attached.py

With --in-process it needs no daemon.
"""

import argparse
import asyncio
import sys

from inventory import CONFIG, fresh_database

from mcp_multi_server import MultiServerClient


async def sell(client: MultiServerClient, sku: str) -> None:
    """Sell one piece. Nothing here knows where the servers are."""
    async with client:
        for server in client.status()["servers"]:
            print(f"{server['name']}: {server['state']}, {server['tools']} tools")
        sold = await client.call_tool("take", {"sku": sku, "quantity": 1})
        if sold.is_error or sold.structured_content is None:
            print(f"Not sold: {sold.content[0].text if sold.content[0].type == 'text' else sold.content}")
        else:
            print(f"Sold one {sold.structured_content['name']}, {sold.structured_content['on_hand']} left.")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Sell one piece of a product.")
    parser.add_argument("--in-process", action="store_true", help="run the servers here, without a daemon")
    parser.add_argument("--socket", help="where the daemon listens; default: where daemons usually do")
    parser.add_argument("--sku", default="COF", help="what to sell (COF, MUG, SUG, TEA)")
    options = parser.parse_args()
    if options.in_process:
        with fresh_database():
            asyncio.run(sell(MultiServerClient(CONFIG, strict_connect=True), options.sku))
        return
    try:
        asyncio.run(sell(MultiServerClient.connect(options.socket), options.sku))
    except ConnectionError as failure:
        sys.exit(f"{failure}; start it, or use --in-process")


if __name__ == "__main__":
    main()
