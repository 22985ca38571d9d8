"""A page in headless Chromium, spoken to through a pipe by its own protocol."""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)


def find():
    """The path of a Chromium, `None` if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of one Chromium, offline; `with Browser(folder) as browser`."""

    def __init__(self, folder, patience=60):
        self.patience = patience
        self.events = []
        self._replies = {}
        self._unread = b""
        self._number = 0
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._in, self._out = ours_in, ours_out

        def as_three_and_four():
            # Chromium reads from descriptor 3 and writes to 4; away from both before they are taken.
            read, write = os.dup(theirs_in), os.dup(theirs_out)
            while min(read, write) < 5:
                read, write = os.dup(read), os.dup(write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self._process = subprocess.Popen(
            [find(), *SWITCHES, f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=as_three_and_four,
            close_fds=False,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self):
        page = next(target for target in self._wait_for_targets() if target["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    session = None

    def send(self, method, **params):
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.patience
        while self._number not in self._replies:
            self._read(deadline)
        reply = self._replies.pop(self._number)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def size(self, width, height, *, phone=False, dark=False):
        """Show the page in a window of this size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        value = "dark" if dark else "light"
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": value}],
        )

    def open(self, file, until):
        """Open a file and wait until a script's expression holds."""
        self.events.clear()
        self.send("Page.navigate", url=f"file://{file}")
        self.wait(until)

    def wait(self, until):
        """Wait until a script's expression holds."""
        began = time.monotonic()
        while not self.value(until):
            if time.monotonic() - began > self.patience:
                raise TimeoutError(
                    f"{until} does not hold after {self.patience} s: {self.errors()}"
                )
            time.sleep(0.05)

    def value(self, expression):
        """The value of a script's expression on the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def picture(self, file, *, whole=False):
        """Save what is seen, or the whole page, as PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        with open(file, "wb") as stream:
            stream.write(base64.b64decode(found["data"]))

    def errors(self):
        """Errors and warnings of the console, exceptions, and requests for anything but the file itself."""
        found = []
        for event in self.events:
            kind, params = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", params))
            elif kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(params["args"])
            elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"])
            elif kind == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:")):
                    found.append(f"asked for {url}")
        return found

    def _wait_for_targets(self):
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            targets = self.send("Target.getTargets")["targetInfos"]
            if any(target["type"] == "page" for target in targets):
                return targets
            time.sleep(0.1)
        raise TimeoutError("Chromium opened no page")

    def _read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._in], [], [], left)[0]:
            raise TimeoutError(f"Chromium has not answered for {self.patience} s")
        chunk = os.read(self._in, 1 << 20)
        if not chunk:
            raise RuntimeError(f"Chromium ended with status {self._process.wait()}")
        *messages, self._unread = (self._unread + chunk).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._replies[message["id"]] = message
            else:
                self.events.append(message)
