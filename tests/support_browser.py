"""A headless Chromium for tests of pages, driven by the DevTools protocol over tornado's WebSocket client."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def find_chromium() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What a page did.

    requests: URLs asked for; messages: console errors, exceptions, refusals of the page's policy; values: of the
    expressions, in order.
    """

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    picture: bytes = b""


@contextlib.contextmanager
def chromium() -> Iterator[int]:
    """Start Chromium and yield its debugging port."""
    path = find_chromium()
    assert path is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _port(Path(profile, "DevToolsActivePort"), process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _port(path: Path, process: "subprocess.Popen[bytes]") -> int:
    for _ in range(600):
        if path.exists() and (lines := path.read_text().split()):
            return int(lines[0])
        assert process.poll() is None, "chromium ended early"
        time.sleep(0.1)
    raise TimeoutError("chromium did not open its debugging port in 60 s")


def visit(
    port: int, page: Path, *, width: int = 1280, dark: bool = False, run: tuple[str, ...] = (), picture: bool = False
) -> Visit:
    """Open a page, run expressions in it, and say what happened; picture: also a PNG of the whole page."""
    return asyncio.run(_visit(port, page, width, dark, run, picture))


async def _visit(port: int, page: Path, width: int, dark: bool, run: tuple[str, ...], picture: bool) -> Visit:
    from tornado.httpclient import AsyncHTTPClient, HTTPRequest

    request = HTTPRequest(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT", body=b"")
    target = json.loads((await AsyncHTTPClient().fetch(request)).body)
    socket = await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=1 << 28)
    tab = _Tab(socket)
    for domain in ("Page", "Runtime", "Network", "Log"):
        await tab.call(f"{domain}.enable")
    await tab.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    await tab.call("Emulation.setEmulatedMedia", features=scheme)
    await tab.call("Page.navigate", url=page.as_uri())
    await tab.wait_for("Page.loadEventFired")
    for expression in run:
        answer = await tab.call("Runtime.evaluate", expression=expression, returnByValue=True)
        tab.seen.values.append(answer["result"].get("value"))
    if picture:
        shot = await tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        tab.seen.picture = base64.b64decode(shot["data"])
    await tab.call("Page.close")
    socket.close()
    return tab.seen


class _Tab:
    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket, self._number, self.seen = socket, 0, Visit()
        self._events: set[str] = set()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = await self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])

    async def wait_for(self, event: str) -> None:
        while event not in self._events:
            await self._read()

    async def _read(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self._socket.read_message(), timeout=60)
        assert text is not None, "chromium closed the connection"
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        self._events.add(method)
        if method == "Network.requestWillBeSent":
            self.seen.requests.append(parameters["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.seen.messages.append(json.dumps(parameters["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled":
            self.seen.messages.append(json.dumps(parameters["args"]))
        if method == "Log.entryAdded":
            self.seen.messages.append(parameters["entry"]["text"])
