"""The page, in a real browser."""

from __future__ import annotations

import base64
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo

LABELS = "猫，狗、火锅\n高铁站"
DROP = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const moved = new DataTransfer();
  moved.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragover", "drop"])
    document.querySelector("#drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: moved, bubbles: true, cancelable: true }));
}"""
PASTE = """([data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const pasted = new DataTransfer();
  pasted.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def browser(need: Callable[[bool, str], None]) -> Iterator[Any]:
    need(importlib.util.find_spec("playwright") is not None, "Playwright: make install")
    chromium = shutil.which("chromium")
    need(chromium is not None, "Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, gateway: Any) -> Iterator[Any]:
    """A tab on the page. No rule of it is broken, nothing fails, no other host is asked."""
    with browser.new_context() as context:
        tab = watched(context.new_page(), gateway.url)
        tab.goto(gateway.url)
        tab.wait_for_selector("#bank option", state="attached")
        yield tab
        assert tab.wrongs == []


def watched(tab: Any, url: str) -> Any:
    tab.wrongs = []
    tab.set_default_timeout(20_000)
    tab.on("pageerror", lambda error: tab.wrongs.append(str(error)))
    tab.on(
        "console",
        lambda said: (
            tab.wrongs.append(said.text)
            if said.type == "error" and "Failed to load resource" not in said.text
            else None
        ),
    )
    tab.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((url, "blob:", "data:")) else tab.wrongs.append(asked.url)
        ),
    )
    tab.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.blockedURI))"
    )
    return tab


def drop(tab: Any, data: bytes, name: str = "cat.jpg", kind: str = "image/jpeg") -> None:
    tab.evaluate(DROP, [base64.b64encode(data).decode(), name, kind])


def bars(tab: Any) -> list[tuple[str, float]]:
    tab.wait_for_selector("#bars li")
    return [
        (
            item.locator("span").nth(0).inner_text(),
            float(item.locator("progress").get_attribute("value") or 0),
        )
        for item in tab.locator("#bars li").all()
    ]


def test_a_dropped_picture_is_named_by_typed_labels(page) -> None:
    page.fill("#labels", LABELS)
    drop(page, cat_photo())
    found = bars(page)
    assert found[0][0] == "猫"
    assert found[0][1] > 0.9
    assert {name for name, _ in found} == {"猫", "狗", "火锅", "高铁站"}
    assert page.inner_text("#status") == "这是：猫"
    assert "毫秒" in page.inner_text("#seconds")
    assert page.inner_text("#model") == "wanwu-starter"


def test_a_comma_at_the_end_is_no_label(page) -> None:
    page.fill("#labels", "猫，狗，\n")
    drop(page, cat_photo())
    assert [name for name, _ in bars(page)] == ["猫", "狗"]


def test_what_makes_an_answer_doubtful_is_shown(page) -> None:
    page.fill("#labels", "高铁站")
    drop(page, cat_photo())
    bars(page)
    assert page.inner_text("#status") == "不确定：没有一个标签足够合适。"
    assert page.inner_text("#warnings li").startswith("只有一个标签时")
    page.fill("#labels", "猫，狗")
    page.click("#go")
    page.wait_for_selector("#warnings", state="hidden")


