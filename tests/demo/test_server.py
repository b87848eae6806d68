"""The demo as a process of its own: its API by a client in another process, what it refuses, and how it ends."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError

import httpx
import pytest
from jinja2 import Template
from PIL import Image

from blip2vqa import load
from blip2vqa.demo.server import is_loopback
from helpers.browser import browser, needs_browser, serious_faults
from helpers.caption_adapters import BASE, SCENES
from helpers.demo_server import by_client
from helpers.demo_walk import PHOTO, User, expect
from helpers.doc_pages import blocks
from helpers.paths import ROOT

PICTURES = [str(SCENES / f"val-00{number}.png") for number in range(4)]
QUESTIONS = ("how many shapes are there?", "what color is the circle?", "is there a square?")


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read()


def post(url: str, data: object) -> bytes:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def test_health_names_what_is_loaded(demo):
    assert json.loads(get(f"{demo.url}/health")) == {
        "status": "ok", "base_model": "tiny-blip2-opt", "models": ["base", "one", "two"],
    }  # fmt: skip


def test_users_at_once_get_the_answers_of_single_calls(demo, two_adapters):
    asked = [
        (
            PICTURES[number % 4],
            QUESTIONS[number % 3],
            [["base"], ["one"], ["two", "base"], ["base", "one", "two"]][number % 4],
        )
        for number in range(8)
    ]
    code = (
        "def ask(one):\n    return client.predict(handle_file(one[0]), one[1], one[2], api_name='/answer')\n"
        "with ThreadPoolExecutor(8) as pool:\n    result = list(pool.map(ask, asked))"
    )
    found = by_client(demo.url, code, asked=asked)
    model = load(BASE, adapters=two_adapters, dtype="float32")
    grey = Image.new("RGB", (8, 8), (128, 128, 128))
    for (picture, question, names), said in zip(asked, found, strict=True):
        assert said["error"] is None and [row["adapter"] for row in said["answers"]] == names
        for row in said["answers"]:
            adapter = None if row["adapter"] == "base" else row["adapter"]
            alone = model.answer_batch([picture, None, grey], [question] * 3, 1, adapters=[adapter] * 3)
            assert [row[what] for what in ("answer", "without_picture", "grey_picture")] == [one.text for one in alone]
            assert row["confidence"] == pytest.approx(alone[0].confidence, rel=1e-4)
    assert len({json.dumps(said) for said in found}) > 4  # they are not all the same


def test_every_endpoint_by_a_client(demo, two_adapters, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    code = """
def answer(path, question, models):
    return client.predict(handle_file(path), question, models, api_name='/answer')['error']
