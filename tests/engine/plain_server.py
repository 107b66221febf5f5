"""A server that speaks plain OpenAI and nothing else: no health, no metrics, no cache reset, no token ids.

python plain_server.py PORT
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = os.environ.get("PLAIN_KEY")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer({"data": [{"id": "org/plain"}]} if self.path == "/v1/models" else None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        choice = {"index": 0, "text": "yes", "finish_reason": "stop"}
        self.answer({"choices": [choice]} if self.path == "/v1/completions" else None)

    def answer(self, body: object) -> None:
        allowed = KEY is None or self.headers.get("Authorization") == f"Bearer {KEY}"
        self.send_response(401 if not allowed else 200 if body is not None else 404)
        content = json.dumps(body if allowed else {"error": "no key"}).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
