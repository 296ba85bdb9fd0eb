"""The chat in a browser, against scripted engines: what a person sees and does, on a desktop and on a phone."""

import os
import subprocess
import sys

import pytest

from models.engines.base import EngineDead
from tests.page.conftest import PACE, SIZES
from tests.page.site import SETTINGS, STORIES, Story, site

CRATE = "A crate holds 36 apples and 5 are bad. How many good ones are in 12 crates?"
FAILED = "Failed to load resource"  # the browser's word for an answer of 400 or more


@pytest.mark.parametrize("size", SIZES)
def test_a_thought_is_shown_while_it_comes_and_folded_when_the_answer_is_there(visit, slow, size):
    seen = visit(slow.url, size, color_scheme="dark" if size == "phone" else "light")
    seen.route("qwen3")
    seen.ask(CRATE)
    seen.expect(".phase").to_have_text("thinking")
    seen.expect(".thought .text").to_contain_text("So a crate has 36 - 5 = 31 good apples.")
    assert seen.page.locator(".thought").evaluate("each => each.open")
    seen.expect(".thought > summary").to_contain_text("answer in about")
    seen.expect(".chip").to_have_text(["Thinks", "the route's default"])
    early = int(seen.page.locator(".bar").get_attribute("aria-valuenow"))
    assert 0 < early < int(seen.page.locator(".bar").get_attribute("aria-valuemax")) == 400
    seen.answered()
    assert not seen.page.locator(".thought").evaluate("each => each.open")
    used = int(seen.page.locator(".bar").get_attribute("aria-valuenow"))
    assert used > early
    seen.expect(".thought > summary").to_contain_text(f"{used} tokens · budget {used} of 400")
    seen.expect(".answer table td").to_have_text(["1", "31", "12", "372"])
    seen.expect(".answer strong").to_have_text("31")
    seen.expect(".answer math").to_have_count(3)
    seen.expect(".answer math[display=block]").to_have_count(1)
    seen.expect(".answer pre").to_have_text("print(12 * (36 - 5))  # 372")
    seen.expect(".figures").to_contain_text(f"{used} thinking + ")
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def test_the_decision_is_told_in_words(visit, quick):
    seen = visit(quick.url)
    seen.route("threshold")
    seen.ask(CRATE)
    seen.answered()
    rows = seen.rows()
    assert rows["Mode"] == "thinking: by the model's probability"
    assert rows["P(think)"] == "0.930 ≥ 0.5, the threshold"
    seen.ask("Hello?")
    seen.answered()
    assert seen.rows(1)["P(think)"] == "0.080 < 0.5, the threshold"
    seen.expect(".reply:has(.thought[hidden]) .chip >> nth=0").to_have_text("Answered at once")


def test_a_decider_is_told_with_its_cost(visit, quick):
    seen = visit(quick.url)
    seen.route("asked")
    seen.ask(CRATE)
    seen.answered()
    rows = seen.rows()
    assert rows["Mode"] == "thinking: the model was asked whether it needs to"
    assert (rows["P(think)"], rows["The decision cost"]) == ("0.930 ≥ 0.5, the threshold", "1 token")


def test_a_budget_cuts_the_thought_and_the_page_says_how_and_why(visit, quick):
    seen = visit(quick.url)
    seen.route("hybrid")
    seen.page.get_by_label("Effort or budget of thinking").select_option("tokens")
    seen.page.get_by_label("Budget in tokens").fill("60")
    seen.ask(CRATE)
    seen.answered()
    rows = seen.rows()
    assert rows["Budget"].startswith("asked for 60, enforced 60, used ")
    assert rows["Cut"] == "at a line's end: the budget was used up"
    assert seen.bodies[0]["reasond"] == {"budget": 60}


def test_answer_now_ends_the_thought_and_stop_the_reply(visit, slow):
    seen = visit(slow.url)
    seen.route("hybrid")
    seen.ask("A long one, please")
    seen.expect(".thought .text").to_contain_text("step 3")
    seen.page.click("text=Answer now")
    seen.answered()
    seen.expect(".answer").to_contain_text("Done.")
    assert seen.rows()["Cut"].endswith("you asked for the answer")
    seen.page.locator(".thought > summary").click()
    seen.expect(".forced").to_contain_text("Considering the limited time")
    seen.ask("A long one, please")
    seen.expect(".reply >> nth=1").to_contain_text("step 3")
    seen.page.locator(".actions").get_by_role("button", name="Stop").last.click()
    seen.answered()
    seen.expect(".phase >> nth=1").to_have_text("stopped")
    seen.expect(".reply >> nth=1").to_contain_text("step 3")
    assert not slow.engines["model"].running()


