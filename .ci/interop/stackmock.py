"""What a test talks to: stackmock as a process of its own, and an upstream that stands for a provider."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

START_SECONDS = 20
STOP_SECONDS = 10


class Stackmock:
    """One running stackmock and its control routes."""

    def __init__(self, binary: Path, log: Path, *flags: str):
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(binary), "-addr", "127.0.0.1:0", *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        hello = self._first_line()
        self.url: str = hello["url"]
        self.api_key: str = hello["api_key"]
        self.operator_id: str = hello["operator_id"]
        self._http = httpx.Client(base_url=self.url, timeout=10)

    def _first_line(self) -> dict[str, Any]:
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_SECONDS)
        line = stdout.readline() if ready else b""
        if not line.endswith(b"\n"):
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"stackmock printed no first line within {START_SECONDS} s; its log: {self.log.read_text()}"
            )
        hello: dict[str, Any] = json.loads(line)
        assert set(hello) == {"url", "api_key", "operator_id"}, hello
        return hello

    def stop(self) -> tuple[int, bytes]:
        """End the process with SIGTERM; return its status and what else it wrote to standard output."""
        self._http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            rest, _ = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"stackmock did not end within {STOP_SECONDS} s of SIGTERM") from None
        return self.process.returncode, rest

    def control(self, route: str, body: dict[str, Any] | None = None) -> Any:
        """Call a control route: a POST with a body, a GET without."""
        if body is None:
            response = self._http.get(f"/_mock/{route}")
        else:
            response = self._http.post(f"/_mock/{route}", json=body)
        assert response.status_code == 200, f"/_mock/{route}: {response.status_code} {response.text}"
        return response.json()

    def advance(self, seconds: int) -> str:
        """Let the mock's clock jump; whatever fell due has happened on return. Returns the new time."""
        now: str = self.control("clock", {"advance_seconds": seconds})["now"]
        return now

    def approve(self, approval_id: str) -> None:
        """Do what a human does in the dashboard."""
        answer = self.control("approve", {"approval_id": approval_id})
        assert answer == {"approval_id": approval_id, "status": "approved"}


class Upstream:
    """A small provider on loopback that remembers what it received.

    Answers are chosen by the request's path; everything else is answered like Slack's API: {"ok": true, ...}.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.entered = threading.Event()  # set when a request to /hold has arrived
        self.release = threading.Event()  # lets it go on
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                parts = urlsplit(self.path)
                upstream.requests.append(
                    {
                        "method": self.command,
                        "path": parts.path,
                        "query": dict(parse_qsl(parts.query)),
                        "headers": {name.lower(): value for name, value in self.headers.items()},
                        "raw": raw,
                    }
                )
                upstream.answer(self, parts.path)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    LLM_PATHS = ("/v1/messages", "/v1/chat/completions", "/api/v1/chat/completions")

    def llm_answer(self, path: str) -> dict[str, Any]:
        """What the provider whose endpoint this is says."""
        if path == "/v1/messages":
            return {
                "id": "msg_1",
                "model": "some-model",
                "content": [{"type": "text", "text": "Grüezi"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 11, "output_tokens": 7},
            }
        return {
            "id": "c1",
            "model": "some-model",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Grüezi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7},
        }

    def llm_events(self, path: str) -> list[dict[str, Any]]:
        """What it says in a stream."""
        if path == "/v1/messages":
            return [
                {"type": "message_start", "message": {"model": "some-model", "usage": {"input_tokens": 11, "output_tokens": 1}}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüezi"}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
                {"type": "message_stop"},
            ]
        chunk = {"id": "c1", "model": "some-model"}
        return [
            {**chunk, "choices": [{"index": 0, "delta": {"content": "Grüezi"}}]},
            {**chunk, "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}},
        ]

    def _llm(self, path: str, request: dict[str, Any]) -> tuple[int, str, bytes]:
        if request["model"] == "refuse":
            return 429, "application/json", json.dumps({"error": {"message": "slow down", "code": 429}}).encode()
        if not request.get("stream"):
            return 200, "application/json", json.dumps(self.llm_answer(path)).encode()
        lines = []
        for event in self.llm_events(path):
            if "type" in event:
                lines.append(f"event: {event['type']}\n")
            lines.append(f"data: {json.dumps(event)}\n\n")
        if path != "/v1/messages":
            lines.append("data: [DONE]\n\n")
        return 200, "text/event-stream", "".join(lines).encode()

    def answer(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        status, kind, headers = 200, "application/json", {}
        received = self.requests[-1]
        body = json.dumps({"ok": True, "channel": "C123", "ts": f"1700000000.{len(self.requests):06d}"}).encode()
        if path in self.LLM_PATHS:
            status, kind, body = self._llm(path, json.loads(received["raw"]))
        elif path == "/hold":
            self.entered.set()
            self.release.wait(timeout=10)
        elif path == "/unavailable":
            status, body = 503, json.dumps({"ok": False, "error": "unavailable"}).encode()
        elif path == "/text":
            kind, body = "text/plain; charset=utf-8", "grüezi".encode()
        elif path == "/binary":
            kind, body = "application/octet-stream", b"\xff\xfe\x00\x01"
        elif path == "/leak":
            headers = {"X-Leak": received["headers"].get("authorization", ""), "Set-Cookie": "session=1"}
            body = json.dumps({"seen": received["headers"].get("authorization")}).encode()
        elif path == "/issue":
            body = json.dumps({"title": "Quarterly numbers are confidential until Friday"}).encode()
        elif path == "/moved":
            status, headers = 302, {"Location": "https://slack.com/api/auth.test"}
        elif path == "/moved-away":
            status, headers = 302, {"Location": "https://elsewhere.example/steal"}
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def paths(self) -> list[str]:
        return [f"{request['method']} {request['path']}" for request in self.requests]

    def json(self, index: int = -1) -> Any:
        return json.loads(self.requests[index]["raw"])

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
