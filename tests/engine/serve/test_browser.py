"""The page in headless Chromium, as somebody uses it: on a small store, through the command `gridclip serve`."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import LONG, Planted

pytestmark = pytest.mark.may_skip  # Chromium is no Python package: .ci/chromium.sh installs it where it can
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
GRIDCLIP = pathlib.Path(sys.executable).with_name("gridclip")
LIMIT_S = 30.0
SHOTS = "GRIDCLIP_SCREENSHOTS"  # where pictures of the page's states are kept; by default in pytest's folder
HERE = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")  # data: the icons of Chromium's own player


@pytest.fixture(scope="module")
def address(planted: Planted) -> Iterator[str]:
    """Of a server that runs as a user starts it, and ends as a user ends it."""
    server = subprocess.Popen(
        [
            *([str(GRIDCLIP)] if GRIDCLIP.exists() else [sys.executable, "-m", "gridclip.cli"]),
            *("serve", "--store", str(planted.store.path), "--model", str(planted.encoder.model_dir)),
            *("--video-dir", str(planted.video_dir), "--port", "0", "--num-gpus", "0", "--temperature", "0.1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())
    assert found, server.communicate(timeout=LIMIT_S)
    yield found[0]
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0 and not errors


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Its sandbox cannot start as root, nor its shared memory in small containers.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"):
        options.add_argument(argument)
    options.add_argument("--autoplay-policy=no-user-gesture-required")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(LIMIT_S)
    yield driver
    driver.quit()


@pytest.fixture
def page(started: Any, address: str) -> Iterator[Page]:
    """The page, opened anew in a window of 1200 x 900; it may ask nobody but its own server, and log no error."""
    started.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    started.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    started.set_window_size(1200, 900)
    for kind in ("performance", "browser"):
        started.get_log(kind)
    opened = Page(started, address)
    opened.open("")
    yield opened
    asked = [json.loads(entry["message"])["message"] for entry in started.get_log("performance")]
    addresses = [entry["params"]["request"]["url"] for entry in asked if entry["method"] == "Network.requestWillBeSent"]
    assert addresses
    assert [each for each in addresses if not each.startswith(HERE)] == []
    assert [entry["message"] for entry in started.get_log("browser") if not opened.expects(entry["message"])] == []


class Page:
    """What somebody does with the page, and sees."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address
        self.expected: list[str] = []  # parts of the browser's complaints

    def expects(self, complaint: str) -> bool:
        return any(part in complaint for part in self.expected)

    def open(self, query: str) -> None:
        self.driver.get(self.address + query)
        self.until(lambda: "videos" in self.text("#counts"))

    def until(self, what: Callable[[], Any]) -> Any:
        """Waits for it, and gives it back."""
        end = time.monotonic() + LIMIT_S
        while not (found := what()):
            assert time.monotonic() < end, self.text("body")
            time.sleep(0.05)
        return found

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def text(self, selector: str) -> str:
        found: str = self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return found

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def search(self, sentence: str) -> None:
        field = self.all("#q")[0]
        field.clear()
        field.send_keys(sentence, "\n")
        self.answered()

    def answered(self) -> None:
        self.until(lambda: not self.js("return document.getElementById('progress').offsetHeight") and self.shown())

    def shown(self) -> list[str]:
        """The ids of the videos on the page, or what the page says."""
        ids: list[str] = self.js("return [...document.querySelectorAll('.row')].map((row) => row.video.video_id)")
        return ids or [self.text("#status")]

    def playing_s(self) -> float:
        """Waits until the player shows a picture and has moved on; seconds of the video."""

        def moving() -> Any:
            return self.js(
                "const v = document.querySelector('video'); return v && v.videoWidth && !v.seeking "
                "&& v.readyState >= 2 && v.played.length ? v.currentTime + Number(v.dataset.offset || 0) : null"
            )

        at_s: float = self.until(moving)
        return at_s

    def shot(self, name: str, folder: pathlib.Path) -> None:
        kept = pathlib.Path(os.environ.get(SHOTS) or folder)
        kept.mkdir(parents=True, exist_ok=True)
        images = (
            "return [...document.images].every((image) => (image.complete && image.naturalWidth) "
            "|| !image.offsetHeight || image.getBoundingClientRect().top > innerHeight)"
        )
        self.until(lambda: self.js(images))
        time.sleep(0.3)  # the last of them are being drawn
        assert self.driver.save_screenshot(str(kept / f"{name}.png"))


