"""The page, in a real browser."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.serving import server_options
from support.tokens import Issuer, tokens_of
from wanwu.contract import Calibration
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.gateway.keys import create_key
from wanwu.gateway.routes import STATIC
from wanwu.samples import cat_photo

LABELS = "猫，狗、火锅\n高铁站"
PHONE = {"width": 390, "height": 844}
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


@contextmanager
def opened(browser: Any, url: str, *, locale: str = "zh-CN", **options: Any) -> Iterator[Any]:
    """Open a tab on a page. No rule of it is broken, nothing fails, no other host is asked."""
    with browser.new_context(locale=locale, **options) as context:
        tab = watched(context.new_page(), url)
        tab.goto(url)
        tab.wait_for_selector("#bank option, #access:visible", state="attached")
        yield tab
        assert tab.wrongs == []


@pytest.fixture
def page(browser: Any, gateway: Any) -> Iterator[Any]:
    with opened(browser, gateway.url) as tab:
        yield tab


@pytest.fixture
def english_page(browser: Any, gateway: Any) -> Iterator[Any]:
    with opened(browser, gateway.url, locale="en-GB") as tab:
        yield tab


@pytest.fixture
def phone(browser: Any, gateway: Any) -> Iterator[Any]:
    with opened(browser, gateway.url, viewport=PHONE, reduced_motion="reduce") as tab:
        yield tab


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


def choose(tab: Any, *images: bytes) -> None:
    named = {"mimeType": "image/jpeg"}
    tab.set_input_files(
        "#file", [{"name": f"{n}.jpg", "buffer": each, **named} for n, each in enumerate(images)]
    )


def answered(tab: Any, count: int = 1) -> Any:
    """Wait for the answers to all images; return their cards."""
    tab.wait_for_selector(f"#cards > li:not(.waiting) >> nth={count - 1}")
    assert tab.locator("#cards .waiting").count() == 0
    return tab.locator("#cards > li")


def bars(tab: Any) -> list[tuple[str, float]]:
    return [
        (
            item.locator("span").nth(0).inner_text(),
            float(item.locator("progress").get_attribute("value") or 0),
        )
        for item in answered(tab).locator(".bars li").all()
    ]


def verdict(tab: Any) -> str:
    return str(answered(tab).locator("h3").inner_text())


def test_a_dropped_image_is_named_by_typed_labels(page) -> None:
    page.fill("#labels", LABELS)
    drop(page, cat_photo())
    found = bars(page)
    assert found[0][0] == "猫"
    assert found[0][1] > 0.9
    assert {name for name, _ in found} == {"猫", "狗", "火锅", "高铁站"}
    assert re.fullmatch(r"wanwu-starter，\d+ 毫秒", page.inner_text("#cards .note"))


@pytest.mark.parametrize("labels", ["猫，狗，\n", '["猫", "狗"]'])
def test_labels_are_typed_as_they_come(page, labels: str) -> None:
    page.fill("#labels", labels)
    drop(page, cat_photo())
    assert [name for name, _ in bars(page)] == ["猫", "狗"]


def test_the_best_of_offered_labels_is_only_the_closest(page) -> None:
    page.fill("#labels", "狗，火锅")  # and the image shows a cat
    drop(page, cat_photo())
    assert verdict(page) == "最接近：狗"


@pytest.fixture(scope="module")
def rejecting(starter: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose contract says from which cosine on a label is right."""
    from wanwu_export.banks import built_in_plans
    from wanwu_export.publish import publish

    folder = tmp_path_factory.mktemp("rejecting") / "model_repository"
    with pytest.MonkeyPatch.context() as patch:
        calibrated = Calibration(reject_cosine=0.3)
        patch.setattr("wanwu_export.publish.Calibration", lambda: calibrated)
        publish(starter, built_in_plans(), folder, step=lambda text: None)
    options = server_options(folder, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as running:
        yield running


def test_a_label_alone_is_said_where_the_model_could_have_rejected_it(
    browser, rejecting, start_gateway
) -> None:
    with start_gateway(rejecting.url) as gateway, opened(browser, gateway.url) as tab:
        tab.fill("#labels", LABELS)
        drop(tab, cat_photo())
        assert verdict(tab) == "猫"
        tab.fill("#labels", "猫，虎斑猫，波斯猫")  # none has most of the score
        tab.click("#go")
        tab.wait_for_selector("h3:text('最接近')")
        tab.fill("#labels", "火锅，高铁站")
        tab.click("#go")
        tab.wait_for_selector("h3:text-is('不确定')")


def test_what_makes_an_answer_doubtful_is_shown(page) -> None:
    page.fill("#labels", "高铁站")
    drop(page, cat_photo())
    assert verdict(page) == "不确定"
    assert page.inner_text(".warnings li").startswith("只有一个标签时")
    page.fill("#labels", "猫，狗")
    page.click("#go")
    page.wait_for_selector("h3:text('最接近')")
    assert page.is_hidden(".warnings")


def test_the_number_of_labels_and_the_lowest_score_can_be_chosen(page) -> None:
    page.click("summary:text('更多选项')")
    page.fill("#top-k", "2")
    drop(page, cat_photo())
    assert len(bars(page)) == 2
    page.fill("#threshold", "0.99")
    page.click("#go")
    page.wait_for_selector("h3:text-is('不确定')")
    assert page.inner_text(".warnings li").startswith("没有足够合适的标签")
    page.fill("#top-k", "two")
    page.click("#go")
    assert "top_k" in page.inner_text("#error:visible")


def test_a_chosen_image_is_named_by_a_bank(page, recognizer) -> None:
    page.select_option("#bank", "seed18")
    choose(page, cat_photo())
    expected = recognizer.recognize(cat_photo(), bank="seed18").predictions
    assert [name for name, _ in bars(page)] == [each.label for each in expected]


def test_the_contents_of_a_bank_can_be_seen(page, recognizer) -> None:
    page.click("#bank-details summary")
    page.select_option("#bank", "seed18")
    expected = "、".join(recognizer.labels("seed18"))
    page.wait_for_selector(f"#bank-labels:text-is('{expected}')")


def test_several_images_have_an_answer_each(page) -> None:
    page.fill("#labels", LABELS)
    choose(page, cat_photo(), b"no image", (STATIC.parents[1] / "data/coffee.jpg").read_bytes())
    cards = answered(page, 3)
    assert cards.nth(0).locator("h3").inner_text() == "最接近：猫"
    assert cards.nth(1).locator(".wrong").inner_text().startswith("这不是可读取的图片：")
    assert cards.nth(2).locator(".bars li").count() == 4
    page.wait_for_selector("#status:text('共 3 张图片')")


@pytest.mark.parametrize(("name", "label"), [("猫", "埃及猫"), ("咖啡", "浓缩咖啡")])
def test_a_sample_can_be_tried(page, name: str, label: str) -> None:
    page.click(f"button:has(img[alt='示例：{name}'])")
    assert verdict(page) == f"最接近：{label}"


def test_what_cannot_be_fetched_is_said(page) -> None:
    page.context.set_offline(True)
    for what in ("#samples button >> nth=0", "#bank-details summary"):
        page.click(what)
        page.wait_for_selector("#error:text('无法连接服务')")
        page.evaluate("hideErrors()")


def test_an_image_may_be_pasted(page) -> None:
    page.fill("#labels", LABELS)
    page.evaluate(PASTE, [base64.b64encode(cat_photo()).decode()])
    assert bars(page)[0][0] == "猫"


def test_an_image_may_be_taken(page) -> None:
    page.click("#camera")
    page.click("#shoot")
    assert len(bars(page)) == 5
    assert page.is_hidden("#viewfinder")
    assert page.is_visible("#camera")


def test_a_camera_may_be_left(page) -> None:
    page.click("#camera")
    page.click("#cancel")
    assert page.is_hidden("#viewfinder")
    assert page.inner_text("#status").startswith("还没有图片。")


def test_another_image_may_follow_a_refused_one(page) -> None:
    drop(page, b"no image", "a.txt", "text/plain")
    assert answered(page).locator("img").count() == 0
    drop(page, cat_photo())
    page.wait_for_selector(".bars")
    assert len(bars(page)) == 5


def test_the_keyboard_is_enough(page) -> None:
    page.focus("#labels")
    page.keyboard.type("猫，狗")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "go"
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error").startswith("还没有图片")
    with page.expect_file_chooser() as chooser:
        page.press("#choose", "Enter")
    chooser.value.set_files({"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": cat_photo()})
    assert bars(page)[0][0] == "猫"
    assert page.is_hidden("#error")


def test_the_tab_key_leads_through_everything_and_out(page) -> None:
    focused = []
    for _ in range(11):
        page.keyboard.press("Tab")
        focused.append(
            page.evaluate("((e) => e.id || e.href || e.tagName)(document.activeElement)")
        )
    assert focused == [
        *("language", "choose", "camera", "BUTTON", "BUTTON", "bank", "SUMMARY", "labels"),
        *("SUMMARY", "go", f"{page.url}docs"),
    ]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")


def test_a_reader_of_english_has_english(english_page) -> None:
    english_page.fill("#labels", "猫")
    drop(english_page, cat_photo())
    assert verdict(english_page) == "Uncertain"
    assert english_page.inner_text(".warnings li").startswith("one label alone")
    english_page.fill("#labels", LABELS)
    english_page.click("#go")
    english_page.wait_for_selector("h3:text-is('Closest to: 猫')")
    assert english_page.get_attribute("html", "lang") == "en"


def test_the_language_is_switched_and_remembered(english_page) -> None:
    english_page.click("#language")
    assert english_page.inner_text("#go") == "识别"
    assert english_page.get_attribute("html", "lang") == "zh-CN"
    english_page.reload()
    english_page.wait_for_selector("#bank option", state="attached")
    assert english_page.inner_text("#go") == "识别"
    assert "个标签" in english_page.inner_text("#bank")


def test_an_answer_is_given_again_in_the_other_language(page) -> None:
    page.fill("#labels", "猫")
    drop(page, cat_photo())
    assert verdict(page) == "不确定"
    page.click("#language")
    page.wait_for_selector("h3:text-is('Uncertain')")
    assert page.inner_text(".warnings li").startswith("one label alone")


def test_every_text_is_there_in_english_and_no_other(page) -> None:
    named = re.findall(r"\bt\(\s*\"([^\"]+)\"", (STATIC / "page.js").read_text())
    in_page = page.evaluate("[...document.querySelectorAll('[data-t]')].map((e) => e.dataset.zh)")
    assert set(page.evaluate("Object.keys(ENGLISH)")) == {*named, *in_page}


@pytest.mark.parametrize("kind", ["script", "style"])
def test_nothing_that_is_put_into_the_page_takes_effect(page, kind: str) -> None:
    put = "(kind) => document.body.append(Object.assign(document.createElement(kind), "
    page.evaluate(put + "{ textContent: 'window.taken = true' }))", kind)
    page.wait_for_timeout(100)
    assert page.evaluate("window.taken") is None
    assert "CSP inline" in page.wrongs
    page.wrongs.clear()  # the rule was to be broken


def violations(tab: Any) -> list[tuple[str, list[str]]]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, gateway, locale: str, scheme: str) -> None:
    with opened(browser, gateway.url, locale=locale, color_scheme=scheme, viewport=PHONE) as tab:
        assert violations(tab) == []
        tab.fill("#labels", "猫")
        choose(tab, cat_photo(), b"no image")
        answered(tab, 2)
        for summary in tab.locator("summary").all():
            summary.click()
        tab.wait_for_selector("#bank-labels:has-text('浓缩咖啡')")
        assert violations(tab) == []


