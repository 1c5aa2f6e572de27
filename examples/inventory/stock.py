"""The stock: an MCP server with tools, a resource, a resource template and a prompt."""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from pydantic import BaseModel

from .database import transaction

server = MCPServer("stock", log_level="WARNING")


class Product(BaseModel):
    """One kind of thing on the shelves."""

    sku: str
    name: str
    on_hand: int
    wanted: int


def products(where: str, *values: str) -> list[Product]:
    """The products for which a condition holds."""
    with transaction() as database:
        rows = database.execute(f"SELECT * FROM products WHERE {where} ORDER BY name", values)
        return [Product.model_validate(dict(row)) for row in rows]


@server.tool()
def find(text: str) -> list[Product]:
    """Products whose name contains a text."""
    return products("name LIKE ?", f"%{text}%")


@server.tool()
def running_low() -> list[Product]:
    """Products of which there are fewer than wanted."""
    return products("on_hand < wanted")


@server.tool()
def take(sku: str, quantity: int) -> Product:
    """Take some of a product off the shelf."""
    with transaction() as database:
        taken = database.execute(
            "UPDATE products SET on_hand = on_hand - :n WHERE sku = :sku AND on_hand >= :n AND :n > 0",
            {"n": quantity, "sku": sku},
        )
    if not taken.rowcount:
        raise ToolError(f"there are not {quantity} of {sku}")
    return products("sku = ?", sku)[0]


@server.resource("stock://report", mime_type="text/plain")
def report() -> str:
    """What is on the shelves, a line for each product."""
    return "\n".join(f"{one.name}: {one.on_hand} of {one.wanted}" for one in products("true"))


@server.resource("stock://product/{sku}", mime_type="application/json")
def product(sku: str) -> str:
    """One product."""
    found = products("sku = ?", sku)
    if not found:
        raise ResourceNotFoundError(f"no product {sku}")
    return found[0].model_dump_json()


@server.prompt()
def stocktaking(product: str) -> str:
    """Ask for a count of a product."""
    return f"Count what is left of {product} and tell where the books are wrong."


if __name__ == "__main__":
    server.run()