def test_a_sentence_finds_the_video_and_a_click_plays_the_moment(
    page: Page, planted: Planted, tmp_path: pathlib.Path
) -> None:
    page.shot("empty", tmp_path)
    caption, start_s, end_s = planted.longest_caption("first")
    page.search(caption)
    assert page.shown()[0] == "first"
    page.shot("results", tmp_path)
    page.all(".row .poster")[0].click()
    assert start_s <= page.playing_s() <= end_s
    page.shot("playing", tmp_path)
    second = page.all(".row .line")[0]
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", second)
    second.click()  # in its middle
    assert page.playing_s() == pytest.approx(planted.made["first"].timestamps[-1][1] / 2, abs=2)


@pytest.mark.parametrize("video_id", ["hevc", "old"])
def test_what_the_browser_cannot_play_plays_through_a_clip(
    page: Page, planted: Planted, video_id: str, tmp_path: pathlib.Path
) -> None:
    caption, start_s, end_s = planted.longest_caption(video_id)
    page.search(caption)
    assert page.shown()[0] == video_id
    page.all(".row .poster")[0].click()
    assert start_s - 1 <= page.playing_s() <= end_s + 1
    assert page.js("return document.querySelector('video').dataset.clip") == "1"
    assert "does not play this kind of file" in page.text(".stage")
    page.shot(f"clip_{video_id}", tmp_path)


def test_a_date_is_typed_and_the_address_keeps_it(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    old = planted.video_dir / "old.avi"
    before = old.stat()
    os.utime(old, (0, time.mktime((2020, 5, 17, 12, 0, 0, 0, 0, -1))))
    try:
        page.search(planted.longest_caption("old")[0])
        assert len(page.shown()) > 1
        page.js("document.getElementById('until').focus()")
        page.keys("05172020")  # as an American browser has it: month, day, year
        page.until(lambda: page.shown() == ["old"])
        assert "until=2020-05-17" in page.driver.current_url
        page.shot("dates", tmp_path)
        page.driver.refresh()
        page.until(lambda: page.shown() == ["old"])
        assert page.js("return document.getElementById('until').value") == "2020-05-17"
        page.open("?q=a+ring&since=nonsense")
        page.until(lambda: "since is 'nonsense'" in page.text("#status") or "expected a date" in page.text("#status"))
        page.expected.append("400")
    finally:
        os.utime(old, (before.st_atime, before.st_mtime))


def test_keyboard_only(page: Page, planted: Planted) -> None:
    caption, start_s, end_s = planted.longest_caption("second")
    page.js("document.activeElement.blur()")
    page.keys("/", caption, "\n")
    page.answered()
    page.keys("j")
    assert page.js("return document.activeElement.video.video_id") == page.shown()[0] == "second"
    page.keys("\n")
    assert start_s <= page.playing_s() <= end_s
    page.keys("\ue00c")  # Escape
    assert not page.all("video")
    assert page.js("return document.activeElement.video.video_id") == "second"
    page.keys("j", "k", "1")
    assert start_s <= page.playing_s() <= end_s
    page.keys("\ue00c", "m")
    page.until(lambda: "like second at" in page.text("#status"))
    assert page.shown()[0] == "second"


def test_the_line_of_time_is_a_slider(page: Page, planted: Planted) -> None:
    page.search(planted.longest_caption("first")[0])
    page.js("document.querySelector('.line').focus()")
    page.keys("\ue011", "\ue014", "\ue014")  # Home, right, right
    assert page.js("return document.activeElement.ariaValueText") == "0:02"
    page.keys("\n")
    assert 1.9 <= page.playing_s() <= 6


def test_every_control_has_a_name(page: Page, planted: Planted) -> None:
    page.search(planted.longest_caption("first")[0])
    page.all(".row .poster")[0].click()
    page.playing_s()
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "textbox", "searchbox", "combobox", "slider", "group", "img", "image", "Video"}
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    assert len(controls) > 20
    players = page.js("return document.querySelectorAll('video').length")
    nameless = [node for node in controls if not (node.get("name") or {}).get("value")]
    # Chromium's own controls of a video have nodes without names.
    assert players == 1 and not [node for node in nameless if node["role"]["value"] not in ("Video", "group", "image")]


