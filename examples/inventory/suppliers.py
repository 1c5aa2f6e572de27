"""The suppliers: an MCP server with tools, a resource template and a prompt."""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from pydantic import BaseModel

from .database import transaction

server = MCPServer("suppliers", log_level="WARNING")


class Offer(BaseModel):
    """What a supplier asks for one piece of a product."""

    supplier: str
    sku: str
    cents: int


def offers(where: str, value: str) -> list[Offer]:
    """The offers for which a condition holds, cheapest first."""
    with transaction() as database:
        rows = database.execute(f"SELECT supplier, sku, cents FROM offers WHERE {where} ORDER BY cents", [value])
        return [Offer.model_validate(dict(row)) for row in rows]


@server.tool()
def find(text: str) -> list[str]:
    """Suppliers whose name contains a text."""
    return sorted({offer.supplier for offer in offers("supplier LIKE ?", f"%{text}%")})


@server.tool()
def offers_for(sku: str) -> list[Offer]:
    """Who sells a product, cheapest first."""
    return offers("sku = ?", sku)


@server.resource("supplier://{name}", mime_type="text/plain")
def price_list(name: str) -> str:
    """What a supplier sells, and for how much."""
    found = offers("supplier = ?", name)
    if not found:
        raise ResourceNotFoundError(f"no supplier {name}")
    return "\n".join(f"{offer.sku}: {offer.cents / 100:.2f}" for offer in found)


@server.prompt()
def bargain(supplier: str, sku: str) -> str:
    """Ask for a letter that gets a better price."""
    return f"Write to {supplier} and ask politely for a better price for {sku}."


if __name__ == "__main__":
    server.run()
