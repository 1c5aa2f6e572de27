"""The TypeScript SDK's own look at lists: what its client throws, many hosts show nothing for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_multi_server.core.catalog.catalog import Kind

from ..e2e.entries import PACKAGES, node

_SCRIPT = """
const sdk = process.argv[1] + '/dist/esm/';
const types = await import(sdk + 'types.js');
const {AjvJsonSchemaValidator} = await import(sdk + 'validation/ajv-provider.js');
const {createInterface} = await import('node:readline');
console.warn = () => {};
for await (const line of createInterface({input: process.stdin})) {
  const {schema, result} = JSON.parse(line);
  let complaint = null;
  try {
    const found = types[schema].parse(result);
    const validator = new AjvJsonSchemaValidator();  // as the client's listTools does
    for (const tool of found.tools ?? []) if (tool.outputSchema) validator.getValidator(tool.outputSchema);
  } catch (error) { complaint = String(error) }
  console.log(JSON.stringify(complaint));
}
"""
_SCHEMAS = {
    Kind.TOOL: "ListToolsResultSchema",
    Kind.PROMPT: "ListPromptsResultSchema",
    Kind.RESOURCE: "ListResourcesResultSchema",
    Kind.TEMPLATE: "ListResourceTemplatesResultSchema",
}


class TypeScriptSdk:
    """A process that takes lists as the SDK's client does; `typescript_sdk` starts and ends it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def complaint(self, kind: Kind, result: bytes) -> str | None:
        """Why a client would throw; None where it would not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b'{"schema":"%b","result":%b}\n' % (_SCHEMAS[kind].encode(), result))
        self._process.stdin.flush()
        found: str | None = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def typescript_sdk() -> Iterator[TypeScriptSdk]:
    """The SDK of tests/node_modules."""
    command = [str(node()), "--input-type=module", "-e", _SCRIPT, str(PACKAGES / "sdk")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield TypeScriptSdk(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