def test_on_a_phone_the_answer_comes_into_sight(phone) -> None:
    choose(phone, cat_photo(), cat_photo(), cat_photo())
    first = answered(phone, 3).nth(0)
    for part in ("h3", ".bars li >> nth=0"):
        box = first.locator(part).bounding_box()
        seen = phone.evaluate("[scrollY, scrollY + innerHeight]")
        assert 0 <= box["y"] < PHONE["height"] / 2, (part, box, seen)
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_on_a_phone_what_went_wrong_comes_into_sight(phone) -> None:
    phone.click("#go")
    box = phone.locator("#error").bounding_box()
    assert 0 <= box["y"] < PHONE["height"] - box["height"]


def run(code: str, tool: str, folder: Path, **environment: str) -> Any:
    """Run code that the page shows, beside the image that it names."""
    command = ["bash", "-c", code] if tool == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def shown(tab: Any, title: str) -> str:
    tab.locator("#cards summary").first.click()
    return str(tab.locator(f"h4:text-is('{title}') + pre").first.text_content())


@pytest.mark.parametrize("tool", ["curl", "Python"])
def test_the_request_is_shown_as_code_that_answers_the_same(
    browser, server, start_gateway, tmp_path: Path, tool: str
) -> None:
    name = 'it\'s a "cat"; one,two.jpg'
    (tmp_path / name).write_bytes(cat_photo())
    with (
        start_gateway(server.url, ROOT_PATH="/vision") as gateway,
        opened(browser, f"{gateway.url}/vision/") as tab,
    ):
        tab.fill("#labels", "猫，it's；@狗")
        tab.evaluate("at('threshold').value = '0.001'")
        drop(tab, cat_photo(), name)
        answered(tab)
        code = shown(tab, tool)
        assert f"{gateway.url}/vision/v1/recognize" in code
        expected = json.loads(tab.locator("pre").last.text_content())
        found = run(code, tool, tmp_path)
    assert found["results"][0]["predictions"] == expected["results"][0]["predictions"]