def test_the_targets_stretches_have_a_colour_and_a_share(visit, quick):
    seen = visit(quick.url)
    seen.route("guided")
    seen.ask(CRATE)
    seen.answered()
    seen.page.locator(".thought > summary").click()
    stretch = seen.page.locator(".thought .target")
    assert stretch.text_content() == "Every crate has 31 good ones, then."
    plain = seen.page.locator(".thought .text span:not([class*=target])").first
    background = "each => getComputedStyle(each).backgroundColor"
    assert stretch.evaluate(background) != plain.evaluate(background)
    rows = seen.rows()
    assert rows["Takeovers"] == "1 × reflection"
    tokens, share = rows["Target"].removesuffix(" of the reply").split(", ")
    assert tokens == "19 tokens"
    seen.expect(".legend").to_have_text(f"by the target model {share} of the tokens")


def test_best_of_n_shows_its_bracket_and_a_judge_its_votes(visit, slow):
    seen = visit(slow.url)
    seen.route("best")
    seen.ask("Say a large number")
    seen.expect(".phase").to_contain_text("drawn")
    seen.answered()
    rows = seen.rows()
    assert rows["Bracket"].count(" : ") == 3 and "won; judge judged" in rows["Bracket"]
    seen.expect(".bracket ol").to_have_count(2)
    assert int(rows["The judge wrote"].removesuffix(" tokens")) > 0
    seen.page.click("#new")
    seen.route("judge")
    seen.page.fill("#first", "12")
    seen.page.fill("#second", "47")
    seen.ask("Which is larger?")
    seen.answered()
    assert seen.rows()["Votes"] == "reply B by 0 to 2, of 3 votes"
    seen.expect(".answer").to_contain_text("[[B]]")


def test_settings_stand_side_by_side_with_tokens_and_seconds_under_each(visit, quick):
    seen = visit(quick.url)
    seen.route("threshold")
    seen.page.click("#presets >> text=Modes")
    seen.ask(CRATE)
    seen.answered()
    seen.expect(".reply").to_have_count(3)
    seen.expect(".reply > header .words").to_have_text(
        ["threshold · don't think", "threshold · auto", "threshold · think"]
    )
    assert [body.get("reasond") for body in seen.bodies] == [{"mode": mode} for mode in ("no_think", "auto", "think")]
    for figures in seen.page.locator(".figures").all_inner_texts():
        assert "tokens" in figures and figures.count(" s") >= 1
    seen.page.click("#add")
    seen.ask("Hello again")
    seen.answered()
    assert [len(body["messages"]) for body in seen.bodies[3:]] == [3, 3, 3, 3]
    assert seen.bodies[3]["messages"][1]["role"] == "assistant"
    seen.expect("#add").to_be_disabled()
    seen.page.click("text=One only")
    seen.expect("#columns > details").to_have_count(1)


def test_a_request_can_be_copied_and_runs_as_it_stands(visit, quick):
    seen = visit(quick.url)
    seen.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.route("hybrid")
    seen.page.get_by_text("Think", exact=True).click()
    seen.page.get_by_label("Effort or budget of thinking").select_option("low")
    seen.ask("It's a crate: \"what's 12\"?\nOr <b>not</b> \\n?")
    seen.answered()
    copied = {}
    for name in ("curl", "Python"):
        seen.page.click(f"text=as {name}")
        seen.page.click("#copy")
        seen.expect("#copied").to_have_text("Copied.")
        copied[name] = seen.page.evaluate("navigator.clipboard.readText()")
        seen.page.click("dialog >> text=Close")
    quiet = {**os.environ, "NO_PROXY": "*"}
    curl = subprocess.run(["bash", "-c", copied["curl"]], capture_output=True, text=True, env=quiet, timeout=60)
    assert '"reasond":{"mode":"think","chosen_by":"client"' in curl.stdout, copied["curl"] + curl.stderr
    python = subprocess.run([sys.executable, "-c", copied["Python"]], capture_output=True, text=True, env=quiet)
    assert "'enforced': 16" in python.stdout, copied["Python"] + python.stderr


