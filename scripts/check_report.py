#!/usr/bin/env python3
"""Opens pages in headless Chromium as a reader would, on a wide screen and a telephone, light and dark, and says what is wrong.

    scripts/check_report.py [--shots DIR] report.html...

Wrong is: anything on the console, any request for something else than the page, anything wider than the screen, a picture
without words, letters too pale for their background. Without a Chromium it says so and nothing is checked. Needs nothing but Python.
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
).split()
SCREENS = [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]

# What is wider than the screen (whose width is given: a telephone's browser makes its own larger for a page that is too wide), what has no words, and what is too pale to be read (contrast below 4.5, as WCAG asks).
LOOK = """(width => {
  const wide = [...document.querySelectorAll('body *')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.right > width + 0.5 || r.left < -0.5;
  }).map(e => e.tagName + ' ' + (e.textContent || '').slice(0, 40));
  const mute = [...document.querySelectorAll('svg')].filter(e => {
    const ids = (e.getAttribute('aria-labelledby') || '').split(' ');
    return e.getAttribute('role') !== 'img' || !ids.every(id => document.getElementById(id)?.textContent.trim());
  }).length;
  const numbers = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const pale = [...document.querySelectorAll('body *')].filter(e => {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || ['TITLE', 'DESC', 'STYLE'].includes(e.tagName.toUpperCase())) return false;
    const style = getComputedStyle(e), ink = numbers(e.closest('svg') ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 30));
  return {over: document.documentElement.scrollWidth - width, wide, mute, pale, height: document.documentElement.scrollHeight};
})"""


class Chromium:
    """A browser that is spoken to through two pipes."""

    def __init__(self, program, profile):
        (self.out_far, self.out), (self.into, self.into_far) = os.pipe(), os.pipe()
        command = [program, *QUIET, f"--user-data-dir={profile}", "about:blank"]
        shell = f'exec "$@" 3<&{self.out_far} 4>&{self.into_far}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command], pass_fds=[self.out_far, self.into_far],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(self.out_far), os.close(self.into_far)
        self.rest, self.number, self.events = b"", 0, []

    def message(self, until):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.into], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self.into, 1 << 16) if ready else b""
            if not part:
                raise SystemExit("Chromium does not answer")
            self.rest += part
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, session=None, **params):
        self.number += 1
        call = {"id": self.number, "method": method, "params": params}
        call |= {"sessionId": session} if session else {}
        os.write(self.out, json.dumps(call).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            answer = self.message(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, name):
        until = time.monotonic() + 60
        while not any(e.get("method") == name for e in self.events):
            self.events.append(self.message(until))

    def end(self):
        self.process.kill()
        self.process.wait()


def look(browser, page, scheme, width, shots):
    """What is wrong with a page on a screen."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ["Page", "Network", "Runtime", "Log"]:
        browser.call(f"{domain}.enable", session)
    size = {"width": width, "height": 800, "deviceScaleFactor": 2 if width < 500 else 1, "mobile": width < 500}
    browser.call("Emulation.setDeviceMetricsOverride", session, **size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", session, features=[feature])
    browser.events.clear()
    url = page.resolve().as_uri()
    browser.call("Page.navigate", session, url=url)
    browser.wait("Page.loadEventFired")
    for details in ["false", "true"]:
        browser.call("Runtime.evaluate", session, expression=f"document.querySelectorAll('details').forEach(d => d.open = {details})")
        seen = browser.call("Runtime.evaluate", session, expression=f"{LOOK}({width})", returnByValue=True)["result"]["value"]
    wrong = []
    for event in browser.events:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if params["request"]["url"] not in (url, "data:,"):
                wrong.append(f"asks for {params['request']['url']}")
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                wrong.append(f"on the console: {json.dumps(params)[:200]}")
            case "Log.entryAdded":
                wrong.append(f"on the console: {params['entry']['text']}")
    if seen["over"] > 0:
        wrong.append(f"{seen['over']} pixels wider than the screen")
    wrong += [f"reaches out of the screen: {what}" for what in seen["wide"]]
    wrong += [f"too pale: {what}" for what in seen["pale"]]
    if seen["mute"]:
        wrong.append(f"{seen['mute']} pictures without words")
    if shots:
        clip = {"x": 0, "y": 0, "width": width, "height": seen["height"], "scale": 1}
        png = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)["data"]
        (shots / f"{page.stem}-{scheme}-{width}.png").write_bytes(base64.b64decode(png))
    browser.call("Target.closeTarget", targetId=target)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=pathlib.Path, help="directory for pictures of the pages")
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if program is None:
        print("not checked: there is no Chromium on this machine", file=sys.stderr)
        return 0
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    faults = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Chromium(program, profile)
        try:
            for page in options.pages:
                for scheme, width in SCREENS:
                    wrong = look(browser, page, scheme, width, options.shots)
                    faults += len(wrong)
                    print(f"{page.name}, {scheme}, {width} pixels: {'; '.join(wrong) or 'good'}")
        finally:
            browser.end()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
