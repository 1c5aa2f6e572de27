"""An agent: a model decides which tools to call, the servers do it, the model reads what came of it, and so on.

The model is a script, so that this runs without a network; `scripted_model` takes and gives what OpenAI's chat
completions and the many APIs made after them take and give.
"""

import asyncio
import json
from typing import Any
from uuid import uuid4

from inventory import CONFIG, fresh_database
from mcp import MCPError

from mcp_multi_server import MultiServerClient, mcp_tools_to_openai_format

MOST_ROUNDS = 10
TASK = "Order what is running low, from whoever is cheapest."

Message = dict[str, Any]


async def run(client: MultiServerClient, task: str) -> str:
    """Let the model call tools until it answers."""
    tools = mcp_tools_to_openai_format(client.list_tools().tools)
    messages: list[Message] = [{"role": "user", "content": task}]
    for _ in range(MOST_ROUNDS):
        # With a real one: openai.chat.completions.create(model=…, messages=messages, tools=tools).choices[0].message
        message = scripted_model(messages, tools)
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        messages += await asyncio.gather(*(answer(client, call) for call in message["tool_calls"]))
    return "The model did not come to an end."


async def answer(client: MultiServerClient, call: Message) -> Message:
    """Do one of the calls that the model asked for. What went wrong is for the model to read, too."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    try:
        result = await client.call_tool(name, json.loads(arguments), read_timeout_seconds=30)
    except MCPError as error:
        content = f"Error: {error.message}"
    else:
        text = "\n".join(part.text for part in result.content if part.type == "text")
        content = f"Error: {text}" if result.is_error else json.dumps(result.structured_content)
    print(f"{client.tool_to_server.get(name, '?')}: {name}({arguments}) -> {content}")
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def scripted_model(messages: list[Message], tools: list[dict[str, Any]]) -> Message:
    """What a model could say next, by what was said before."""
    assert {"running_low", "offers_for", "place_order"} <= {tool["function"]["name"] for tool in tools}
    done = finished_calls(messages)
    low = [product for name, _, told in done if name == "running_low" for product in json.loads(told)["result"]]
    offers = [offer for name, _, told in done if name == "offers_for" for offer in json.loads(told)["result"]]
    orders = [(asked, told) for name, asked, told in done if name == "place_order"]
    if not done:
        return asking(("running_low", {}))
    if not offers:
        return asking(*(("offers_for", {"sku": product["sku"]}) for product in low))
    placed = [asked for asked, told in orders if not told.startswith("Error")]
    open_ = [product for product in low if product["sku"] not in {asked["sku"] for asked in placed}]
    if not open_:
        said = ", ".join(f"{asked['quantity']} {asked['sku']} from {asked['supplier']}" for asked in placed)
        return {"role": "assistant", "content": f"Ordered {said}."}
    refused = {(asked["supplier"], asked["sku"]) for asked, told in orders if told.startswith("Error")}
    return asking(*(("place_order", cheapest(product, offers, refused)) for product in open_))


def finished_calls(messages: list[Message]) -> list[tuple[str, dict[str, Any], str]]:
    """Name, arguments and outcome of each call so far."""
    told = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    return [(one["function"]["name"], json.loads(one["function"]["arguments"]), told[one["id"]]) for one in calls]


def cheapest(product: Message, offers: list[Message], refused: set[tuple[str, str]]) -> dict[str, Any]:
    """An order of what is missing, from the cheapest supplier that has not refused it."""
    left = [one for one in offers if one["sku"] == product["sku"] and (one["supplier"], one["sku"]) not in refused]
    best = min(left, key=lambda offer: offer["cents"])
    quantity = product["wanted"] - product["on_hand"]
    return {"sku": product["sku"], "quantity": quantity, "supplier": best["supplier"]}


def asking(*calls: tuple[str, dict[str, Any]]) -> Message:
    """A message that asks for tool calls."""
    asked = [
        {
            "id": f"call_{uuid4().hex}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": asked}


async def main() -> None:
    """Run the agent on a fresh shop."""
    with fresh_database():
        async with MultiServerClient(CONFIG, strict_connect=True) as client:
            print(TASK)
            print(await run(client, TASK))


if __name__ == "__main__":
    asyncio.run(main())