def test_a_conversation_survives_a_reload_and_goes_on(visit, slow):
    seen = visit(slow.url)
    seen.route("threshold")
    seen.ask("Hello!")
    seen.answered()
    seen.ask("A long one")
    seen.expect(".thought .text >> nth=1").to_contain_text("step 3")
    seen.page.reload()
    seen.expect(".question").to_have_text(["Hello!", "A long one"])
    seen.expect(".answer >> nth=0").to_contain_text("Hello! I am a model")
    seen.expect(".error >> nth=2").to_have_text("The page was left before the reply was complete.")
    seen.expect(".thought .text >> nth=1").to_contain_text("step 3")
    assert seen.page.get_by_label("Route", exact=True).input_value() == "threshold"
    seen.page.click("#new")
    seen.expect(".turn").to_have_count(0)
    seen.page.reload()
    seen.expect(".welcome").to_be_visible()


def test_html_and_scripts_in_an_answer_are_text(visit, quick):
    seen = visit(quick.url)
    seen.route("hybrid")
    seen.ask("Something hostile <img src=x onerror='window.pwned = 9'>")
    seen.answered()
    seen.expect(".answer").to_contain_text("<script>window.pwned = 1</script>")
    seen.expect(".question").to_contain_text("<img src=x")
    assert seen.page.locator(".reply").locator("script, img, svg, iframe, style, form, input").count() == 0
    links = seen.page.locator(".answer a").evaluate_all("all => all.map((each) => each.getAttribute('href'))")
    assert links == [None, "http://foreign.example/x.png"]
    assert seen.page.evaluate("window.pwned ?? null") is None


def test_a_stream_that_breaks_off_is_told_in_words_and_can_be_tried_again(visit, tokenizer):
    stories = {**STORIES, "fails": Story("This goes well until it", "", error=EngineDead("gone"))}
    with site(tokenizer, stories=stories) as here:
        seen = visit(here.url, expected=(FAILED,))
        seen.route("hybrid")
        seen.ask("This fails")
        seen.answered()
        seen.expect(".reply .error").to_have_text("The model's engine is down. Other routes may still answer.")
        seen.expect(".thought .text").to_contain_text("This goes well until it")
        stories["fails"] = Story("This goes well", "Indeed.")
        seen.page.click("text=Try again")
        seen.answered()
        seen.expect(".reply").to_have_count(1)
        seen.expect(".answer").to_have_text("Indeed.")
    seen.ask("Hello?")
    seen.expect(".reply .error >> nth=1").to_have_text("The server cannot be reached.")


def test_a_refused_setting_is_told_in_the_servers_words(visit, quick):
    seen = visit(quick.url, expected=(FAILED,))
    seen.ask(20_000 * "crate ")
    seen.answered()
    seen.expect(".reply .error").to_contain_text("tokens")


def test_a_server_with_keys_asks_for_one_and_takes_it(visit, tokenizer, monkeypatch):
    monkeypatch.setenv("REASOND_API_KEYS", "rsk-right")
    with site(tokenizer) as here:
        seen = visit(here.url, expected=(FAILED,))
        seen.expect("#problem").to_contain_text("This server asks for an API key")
        seen.expect("#key").to_be_focused()
        for key in ("rsk-wrong", "rsk-right"):
            seen.page.fill("#key", key)
            seen.page.press("#key", "Enter")
        seen.route("hybrid")
        seen.ask("Hello!")
        seen.answered()
        seen.expect(".answer").to_contain_text("Hello! I am")
        seen.page.click("text=as curl")
        seen.expect("dialog pre").to_contain_text("authorization: Bearer $REASOND_KEY")
        assert "rsk-right" not in seen.page.content()
        seen.page.reload()
        seen.expect("#problem").to_be_hidden()
        assert "rsk-right" not in seen.page.evaluate("JSON.stringify({ ...localStorage })")