@contextmanager
def with_access(browser: Any, server: Any, start_gateway: Any, folder: Path) -> Iterator[Any]:
    """Open a page that needs a key or a token; yield the tab, a key and a token."""
    _, key = create_key(folder / "keys.json", "page", ("recognise",))
    issuer = Issuer()
    (folder / "jwks.json").write_bytes(issuer.key_set())
    options = ("--keys-file", str(folder / "keys.json"), *tokens_of(folder / "jwks.json"))
    with (
        start_gateway(server.url, *options) as gateway,
        opened(browser, gateway.url) as tab,
    ):
        yield tab, key, issuer.token()


def test_first_use_asks_for_a_key_in_words_for_people(
    browser, server, start_gateway, tmp_path: Path
) -> None:
    with with_access(browser, server, start_gateway, tmp_path) as (tab, _, _):
        assert tab.inner_text("#status") == "请先填写访问凭据。"
        assert "管理员" in tab.inner_text("#key-note")
        assert "X-API-Key" not in tab.inner_text("body")
        assert tab.is_hidden("#error")
        assert tab.is_hidden("#access-error")
        for wrong in ("wanwu_wrong", "a.b.c", "密钥"):
            tab.fill("#key", wrong)
            tab.press("#key", "Enter")
            tab.wait_for_selector("#access-error:visible")
            assert "X-API-Key" not in tab.inner_text("body")
        assert violations(tab) == []


