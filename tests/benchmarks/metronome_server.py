"""A server whose answers take the same time whatever the load: what two clients' clocks differ by is theirs alone.

    python -m tests.benchmarks.metronome_server PORT

The first token comes 40 ms after a request was read, the others 4 ms apart; prompts count a token a character.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

FIRST_S, GAP_S = 0.040, 0.004
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = b'{"data":[{"id":"metronome"}]}'


def chunked(event: object) -> bytes:
    data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            received = time.monotonic()
            lines = head.decode().split("\r\n")
            sizes = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
            body = json.loads(await reader.readexactly(int(sizes[0]))) if sizes else {}
            if lines[0].startswith("POST /v1/completions"):
                await answer(writer, body, received)
            else:
                content = MODELS if "/v1/models" in lines[0] else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def answer(writer: asyncio.StreamWriter, body: dict[str, object], received: float) -> None:
    """Tokens at their times; a late one is sent at once and does not move the others."""
    num_tokens = int(str(body["max_tokens"]))
    writer.write(HEAD)
    for number in range(num_tokens):
        await asyncio.sleep(received + FIRST_S + number * GAP_S - time.monotonic())
        is_last = number == num_tokens - 1
        choice = {"index": 0, "text": "x", "token_ids": [number], "finish_reason": "length" if is_last else None}
        writer.write(chunked({"choices": [choice]}))
    usage = {"prompt_tokens": len(str(body["prompt"])), "completion_tokens": num_tokens}
    writer.write(chunked({"choices": [], "usage": usage}) + chunked(b"[DONE]") + b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.start_server(serve_connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
