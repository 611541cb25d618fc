"""Headless Chromium, spoken to by selenium; tests that import this are skipped without it."""

import json
import pathlib
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.support import wait as wait_lib  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
    "disable-dev-shm-usage", "window-size=1280,900",
)  # fmt: skip
PATIENCE = 60  # seconds


class Browser:
    """A session of headless Chromium; nothing but what is installed is run."""

    def __init__(self, folder: pathlib.Path):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"user-data-dir={folder}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(executable_path=DRIVER))

    def open(self, url: str):
        """Forget what was logged and load a page."""
        self.log("browser"), self.log("performance")
        self.driver.get(url)

    def run(self, script: str, *args):
        """What JavaScript returns."""
        return self.driver.execute_script(script, *args)

    def keys(self, text: str):
        """Press keys, one after another, where the focus is."""
        webdriver.ActionChains(self.driver).send_keys(text).perform()

    def resize(self, width: int, height: int):
        """Size of the page that is shown; a window has a least width."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def log(self, kind: str) -> list[dict]:
        """Entries since it was last asked."""
        return self.driver.get_log(kind)

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def wait(self, found, what: str):
        """Ask until the answer is true."""
        waiting = wait_lib.WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1)
        return waiting.until(lambda _: found(), f"waited {PATIENCE} s for {what}")
