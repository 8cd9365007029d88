"""Shows the live page in headless Chromium, looks at it, and ends the only connection there is.

usage: browser.py URL PROFILE-DIRECTORY
"""
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request

PATIENCE = 40
url, profile = sys.argv[1:]


class Browser:
    """A page of Chromium, driven over its DevTools protocol."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", f"--remote-debugging-port={self.port}", f"--user-data-dir={profile}",
             "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.number, self.complaints = 0, []

    def attach(self):
        path = self.path()
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(
            (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        self.stream = self.socket.makefile("rb")
        while self.stream.readline() != b"\r\n":
            pass

    def path(self):
        end = time.time() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/json") as answer:
                    page = next(it for it in json.load(answer) if it["type"] == "page")
                return page["webSocketDebuggerUrl"].split(f":{self.port}")[1]
            except (OSError, StopIteration):
                if time.time() > end:
                    raise
                time.sleep(0.1)

    def send(self, method, **parameters):
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + text)
        while True:
            message = self.receive()
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(message))
            if message.get("id") == self.number:
                return message["result"]

    def receive(self):
        length = self.stream.read(2)[1] & 127
        if length == 126:
            length = struct.unpack(">H", self.stream.read(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.stream.read(8))[0]
        return json.loads(self.stream.read(length))

    def evaluate(self, expression):
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression, wanted=True):
        end = time.time() + PATIENCE
        while (value := self.evaluate(expression)) != wanted:
            assert time.time() < end, f"{expression} is {value!r}, not {wanted!r}: {self.complaints}"
            time.sleep(0.1)


def look(browser):
    text = "document.getElementById('{}').textContent".format
    for method in ("Page.enable", "Log.enable", "Runtime.enable"):
        browser.send(method)
    browser.send("Page.navigate", url=url)
    browser.wait(text("open"), "1")
    browser.wait(text("phase"), "serving")
    before = browser.evaluate(text("uptime"))
    browser.wait(f"{text('uptime')} !== {json.dumps(before)}")

    grounds = set()
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            browser.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                         mobile=width < 500)
            browser.send("Emulation.setEmulatedMedia",
                         features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.wait("document.documentElement.scrollWidth <= innerWidth")
            assert browser.evaluate("innerWidth") == width
            grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            if directory := os.environ.get("SERVELOOP_SCREENSHOTS"):
                picture = browser.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
                with open(f"{directory}/{width}-{scheme}.png", "wb") as file:
                    file.write(base64.b64decode(picture["data"]))
    assert len(grounds) == 2, f"light and dark look the same: {grounds}"

    browser.wait("document.querySelectorAll('#top button').length", 1)
    browser.evaluate("confirm = () => true; document.querySelector('#top button').click()")
    browser.wait(text("open"), "0")
    assert not browser.complaints, browser.complaints


browser = Browser()
try:
    browser.attach()
    look(browser)
finally:
    browser.process.kill()
    browser.process.wait()
