"""A judge's endpoint, served in the test: what it answers is a function of the request."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Endpoint:
    """A server that answers what a function of the request says: (status, body), and the length that it announces."""

    def __init__(self, answer):
        self.seen, self.flying, self.most = [], 0, 0
        lock, owner = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    owner.seen.append((body, dict(self.headers)))
                    owner.flying += 1
                    owner.most = max(owner.most, owner.flying)
                    number = len(owner.seen)
                status, content, *rest = answer(number, body)
                announced = rest[0] if rest else None
                with lock:
                    owner.flying -= 1
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", content)
                    content = ""
                body = content if isinstance(content, bytes) else content.encode()
                if announced is not None:
                    self.send_header("Content-Length", str(announced))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch):
    """Starts an endpoint that is closed after the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    started = []

    def start(answer):
        started.append(Endpoint(answer))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def said(text):
    return 200, json.dumps({"choices": [{"message": {"content": text}}]})