def test_a_phone(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.open("")
    page.shot("phone_empty", tmp_path)
    page.search(planted.longest_caption(LONG.strip())[0])
    assert page.shown()[0] == LONG.strip()
    assert page.js("return document.documentElement.scrollWidth") == 390, "nothing sticks out"
    small = page.js(
        "return [...document.querySelectorAll('button, select, summary, input[type=search]')].filter((each) => "
        "each.offsetHeight && each.getBoundingClientRect().height < 24).map((each) => each.outerHTML)"
    )
    assert small == [], "a finger needs 24 pixels (WCAG 2.2, 2.5.8)"
    page.shot("phone", tmp_path)
    page.all(".row .poster")[0].click()
    page.playing_s()
    page.shot("phone_playing", tmp_path)


def test_long_names_wrap(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    page.search(planted.longest_caption(LONG.strip())[0])
    row, title = page.js(
        "const row = document.querySelector('.row'); return [row, row.querySelector('h2')].map((each) => "
        "each.getBoundingClientRect().right)"
    )
    assert title < row
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    page.shot("long_name", tmp_path)


def test_what_is_searched_for_is_in_the_address(page: Page, planted: Planted) -> None:
    (one, start_s, end_s), (two, *_) = planted.longest_caption("first"), planted.longest_caption("second")
    page.search(one)
    page.search(two)
    page.driver.back()
    page.until(lambda: page.shown()[0] == "first" and page.js("return document.getElementById('q').value") == one)
    page.driver.forward()
    page.until(lambda: page.shown()[0] == "second")
    shared = page.js(
        "return new URLSearchParams({q: arguments[0], play: 'first', t: arguments[1]}).toString()", one, start_s
    )
    page.open(f"?{shared}")
    assert start_s <= page.playing_s() <= end_s


def test_filters_and_time_order(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    captions = planted.made["first"].captions
    page.search(f"{captions[0].rstrip('.')}, then {captions[2][0].lower()}{captions[2][1:]}")
    assert page.shown()[0] == "first" and len(page.all(".row:first-child .moments button")) == 2
    page.shot("in_order", tmp_path)
    folder = page.all("#folder")[0]
    page.js("arguments[0].value = 'holidays'; arguments[0].dispatchEvent(new Event('change'))", folder)
    page.until(lambda: set(page.shown()) == {LONG.strip(), "holidays/last"})
    assert "folder=holidays" in page.driver.current_url


def test_a_picture_is_searched_for(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    from gridclip.engine.serve.making import make
    from gridclip.engine.serve.orders import Still

    _, start_s, end_s = planted.longest_caption("second")
    still = next(make(Still("second", planted.video_dir / "second.mp4", (start_s + end_s) / 2), skip=0))
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(still.data)
    page.all("#picture")[0].send_keys(str(picture))
    page.until(lambda: "picture.jpg" in page.text("#status"))
    assert page.shown()[0] == "second"
    page.shot("picture", tmp_path)


def test_nothing_found_is_said(page: Page, tmp_path: pathlib.Path) -> None:
    page.search("asdf qwer")
    assert "Nothing matches" in page.text("#status") and not page.all(".row")
    page.shot("nothing", tmp_path)
    page.all("#status button")[0].click()
    page.until(lambda: len(page.all(".row")) == 6)
    page.search("a big blue moon over yellow bricks")
    page.shot("weak", tmp_path)


def test_a_server_that_is_gone_is_said(page: Page, tmp_path: pathlib.Path) -> None:
    page.expected += ["ERR_INTERNET_DISCONNECTED"]
    page.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        page.all("#q")[0].send_keys("a ring\n")
        page.until(lambda: "does not answer" in page.text("#status"))
        page.shot("error", tmp_path)
    finally:
        page.driver.delete_network_conditions()
    page.all("#status button")[0].click()
    page.until(lambda: "does not answer" not in page.text("#status"))


def test_searching_is_said(page: Page, tmp_path: pathlib.Path) -> None:
    page.driver.set_network_conditions(offline=False, latency=1500, throughput=1 << 24)
    try:
        page.all("#q")[0].send_keys("a ring\n")
        page.until(lambda: "Searching" in page.text("#status"))
        assert page.js("return document.getElementById('progress').offsetHeight") > 0
        page.shot("searching", tmp_path)
    finally:
        page.driver.delete_network_conditions()


def test_dark(page: Page, planted: Planted, tmp_path: pathlib.Path) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    page.search(planted.longest_caption("first")[0])
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert page.js(ground) == "rgb(18, 22, 20)"
    page.shot("dark", tmp_path)
    page.all("#theme")[0].click()
    assert page.js(ground) == "rgb(246, 246, 243)"
    page.all("#theme")[0].click()
    page.js("localStorage.clear(); delete document.documentElement.dataset.theme")
