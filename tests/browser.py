"""A real Chromium without a window, driven through its DevTools protocol over two pipes.

Nothing but the standard library is needed: with ``--remote-debugging-pipe`` the browser reads commands
from file descriptor 3 and writes answers and events to 4, as JSON that ends in a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str | None:
    """Path of the first browser that there is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser, with all that it logged and asked for.

    Args:
        profile: an empty directory for the browser's files.
    """

    def __init__(self, profile: Path) -> None:
        found = executable()
        assert found is not None
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # 3 and 4 by the shell, which leaves this process's own descriptors alone
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                     "--disable-dev-shm-usage", "--disable-background-networking",
                     f"--user-data-dir={profile}", "--remote-debugging-pipe"]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", found, *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(profile)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out, self._buffer, self._count = ours_in, ours_out, b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        session, self._session = self._session, None
        if session is not None:
            self.call("Browser.close")
        self.process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come meanwhile are kept."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") != self._count:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            return dict(answer["result"])

    def _read(self, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._in, 1 << 16) if ready else b""
            if not chunk:
                raise RuntimeError("the browser does not answer")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(line))

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads a file at a width of so many CSS pixels, light or dark, and waits until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page, whose own policy does not bind it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key where the focus is."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode={"Enter": 13, " ": 32, "Tab": 9}.get(key, 0),
            )

    def of(self, *methods: str) -> list[dict[str, Any]]:
        """What was noted of these events since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the page: scripts, resources, and violations of its policy."""
        logged = [e["entry"]["text"] for e in self.of("Log.entryAdded")]
        thrown = [json.dumps(e["exceptionDetails"]) for e in self.of("Runtime.exceptionThrown")]
        said = [json.dumps(e["args"]) for e in self.of("Runtime.consoleAPICalled")]
        return logged + thrown + said

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for, without what it holds itself."""
        asked = [e["request"]["url"] for e in self.of("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith("data:")]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Writes what the page looks like."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
