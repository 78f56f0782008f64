"""Pages in a real browser, for tests: the browser, the page of `bitnet serve`, and servers of several models."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import bitnet
from bitnet.server import create_app
from scripted_model import scripted_model
from served import eventually, running
from test_thinking import END, PLAIN

ANSWER = ".answer .text"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
HAS_CHROMIUM = bool(CHROMIUM and DRIVER)
NO_CHROMIUM = "no chromium and chromedriver here (Debian: chromium, chromium-driver)"
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """Chromium without windows, which keeps its files and downloads in the folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    browser.folder = folder
    yield browser
    browser.quit()


class Page:
    """The page in a browser."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.statuses: set[str] = set()
        """Words of complaints of the browser that the test expects."""

    def open(self, url: str, **kept: Any) -> Page:
        """Load it, with nothing kept by the browser but these values."""
        self.browser.get(url + "/health")
        self.run("localStorage.clear(); sessionStorage.clear()")
        for name, value in kept.items():
            self.run("localStorage.setItem(arguments[0], arguments[1])", f"bitnet.{name}", json.dumps(value))
        self.browser.get(url + "/")
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """The elements that are seen."""
        script = "return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility())"
        return list(self.run(script, selector))

    def texts(self, selector: str) -> list[str]:
        """The texts of the elements that are seen. One script reads them all, since the page may change between two."""
        script = """return [...document.querySelectorAll(arguments[0])]
          .filter(one => one.checkVisibility()).map(one => one.innerText)"""
        return list(self.run(script, selector))

    def click(self, selector: str, text: str = "") -> None:
        """Click on the last element that is seen and has this text."""
        eventually(lambda: any(text in one for one in self.texts(selector)))
        [one for one in self.all(selector) if text in one.text][-1].click()

    def type(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def ask(self, text: str, answers: int = 1) -> list[str]:
        """Send a message and wait until so many answers are complete. Returns the answers."""
        self.browser.find_element(By.ID, "question").send_keys(text, Keys.ENTER)
        return self.answers(answers)

    def answers(self, count: int) -> list[str]:
        eventually(lambda: len(self.all(".answer .told")) == count and not self.all("#stop"))
        return self.texts(ANSWER)

    def kept(self, receipts: int = 1) -> list[Any]:
        """The turns that the browser keeps, once their receipts are there."""

        def read() -> list[Any]:
            return json.loads(self.run("return localStorage.getItem('bitnet.turns')") or "[]")

        eventually(lambda: sum("receipt" in turn for turn in read()) == receipts)
        return read()

    def claim(self) -> Any:
        """What the receipt of the only answer claims."""
        return json.loads(self.kept()[-1]["receipt"])["claim"]

    def screen(self, width: int = 1100, height: int = 760, scheme: str = "light") -> None:
        """Set the size of the window, and whether the user wants a dark page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


@contextlib.contextmanager
def scripted(path: Path, *script: str, template: str = PLAIN, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a server of a model that says this."""
    scripted_model(path, ["\n", *script, END], template=template, words=words)
    with bitnet.Engine(path, n_threads=1) as engine, running(create_app(engine)) as url:
        yield url