def test_a_route_has_only_the_controls_that_it_can_honour(visit, quick):
    seen = visit(quick.url)
    labels = {
        "hybrid": ["Route", "Mode", "Think from a probability of", "Effort or budget of thinking"],
        "qwen3": ["Route", "Mode", "Effort or budget of thinking"],
        "asked": ["Route", "Mode", "Think from a probability of", "Effort or budget of thinking"],
        "declares": ["Route", "Effort or budget of the whole reply"],
        "plain": ["Route"],
        "guided": ["Route", "Mode", "Effort or budget of thinking", "The target model takes over"],
        "best": [
            "Route",
            "Mode",
            "Think from a probability of",
            "Effort or budget of thinking",
            "Best of how many replies",
        ],
    }
    for route, expected in labels.items():
        seen.route(route)
        shown = seen.page.locator("#columns .card > .field > :is(label, legend)").all_inner_texts()
        assert shown == expected, route


def test_everything_can_be_done_with_the_keyboard(visit, slow):
    seen = visit(slow.url)
    seen.expect("#question").to_be_focused()
    seen.settings()
    press = seen.page.keyboard.press

    def tab_to(selector: str, key: str = "Tab") -> None:
        for _ in range(40):
            if seen.page.locator(selector).first.evaluate("each => each === document.activeElement"):
                return
            press(key)
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#columns select", "Shift+Tab")
    press("t")  # the route that begins with it: threshold
    seen.expect("#columns select >> nth=0").to_be_focused()
    assert seen.page.locator("#columns select").first.input_value() == "threshold"
    tab_to("#columns input[type=radio]:checked")
    press("ArrowDown")
    press("ArrowDown")
    seen.expect("input[value=think]").to_be_focused()
    tab_to("#question")
    seen.page.keyboard.type("A long one")
    press("Shift+Enter")
    seen.page.keyboard.type("in two lines")
    press("Enter")
    seen.expect(".question").to_have_text("A long one\nin two lines")
    seen.expect(".thought .text").to_contain_text("step 3")
    tab_to(".actions button", "Shift+Tab")
    press("Enter")
    seen.answered()
    tab_to(".thought > summary")
    press("Space")
    assert seen.page.locator(".thought").evaluate("each => each.open")
    tab_to(".decision > summary")
    press("Enter")
    seen.expect("dl").to_contain_text("you asked for the answer")
    tab_to(".copies button")
    press("Enter")
    seen.expect("dialog").to_be_visible()
    press("Escape")
    seen.expect("dialog").to_be_hidden()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "light"),
        *(
            pytest.param(*each, marks=pytest.mark.accept)
            for each in (("desktop", "dark"), ("phone", "light"), ("phone", "dark"))
        ),
    ],
)
def test_axe_finds_nothing_serious(visit, quick, size, scheme):
    seen = visit(quick.url, size, color_scheme=scheme)
    seen.route("guided")
    seen.page.click("#presets >> text=Small and target")
    assert seen.findings() == []
    seen.ask(CRATE)
    seen.answered()
    for summary in seen.page.locator(".reply summary:visible").all():
        summary.click()
    assert seen.findings() == []
    status = visit(quick.url, size, "/status", color_scheme=scheme)
    status.expect("#routes tbody tr").to_have_count(10)
    assert status.findings() == []


def test_the_status_is_what_the_metrics_say(visit, slow):
    seen = visit(slow.url)
    status = visit(slow.url, path="/status")
    seen.route("qwen3")
    seen.ask("A long one")
    row = status.page.locator("#routes tr", has=status.page.locator("th", has_text="qwen3"))
    sync = status.expect("#routes tr:has(th:text-is('qwen3')) td:nth-of-type(3)")
    sync.to_have_text("1")
    assert row.locator("td").nth(4).inner_text() == "1", "budgets held"
    status.expect("#engines tr:has(th:text-is('model')) td").to_have_text("1")
    speed = float(row.locator("td").nth(5).inner_text().replace(",", ""))
    assert 0 < speed < 2 / PACE
    seen.page.click("#stop")
    seen.answered()
    sync.to_have_text("0")


def test_the_page_works_in_a_folder_behind_a_proxy():
    """Every address on it is relative."""
    from server.page.routes import FOLDER

    for file in [*FOLDER.glob("*.html"), *FOLDER.glob("*.js")]:
        text = file.read_text(encoding="utf-8")
        assert not any(
            mark + "/" in text.replace("https://", "").replace("http://", "") for mark in ('href="', 'src="')
        ), file


def test_the_settings_of_the_site_are_those_of_every_kind_of_route():
    assert all(f'"{family}"' in SETTINGS for family in ("lhrm", "qwen3", "selfbudgeter", "plain"))
