#!/usr/bin/env python3
"""contract: the page of `kvsweep report --html` in Chromium: no error, no request, nothing in the results runs, it works
by keyboard, at two widths, light and dark. Exit 4: skipped, there is no Chromium.

    page_test.py PAGE_TOOL [--large]     --large: 200 records of 1,000 samples each open in under 2 s

Screenshots are left in page_screenshots/ below the working directory.
"""
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
RUNS = "window.ran = (window.ran || 0) + 1"
HOSTILE = [
    f"</script><script>{RUNS}</script>",
    f'"><img src=x onerror="{RUNS}">',
    f"<!--<script>{RUNS}//",
    f"<svg onload='{RUNS}'></svg>",
    f"{{{{script}}}} ${{{RUNS}}} javascript:{RUNS}",
    f"<iframe srcdoc='<script>parent.{RUNS}</script>'></iframe>",
    "\u202eright to left\u2028line\u0000nul\ud83d\ude00",
]


class Browser:
    """Chromium over two pipes: messages are JSON, ended by a zero byte (--remote-debugging-pipe)."""

    def __init__(self, path):
        self.profile = tempfile.mkdtemp(prefix="kvsweep-page-")
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def wire():  # the browser reads at 3 and writes at 4
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            [path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={self.profile}",
             "about:blank"], preexec_fn=wire, pass_fds=(3, 4, to_browser, from_browser),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.profile, ignore_errors=True)

    def receive(self):
        while b"\0" not in self.buffer:
            got = os.read(self.read_end, 1 << 20)
            if not got:
                raise RuntimeError("the browser has gone")
            self.buffer += got
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}"
            time.sleep(0.02)

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
        self.until("document.documentElement?.dataset.ready > 0")

    def size(self, width, height=1000):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def key(self, key, text=None):
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "Escape": 27}[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def tab_to(self, condition):
        """Presses Tab until the focused element `e` fulfils the condition."""
        for _ in range(400):
            self.key("Tab")
            if self.value(f"(e => {condition})(document.activeElement)"):
                return
        raise AssertionError(f"not reached by Tab: {condition}")

    def shot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def complaints(self):
        """What the console, the log and the network saw."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(params)[:500])
            if event.get("method") == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if url != "data:," and params.get("type") != "Document":
                    found.append(f"request of {url[:200]}")
        return found


def tool(*arguments):
    subprocess.run([str(argument) for argument in arguments], check=True)


def edit(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for i, line in enumerate(lines):
        change(i, line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def hostile_results(program, folder):
    """Every text of records and samples that reaches the page tries to run."""
    results = folder / f"<img src=x onerror='{RUNS}'>"
    tool(program, "synthetic", 2, 20, 60, results)

    def sample(i, line):
        line["output"] = f"the same beginning {HOSTILE[i % len(HOSTILE)]}" if i % 3 else line["output"]
        line["tags"]["<b>tag</b>" + HOSTILE[0]] = HOSTILE[int(line["sample_id"][1:]) % 5]

    def record(i, line):
        line["point"]["model"] = HOSTILE[1]
        line["point"]["task"] += HOSTILE[0]
        line["env"].update(command=HOSTILE[0], host=HOSTILE[1], cpu=HOSTILE[2], commit=HOSTILE[3])
        line["warnings"] = [HOSTILE[0]]
        line["task_kind"] = "retrieval" + HOSTILE[2]
        if line["point"]["scheme"] != "full":
            line["point"]["scheme"] += HOSTILE[3]
        if i % 20 == 7:
            line.update(status="failed", error=HOSTILE[0] + HOSTILE[5])

    edit(results / "samples.jsonl", sample)
    edit(results / "records.jsonl", record)
    return results


# Smallest contrast of any text with what is behind it, and whose; as WCAG 2 defines it.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((s, w, i) => { const x = c[i] / 255; return s + w * (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); }, 0);
  let least = [99, ""];
  const texts = document.createTreeWalker(document.getElementById("main"), NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const e = node.parentElement, style = getComputedStyle(e);
    if (!node.data.trim() || !e.getClientRects().length || e.disabled) continue;
    let at = e, back = [0, 0, 0, 0];
    while (at && back[3] < 255) { back = rgb(getComputedStyle(at).backgroundColor); at = at.parentElement; }
    const a = light(rgb(e.closest("svg") ? style.fill : style.color)), b = light(back);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, `${e.className.baseVal ?? e.className} ${e.tagName} ${node.data.slice(0, 40)}`];
  }
  return least;
})()"""

ROWS = "[...document.querySelectorAll('#main-table tbody tr')]"


def column(name):
    return (f"(() => {{ const i = [...document.querySelectorAll('#main-table thead th')].findIndex(h => h.textContent.startsWith('{name}'));"
            f" return {ROWS}.map(r => r.children[i].textContent); }})()")


def numbers(texts):
    return [float(text.replace("−", "-").replace("\u202f", "")) for text in texts if text != "–"]


def check_keyboard(browser):
    browser.tab_to("e.matches('button.sort') && e.textContent === 'Loss'")
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") != "none", "focus is not visible"
    browser.key("Enter", "\r")
    assert browser.value("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    up = numbers(browser.value(column("Loss")))
    assert len(up) > 10 and up == sorted(up), up
    browser.key("Enter", "\r")
    assert browser.value("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    down = numbers(browser.value(column("Loss")))
    assert down == sorted(up, reverse=True), down
    before = browser.value(f"{ROWS}.length")
    browser.value("document.activeElement.blur(), document.getElementById('tables').querySelector('h2').scrollIntoView(), true")
    browser.tab_to("e.id === 'filter'")
    browser.call("Input.insertText", text="k_bits=2 v_bits=4")
    assert 0 < browser.value(f"{ROWS}.length") < before
    assert browser.value(f"{ROWS}.every(r => / K2 V4/.test(r.textContent))")
    assert browser.value("document.getElementById('table-count').textContent").startswith(f"{browser.value(f'{ROWS}.length')} of")


def check_chart(browser):
    browser.value("document.querySelector('.point').focus(), true")
    first = browser.value("document.activeElement.getAttribute('aria-label')")
    assert "interval" in first and ", n " in first, first
    assert not browser.value("document.querySelector('.tip').hidden")
    browser.key("ArrowRight")
    assert browser.value("document.activeElement.getAttribute('aria-label')") != first


def check_samples(browser):
    browser.value("document.getElementById('samples').scrollIntoView(), true")
    browser.until("document.querySelectorAll('.list tbody tr').length > 0")
    browser.value("(s => { s.value = 'diverged'; s.dispatchEvent(new Event('change')); })(document.getElementById('sample-show'))")
    browser.until("document.querySelectorAll('.texts mark.first').length === 2")
    for i in range(12):
        full, own = browser.value("[...document.querySelectorAll('.texts pre')].map(p => p.firstChild.data)")
        assert full == own, "the texts differ before the mark"
        first = browser.value("[...document.querySelectorAll('.texts mark.first')].map(m => m.textContent)")
        assert first[0] != first[1], first
        shown = browser.value("document.querySelector('.detail h3').textContent")
        next_ = "[...document.querySelectorAll('.steps button')][1]"
        if browser.value(f"{next_}.disabled"):
            break
        browser.value(f"{next_}.focus(), true")
        browser.key("Enter", "\r")
        assert browser.value("document.querySelector('.detail h3').textContent") != shown


def check_choice(browser):
    """Beside the verdict: what choosing among so many does, for the scope that is looked at."""
    for scope in browser.value("[...document.getElementById('scope').options].map(o => o.value)"):
        browser.value(f"(s => {{ s.value = '{scope}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('scope'))")
        judged = browser.value("document.querySelector('#verdict h1').textContent")
        count = re.search(r"of (\d+) ", judged)[1]
        text = browser.value("document.getElementById('choice').textContent")
        assert f"Picking the best of {count} configurations" in text and f"any of the {count} is called" in text, (judged, text)
        assert "every p below 0.05" in text and "at most 5 %" in text, text
        assert browser.value("(e => e.checkVisibility() && e.closest('#verdict') !== null)(document.getElementById('choice'))")


def check_structure(browser):
    for what, broken in {
        "a header cell without scope": "[...document.querySelectorAll('th:not([scope])')]",
        "a control without label": "[...document.querySelectorAll('select, input')].filter(c => !c.labels.length)",
        "a chart without text": "[...document.querySelectorAll('svg:not([aria-label]):not([aria-hidden])')]",
        "a section without heading": "[...document.querySelectorAll('section')].filter(s => !document.getElementById(s.getAttribute('aria-labelledby')))",
        "markup from the results": "[...document.querySelectorAll('#main img, #main iframe, #main script, #main b, [onerror], [onload], [srcdoc]')]",
        "an id twice": "[...document.querySelectorAll('[id]')].filter(e => document.querySelectorAll('#' + CSS.escape(e.id)).length > 1)",
        "a text 'null' or 'NaN'": "[...document.querySelectorAll('#main *')].filter(e => !e.closest('pre') && [...e.childNodes].some(n => n.nodeType === 3 && /\\b(null|undefined|NaN)\\b/.test(n.data)))",
    }.items():
        found = browser.value(f"{broken}.slice(0, 3).map(e => e.outerHTML.slice(0, 200))")
        assert not found, f"{what}: {found}"


def check(browser, program, folder, shots):
    results = hostile_results(program, folder)
    page = folder / "<b onmouseover=alert(1)>.html"
    tool(program, "page", results, page)
    browser.size(1400)
    browser.open(page)
    check_structure(browser)
    check_choice(browser)
    check_chart(browser)
    check_keyboard(browser)
    check_samples(browser)
    assert browser.value("window.ran") is None, "a text of the results ran"
    assert not browser.complaints(), browser.complaints()
    browser.open(page)
    check_samples(browser)
    for width in (400, 1400):
        browser.size(width)
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            wide = browser.value("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px wide in a window of {width}"
            least, whose = browser.value(CONTRAST)
            assert least >= 4.5, f"contrast {least:.2f}, {scheme}: {whose}"
            browser.shot(shots / f"hostile-{width}-{scheme}.png")
    assert not browser.complaints(), browser.complaints()
    # The policy itself: what did get in would not run.
    browser.value("(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); })()")
    assert browser.value("window.ran") is None, "the policy lets other scripts run"


def check_large(browser, program, folder, shots):
    tool(program, "synthetic", 5, 40, 1000, folder / "large")
    tool(program, "page", folder / "large", folder / "large.html")
    browser.size(1400)
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        browser.open(folder / "large.html")
        browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seconds.append(time.monotonic() - start)
    print(f"page of 200 records x 1,000 samples: {(folder / 'large.html').stat().st_size / 2**20:.1f} MiB, opens in "
          f"{', '.join(f'{s:.2f}' for s in seconds)} s")
    start = time.monotonic()
    check_samples(browser)
    print(f"samples unpacked, marked and stepped through in {time.monotonic() - start:.2f} s")
    browser.shot(shots / "large-1400.png")
    assert not browser.complaints(), browser.complaints()
    assert min(seconds) < 2, seconds


def main():
    program = pathlib.Path(sys.argv[1]).absolute()
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        print(f"skipped: no Chromium (looked for {', '.join(BROWSERS)})")
        return 4
    shots = pathlib.Path("page_screenshots")
    shots.mkdir(exist_ok=True)
    browser = Browser(path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            (check_large if "--large" in sys.argv[2:] else check)(browser, program, pathlib.Path(folder), shots)
    finally:
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