def test_a_chosen_picture_is_named_by_a_bank(page, recognizer, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(cat_photo())
    page.select_option("#bank", "seed18")
    page.set_input_files("#file", tmp_path / "cat.jpg")
    expected = recognizer.recognize(cat_photo(), bank="seed18").predictions
    assert [name for name, _ in bars(page)] == [each.label for each in expected]


def test_a_picture_may_be_pasted(page) -> None:
    page.fill("#labels", LABELS)
    page.evaluate(PASTE, [base64.b64encode(cat_photo()).decode()])
    assert bars(page)[0][0] == "猫"


def test_a_picture_may_be_taken(page) -> None:
    page.click("#camera")
    page.click("#shoot")
    assert len(bars(page)) == 5
    assert page.is_hidden("#viewfinder")
    assert page.is_visible("#camera")


def test_a_camera_may_be_left(page) -> None:
    page.click("#camera")
    page.click("#cancel")
    assert page.is_hidden("#viewfinder")
    assert page.inner_text("#status") == "还没有图片。"


def test_what_is_no_picture_is_refused_in_chinese(page) -> None:
    drop(page, b"no picture", "a.txt", "text/plain")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error").startswith("这不是可读取的图片：")
    page.wait_for_selector("#preview", state="hidden")
    assert page.locator("#bars li").count() == 0


def test_another_picture_may_follow_a_refused_one(page) -> None:
    drop(page, b"no picture", "a.txt", "text/plain")
    page.wait_for_selector("#error:visible")
    drop(page, cat_photo())
    assert len(bars(page)) == 5
    assert page.is_hidden("#error")


def test_the_keyboard_is_enough(page) -> None:
    page.focus("#labels")
    page.keyboard.type("猫，狗")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "go"
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error").startswith("还没有图片")
    with page.expect_file_chooser() as chooser:
        page.press("#choose", "Enter")
    chooser.value.set_files({"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": cat_photo()})
    assert bars(page)[0][0] == "猫"


def test_the_tab_key_leads_through_everything_and_out(page) -> None:
    focused = []
    for _ in range(6):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.href"))
    assert focused == ["choose", "camera", "bank", "labels", "go", f"{page.url}docs"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")


@pytest.mark.parametrize("kind", ["script", "style"])
def test_nothing_that_is_put_into_the_page_takes_effect(page, kind: str) -> None:
    put = "(kind) => document.body.append(Object.assign(document.createElement(kind), "
    page.evaluate(put + "{ textContent: 'window.taken = true' }))", kind)
    page.wait_for_timeout(100)
    assert page.evaluate("window.taken") is None
    assert "CSP inline" in page.wrongs
    page.wrongs.clear()  # the rule was to be broken


def test_every_field_has_a_name(page) -> None:
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, textarea, input:not([hidden])')]"
        ".filter((field) => !field.labels.length).map((field) => field.id)"
    )
    assert unnamed == []


def test_a_phone_needs_no_scrolling_to_the_side(browser, gateway) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        tab = watched(context.new_page(), gateway.url)
        tab.goto(gateway.url)
        drop(tab, cat_photo())
        assert len(bars(tab)) == 5
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.wrongs == []


def test_a_key_is_asked_for_where_it_is_needed(
    browser, server, start_gateway, tmp_path: Path
) -> None:
    _, token = create_key(tmp_path / "keys.json", "page", ("recognise",))
    with (
        start_gateway(server.url, "--keys-file", str(tmp_path / "keys.json")) as gateway,
        browser.new_context() as context,
    ):
        tab = watched(context.new_page(), gateway.url)
        tab.goto(gateway.url)
        tab.wait_for_selector("#key:visible")
        assert "没有收到凭据" in tab.inner_text("#error")
        tab.fill("#key", token)
        drop(tab, cat_photo())
        assert len(bars(tab)) == 5
        tab.reload()  # the tab keeps the key
        tab.wait_for_selector("#bank option", state="attached")
        assert tab.wrongs == []


def test_the_description_needs_no_other_host(browser, gateway) -> None:
    with browser.new_context() as context:
        tab = watched(context.new_page(), gateway.url)
        tab.goto(f"{gateway.url}/docs")
        tab.wait_for_selector("#operations-recognise-predict")
        assert [each.inner_text() for each in tab.locator(".opblock-summary-path").all()] == [
            *("/predict", "/v1/recognize", "/v1/embed", "/v1/banks", "/v1/banks/{name}/labels"),
            *("/healthz", "/readyz", "/metrics"),
        ]
        tab.click("#operations-recognise-recognize button")
        tab.wait_for_selector("text=Name what pictures show")
        assert tab.wrongs == []
