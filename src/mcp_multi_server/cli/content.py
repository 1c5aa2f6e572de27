"""What servers return, for a person or a pipe: text as it is; all else by name, type and size, or saved to files.

The lines that are made here hold text that servers said; `echo_said` writes them.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.printable import one_line
from .failures import CommandFailed
from .members import JsonObject, member, optional_objects, text
from .render import echo, echo_said, size

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_EXTENSIONS = {"audio/wav": ".wav", "audio/mpeg": ".mp3", "image/jpeg": ".jpg", "text/plain": ".txt"}
"""Where the system's table has none, or an odd one."""


@dataclass
class Saver:
    """Saves what is no text as files in a directory, never over one that exists. Each command makes its own.

    Without a directory it saves nothing. `stem` is how the files' names begin; it may come from a server.
    """

    directory: str | None
    stem: str
    saved: int = field(default=0, init=False)

    def save(self, data: bytes, mime_type: str) -> str | None:
        """Save the bytes; returns the path of the new file, None if there is no directory. Raises CommandFailed."""
        if self.directory is None:
            return None
        try:
            os.makedirs(self.directory, exist_ok=True)
            return self._write(data, _extension(mime_type))
        except OSError as failure:
            raise CommandFailed(f"cannot save into {self.directory}: {failure.strerror}") from None

    def _write(self, data: bytes, extension: str) -> str:
        # The name may be a server's: it must neither lead out of the directory nor make a hidden file.
        stem = _UNSAFE.sub("_", self.stem).strip("._") or "content"
        while True:
            self.saved += 1
            path = os.path.join(self.directory or "", f"{stem}-{self.saved}{extension}")
            try:
                with open(path, "xb") as file:  # "x": the check and the making are one step
                    file.write(data)
            except FileExistsError:
                continue
            return path


def tool_lines(result: JsonObject, saver: Saver) -> list[str]:
    """What a tool returned, block by block; its structured content where no block is text."""
    blocks = optional_objects(result, "content")
    lines = [_block(block, saver) for block in blocks]
    if "structuredContent" in result and not any(block.get("type") == "text" for block in blocks):
        lines.append(json.dumps(result["structuredContent"], indent=2, ensure_ascii=False))
    return lines


def prompt_lines(messages: Sequence[JsonObject], saver: Saver) -> list[str]:
    """The messages of a prompt, each under its role."""
    lines: list[str] = []
    for message in messages:
        lines += [f"[{one_line(text(message, 'role'))}]", _block(member(message, "content"), saver)]
    return lines


def echo_resource(contents: Sequence[JsonObject], saver: Saver) -> None:
    """Write the contents of a resource to stdout; bytes as they are, unless into a terminal, which would obey them."""
    raw = saver.directory is None and not sys.stdout.isatty()
    for content in contents:
        if "text" in content:
            echo_said(text(content, "text"))
        elif raw:
            sys.stdout.flush()  # text written before must stand before the bytes
            sys.stdout.buffer.write(_decoded(text(content, "blob")))
        else:
            echo(_resource(content, saver))


def _block(block: JsonObject, saver: Saver) -> str:
    match block.get("type"):
        case "text":
            return text(block, "text")
        case "image" | "audio" as kind:
            return _binary(f"[{kind}]", text(block, "mimeType"), text(block, "data"), saver)
        case "resource_link":
            return f"[link] {one_line(text(block, 'name'))}: {one_line(text(block, 'uri'))}"
        case "resource":
            return _resource(member(block, "resource"), saver)
        case other:
            return f"[{one_line(str(other))}] content of a type that is not known here; --json shows it"


def _resource(resource: JsonObject, saver: Saver) -> str:
    uri = one_line(text(resource, "uri"))
    if "text" in resource:
        return f"[resource] {uri}\n{text(resource, 'text')}"
    return _binary(f"[resource] {uri}:", text(resource, "mimeType"), text(resource, "blob"), saver)


def _binary(label: str, mime_type: str, encoded: str, saver: Saver) -> str:
    data = _decoded(encoded)  # for its size, too
    line = f"{label} {one_line(mime_type) or 'application/octet-stream'}, {size(len(data))}"
    path = saver.save(data, mime_type)
    return f"{line}, saved as {path}" if path else line


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise CommandFailed("the server sent content that is no base64") from None


def _extension(mime_type: str) -> str:
    if known := _EXTENSIONS.get(mime_type):
        return known
    from mimetypes import guess_extension

    return guess_extension(mime_type) or ".bin"