@pytest.mark.parametrize("kind", ["key", "token", "Bearer token"])
def test_a_key_or_a_token_opens_the_service(
    browser, server, start_gateway, tmp_path: Path, kind: str
) -> None:
    with with_access(browser, server, start_gateway, tmp_path) as (tab, key, token):
        tab.fill("#key", {"key": key, "token": token, "Bearer token": f"Bearer {token}"}[kind])
        tab.click("#access button")
        tab.wait_for_selector("#bank option", state="attached")
        drop(tab, cat_photo())
        assert len(bars(tab)) == 5
        tab.reload()  # the tab keeps it
        tab.wait_for_selector("#bank option", state="attached")
        assert tab.evaluate("Object.keys(localStorage)") == []


@pytest.mark.parametrize("tool", ["curl", "Python"])
def test_code_reads_the_credential_from_the_environment(
    browser, server, start_gateway, tmp_path: Path, tool: str
) -> None:
    (tmp_path / "cat.jpg").write_bytes(cat_photo())
    with with_access(browser, server, start_gateway, tmp_path) as (tab, key, token):
        for secret in (key, token):
            tab.fill("#key", secret)
            drop(tab, cat_photo())
            answered(tab)
            code = shown(tab, tool)
            assert secret not in code
            assert len(run(code, tool, tmp_path, WANWU_KEY=secret)["results"]) == 1


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
