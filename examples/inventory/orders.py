"""The orders: an MCP server with tools, one of which takes its time and reports progress, and a resource template."""

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from pydantic import BaseModel

from .database import transaction

SECONDS_A_PIECE = 0.05
server = MCPServer("orders", log_level="WARNING")


class Order(BaseModel):
    """Goods on their way, or received."""

    number: int
    sku: str
    supplier: str
    quantity: int
    received: bool


def order(number: int) -> Order | None:
    """An order by its number."""
    with transaction() as database:
        row = database.execute("SELECT * FROM orders WHERE number = ?", [number]).fetchone()
        return Order.model_validate(dict(row)) if row else None


@server.tool()
def place_order(sku: str, quantity: int, supplier: str) -> Order:
    """Order some of a product from a supplier."""
    with transaction() as database:
        offer = database.execute("SELECT most FROM offers WHERE sku = ? AND supplier = ?", [sku, supplier]).fetchone()
        if offer is None:
            raise ToolError(f"{supplier} does not sell {sku}")
        if not 0 < quantity <= offer["most"]:
            raise ToolError(f"{supplier} sells 1 to {offer['most']} of {sku} at a time, not {quantity}")
        placed = database.execute(
            "INSERT INTO orders (sku, supplier, quantity) VALUES (?, ?, ?) RETURNING *", [sku, supplier, quantity]
        ).fetchone()
        return Order.model_validate(dict(placed))


@server.tool()
async def receive_order(number: int, context: Context) -> Order:
    """Put what was delivered on the shelves, piece by piece."""
    found = order(number)
    if found is None or found.received:
        raise ToolError(f"no open order {number}")
    for piece in range(1, found.quantity + 1):
        await anyio.sleep(SECONDS_A_PIECE)
        await context.report_progress(piece, found.quantity, f"{found.sku} {piece}")
    with transaction() as database:
        database.execute("UPDATE orders SET received = 1 WHERE number = ?", [number])
        database.execute("UPDATE products SET on_hand = on_hand + ? WHERE sku = ?", [found.quantity, found.sku])
    return found.model_copy(update={"received": True})


@server.resource("order://{number}", mime_type="application/json")
def order_as_json(number: int) -> str:
    """One order."""
    found = order(number)
    if found is None:
        raise ResourceNotFoundError(f"no order {number}")
    return found.model_dump_json()


if __name__ == "__main__":
    server.run()