result = {
    'errors': [answer(broken, 'what?', ['base']), answer(large, 'what?', ['base']), answer(picture, ' ', ['base']),
        answer(picture, 'what?', ['nobody']), answer(picture, 'what? ' * 150, ['base']), answer(picture, 'what?', [])],
    'caption': client.predict(handle_file(picture), ['concise', 'detailed'], api_name='/caption'),
    'chat': client.predict(handle_file(picture), 'what?', 'one', [['how?', 'so']], api_name='/chat'),
    'bad history': client.predict(handle_file(picture), 'what?', 'one', [['how?']], api_name='/chat'),
    'check': client.predict('one', api_name='/check_adapter'),
    'added': client.predict(path, 'three', api_name='/add_adapter'),
    'again': client.predict(path, 'three', api_name='/add_adapter'),
    'not there': client.predict('./absent', '', api_name='/add_adapter'),
    'asked': client.predict(handle_file(picture), 'what?', ['three', 'two'], api_name='/answer'),
    'dropped': client.predict('three', api_name='/drop_adapter'),
    'base': client.predict('base', api_name='/drop_adapter'),
    'adapters': client.predict(api_name='/adapters'),
}
"""
    files = {"broken": str(tmp_path / "broken.png"), "large": str(tmp_path / "large.png"), "picture": PICTURES[0]}
    result = by_client(demo.url, code, path=two_adapters["two"], **files)
    broken, large, empty, nobody, long, none = result["errors"]
    assert broken == "This file is no picture that can be used: not an image, or of a format not read here"
    assert large.startswith("This file is no picture that can be used: 9000×9000 pixels, more than 50,000,000")
    assert empty == "No question: write one" and none == "No model: choose the base or an adapter"
    assert nobody == "adapter nobody: is not loaded; there is one, two" and "positions; shorten it" in long
    assert list(result["caption"]["captions"]) == ["concise", "detailed"] and result["caption"]["error"] is None
    assert result["chat"]["history"] == [["how?", "so"], ["what?", result["chat"]["answer"]]]
    assert result["chat"]["turns_in_prompt"] == 0  # OPT answers single questions
    assert result["bad history"]["error"] == "history: is no list of [question, answer]"
    assert result["check"]["verdict"] in ("ok", "convertible") and result["check"]["reasons"]
    assert result["added"] == {"models": ["base", "one", "two", "three"], "error": None}
    assert "there is one called three" in result["again"]["error"] and "absent" in result["not there"]["error"]
    three, two = result["asked"]["answers"]
    assert {**three, "adapter": ""} == {**two, "adapter": ""}
    assert result["dropped"]["models"] == ["base", "one", "two"] and "stays" in result["base"]["error"]
    one, _ = result["adapters"]["adapters"]
    assert one["facts"]["prompt"] == "Question: {question} Short answer:" and one["facts"]["from"] == "one"


def test_python_of_the_page_about_serving_runs(demo, two_adapters):
    """The client's block of docs/serving.md, with names and files of this test in place of the reader's."""
    block = blocks(ROOT / "docs" / "serving.md", "python")[2]
    own = {"http://127.0.0.1:7860": demo.url, "a.jpg": PICTURES[0], "counting": "one", "OTHER": two_adapters["two"]}
    for name, value in own.items():
        assert f'"{name}"' in block
        block = block.replace(f'"{name}"', repr(value))
    found, captions, said, checked = by_client(demo.url, f"{block}\nresult = [found, captions, said, checked]")
    assert [row["adapter"] for row in found["answers"]] == ["base", "one"] and list(captions) == ["concise"]
    assert len(said["history"]) == 1 and checked["verdict"] in ("ok", "convertible") and checked["error"] is None


def test_template_of_the_page_about_serving_makes_the_prompt():
    (template,) = blocks(ROOT / "docs" / "serving.md", "jinja")
    asked = Template(template.strip()).render(messages=[{"role": "user", "content": QUESTIONS[0]}])
    assert [asked] == load(BASE, dtype="float32").text.fill([QUESTIONS[0]])


def test_no_file_of_the_machine_is_read(demo):
    own = str(ROOT / "README.md")
    for path in ("/etc/passwd", own, "README.md", "../../../../etc/passwd", "..%2f..%2fetc/passwd", str(demo.out)):
        with pytest.raises(HTTPError) as refused:
            get(f"{demo.url}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
    for path in (own, "/etc/passwd", "http://127.0.0.1:9/picture.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for endpoint, data in (
            ("answer", [file, "what?", ["base"]]),
            ("caption", [file, ["concise"]]),
            ("drop_adapter", [file]),
        ):
            with pytest.raises(HTTPError) as refused:
                post(f"{demo.url}/gradio_api/call/{endpoint}", {"data": data})
            assert refused.value.code == 400 and b"was not uploaded" in refused.value.read()
    for body, code in ((b"{", 400), (b" " * 1_000_001, 413)):
        with pytest.raises(HTTPError) as refused:
            post(f"{demo.url}/gradio_api/call/answer", body)
        assert refused.value.code == code


def test_requests_that_cannot_be_read_fail_alone(demo):
    """Each is refused before it shares a batch; those who ask at the same time are answered."""
    with Path(PICTURES[0]).open("rb") as picture:
        (path,) = httpx.post(f"{demo.url}/gradio_api/upload", files={"files": picture}).json()
    mark = {"_type": "gradio.FileData"}
    file, not_marked = {"path": path, "meta": mark}, {"path": path, "meta": 1}
    good = [file, "what?", ["one"]]
    unreadable = [
        ["abc", *good[1:]], [[1], *good[1:]], [{**file, "size": "x"}, *good[1:]], [not_marked, *good[1:]],
        [file, not_marked, ["one"]], [file, "what?", ["\ud800"]], [file, "what?", [10**30]],
    ]  # fmt: skip

    def ask(data: list) -> str:
        try:
            event = json.loads(post(f"{demo.url}/gradio_api/call/answer", {"data": data}))["event_id"]
        except HTTPError as refused:
            return f"{refused.code} {json.load(refused)['detail']}"
        return get(f"{demo.url}/gradio_api/call/answer/{event}").decode()

    asked = [*unreadable, [file, "what?"], [*good, 1], *[good] * 4, [file, {"a": 1}, "one"]]
    with ThreadPoolExecutor(len(asked)) as pool:
        *refused, few, many, one, two, three, four, other = pool.map(ask, asked)
    assert {said.split(";")[0] for said in refused} == {"400 data: holds what cannot be read"}
    assert few == "400 data: holds 2 values; give 3 to answer" and many == "400 data: holds 4 values; give 3 to answer"
    assert all(said.startswith("event: complete") and '"error": null' in said for said in (one, two, three, four))
    assert other.startswith("event: complete") and "No list of names" in other
    for place, data, code in (
        ("run/answer", {"data": good}, 404), ("stream/any", {"data": good}, 404),
        ("queue/join", {"data": good, "fn_index": 1000, "session_hash": "a"}, 400),
    ):  # fmt: skip
        with pytest.raises(HTTPError) as error:
            post(f"{demo.url}/gradio_api/{place}", data)
        assert error.value.code == code


def test_uploads_are_bounded_and_other_hosts_refused(demo):
    large = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + bytes(26_000_000)
        + b"\r\n--b--\r\n"
    )
    request = urllib.request.Request(
        f"{demo.url}/gradio_api/upload", large, {"Content-Type": "multipart/form-data; boundary=b"}
    )
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413
    with pytest.raises(HTTPError) as refused:
        get(f"{demo.url}/health", Host="elsewhere.example")
    assert refused.value.code == 400


def test_page_asks_nothing_from_elsewhere(demo):
    page = get(demo.url).decode()
    assert "fonts.googleapis" not in page and '"analytics_enabled":false' in page.replace(" ", "")


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("192.168.0.7", False)],
)
def test_which_addresses_are_this_machine_alone(host, alone):
    assert is_loopback(host) is alone


@needs_browser
def test_a_user_in_a_browser(demo, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    models = json.loads(get(f"{demo.url}/health"))["models"]
    with browser() as opened:
        for scheme in ("light", "dark"):
            user = User(opened, demo.url, scheme)
            page = user.page
            user.upload(PHOTO / "49264fde.jpg")
            user.ask("What color is it?")
            rows = user.answers()
            assert [row[0] for row in rows] == models and all(row[1] and "%" in row[2] for row in rows)
            user.screenshot("demo")
            user.open_tab("Captions")
            page.locator("#caption").click()
            expect(page.locator("dl.captions dd")).to_have_count(3, timeout=30_000)
            user.screenshot("captions")
            user.open_tab("Chat")
            for count, question in enumerate(("What is it?", "<img src=x onerror=alert(1)>What color is it?"), 1):
                user.chat(question)
                expect(page.locator("#chat").get_by_text(question)).to_be_visible(timeout=30_000)
                expect(page.locator("#chat .bot.message")).to_have_count(count)
            assert page.locator("#chat img[src=x]").count() == 0
            user.screenshot("chat")
            assert user.errors == []
            user.open_tab("Adapters")
            page.locator("#check").click()
            expect(page.locator("#checked .verdict")).to_be_visible(timeout=30_000)
            assert page.locator("#cards details").count() == len(models) - 1
            user.screenshot("adapters", whole=True)
            for tab in ("Captions", "Chat", "Adapters", "Ask"):
                user.open_tab(tab)
                assert serious_faults(page) == []
            user.upload(tmp_path / "broken.png")
            user.ask("What color is it?")
            expect(page.get_by_role("alert")).to_contain_text("no picture that can be used", timeout=30_000)
            user.screenshot("bad-file")
            assert user.elsewhere == []
            page.close()
        page = User(opened, demo.url).page
        page.route("**/queue/join*", lambda asked: asked.fulfill(status=503, json={"detail": "Queue is full."}))
        for tab, button, place in (
            ("Ask", "ask", "answers"), ("Captions", "caption", "captions"), ("Chat", "send", "chat-problem"),
            ("Adapters", "check", "checked"), ("Adapters", "add", "checked"), ("Adapters", "drop", "checked"),
        ):  # fmt: skip
            page.reload()
            page.get_by_role("tab", name=tab).click()
            page.locator(f"#{button}").click()
            expect(page.locator(f"#{place}").get_by_role("alert")).to_contain_text("No answer came", timeout=30_000)


def test_zz_ctrl_c_ends_it_with_the_answers_under_way(demo):
    """The last test of this file, since it ends the process."""
    code = (
        "import os, signal\n"
        "job = client.submit(handle_file(picture), 'how many shapes are there?', ['base', 'one', 'two'], api_name='/answer')\n"
        "import time\nwhile job.status().code.name not in ('PROCESSING', 'FINISHED'): time.sleep(0.005)\n"
        "os.kill(number, signal.SIGINT)\nresult = job.result(timeout=60)"
    )
    result = by_client(demo.url, code, picture=PICTURES[0], number=demo.process.pid)
    assert len(result["answers"]) == 3 and result["error"] is None
    began = time.monotonic()
    demo.process.join(20)
    assert demo.process.exitcode == 0 and time.monotonic() - began < 20
    assert demo.out.read_text().splitlines()[-1] == "Stopped"
