"""The page in a real browser: what it shows, when, and that nothing that it is told can run in it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import expect

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.web.app import PAGE
from tests.cli.programs import run
from tests.conftest import SERVERS, Place
from tests.servers import RedisServer
from tests.web.pages import PATIENCE_MS, View
from tests.web.serving import TOKEN, Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

expect.set_options(timeout=PATIENCE_MS)


async def test_what_another_process_reports_and_clears_is_seen_at_once(view: View, served: Served) -> None:
    await served.clear()
    await view.open(served.address)
    await expect(view.page.get_by_text("Nothing is limited.", exact=True)).to_be_visible()
    told = ["--model", "opus", "--job-id", "nightly", "--sheet", "7", "--reason", "overloaded"]
    await asyncio.to_thread(run, served.place, "report", "claude", "600", *told)

    row = view.limit("claude")
    await expect(row.locator(".name")).to_have_text("claude/opus")
    await expect(row.locator(".facts")).to_contain_text("overloaded")
    await expect(row.locator(".who")).to_contain_text(re.compile(r"reported by .+:\d+, job nightly, sheet 7"))
    await expect(view.page.locator("#count")).to_have_text("1")
    await expect(view.page).to_have_title(re.compile("^1 limited"))
    await expect(view.page.locator("#events > li").first).to_contain_text("10 min, overloaded")

    await asyncio.to_thread(run, served.place, "clear", "claude")
    await expect(row).to_have_count(0)
    await expect(view.page.get_by_text("Nothing is limited.", exact=True)).to_be_visible()
    await expect(view.page.locator("#events > li").first).to_contain_text("cleared")


async def test_a_limit_counts_down_and_is_gone_at_its_end(view: View, served: Served) -> None:
    await served.clear()
    await view.open(served.address)
    await served.report("slow", 600)
    await served.report("quick", 2.5)

    await expect(view.limit("quick").locator(".time")).to_have_text("1 s")
    await expect(view.limit("quick")).to_have_count(0)
    await expect(view.limit("slow").locator(".time")).to_have_text(re.compile(r"9:5\d"))
    bar = view.limit("slow").locator(".bar div")
    scale = await bar.evaluate("bar => new DOMMatrix(getComputedStyle(bar).transform).a")
    assert 0.9 < scale < 1


async def test_what_was_asked_is_told_where_another_wait_counts(view: View, served: Served) -> None:
    await served.clear()
    await served.report("gemini", 86_400, reason="quota")
    await view.open(served.address)

    await expect(view.limit("gemini").locator(".asked")).to_have_text("asked 1 d, 1 h counts (above cap)")


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=\"document.title='run'\">", "\"><script>document.title='run'</script>", "'-alert(1)-'"]
)
async def test_nothing_that_is_in_a_name_runs(view: View, served: Served, name: str) -> None:
    await served.clear()
    await view.open(served.address)
    await served.report(name, 600, model=name, job_id=name)

    await expect(view.limit("reported").locator(".backend")).to_have_text(name)
    await expect(view.limit("reported").locator(".who")).to_contain_text(f"job {name}")
    await expect(view.page.locator("#events > li").first.locator(".model")).to_have_text(name)
    assert await view.page.locator("main img, main script").count() == 0
    assert await view.page.title() != "run"


async def test_the_browser_refuses_to_make_html_of_text(view: View, served: Served) -> None:
    await view.open(served.address)
    made = "document.querySelector('main').innerHTML = '<p>text</p>'"

    said = await view.page.evaluate(f"() => {{ try {{ {made} }} catch (error) {{ return error.name }} }}")

    assert said == "TypeError"
    assert [trouble for trouble in view.troubles if "TrustedHTML" not in trouble] == []
    view.troubles.clear()


async def test_a_phone_needs_no_scrolling_sideways(view: View, served: Served, tmp_path: Path) -> None:
    await served.clear()
    await served.report("x" * 256, 3600, model="y" * 256, job_id="z" * 300)
    await served.report("claude", 86_400, model="opus", job_id="nightly", sheet_num=7, reason="overloaded")
    await view.page.set_viewport_size({"width": 360, "height": 780})
    await view.page.emulate_media(color_scheme="dark")
    await view.open(served.address)
    await expect(view.limit("xxx")).to_be_visible()
    await expect(view.page.locator("#events > li").first).to_be_visible()

    assert await view.page.evaluate("document.documentElement.scrollWidth") == 360
    assert len(await view.page.screenshot(path=tmp_path / "phone.png")) > 10_000


async def test_hundreds_of_limits_can_be_looked_through(view: View, served: Served) -> None:
    await served.clear()
    async with RateLimitCoordinator.from_url(served.place.url, served.place.namespace) as coordinator:
        await asyncio.gather(*(coordinator.report_rate_limit(f"many-{n:03}", 1000 + n) for n in range(300)))
    await view.open(served.address)

    await expect(view.page.locator("#count")).to_have_text("300")
    await expect(view.page.locator("#limits > li").first).to_contain_text("many-299")
    assert await view.page.locator("#limits > li").count() < 100
    await view.page.get_by_role("button", name="Show all 300").click()
    await expect(view.page.locator("#limits > li")).to_have_count(300)
    await view.page.get_by_label("Show only").fill("MANY-12")
    await expect(view.page.locator("#limits > li")).to_have_count(10)
    await view.page.get_by_label("Show only").fill("none of them")
    await expect(view.page.locator("#limits-none")).to_have_text("Nothing of that name.")


async def test_the_pace_is_drawn_over_time(view: View, served: Served) -> None:
    await served.clear()
    await view.open(served.address)
    async with RateLimitCoordinator.from_url(served.place.url, served.place.namespace) as coordinator:
        for refused in (False, True, False):
            async with coordinator.admit("mistral", "large") as call:
                if refused:
                    await call.limited(0.2)

        card = view.page.locator("#paces > li")
        await expect(card.locator(".name")).to_have_text("mistral/large")
        # A line that holds its value up to now, the right edge.
        await expect(card.locator("path.line")).to_have_attribute("d", re.compile(r"^M\d.*H300\.0$"))
        await expect(card.locator("svg")).to_have_attribute("aria-label", re.compile("^Pace of mistral/large"))

        # Who comes later is told what was before.
        other = View(await view.page.context.new_page())
        await other.open(served.address)
        await expect(other.page.locator("#paces > li path.line")).to_have_attribute("d", re.compile(r"^M\d+.*H300\.0$"))
        assert await coordinator.forget_pace("mistral", "large")
    await expect(card).to_have_count(0)
    assert other.troubles == []


async def unlock(view: View, token: str) -> None:
    await view.page.get_by_role("button", name="Unlock").click()
    await view.page.get_by_label("Token").fill(token)
    await view.page.keyboard.press("Enter")


async def test_whoever_has_the_token_lifts_limits_from_the_page(view: View, served: Served) -> None:
    await served.clear()
    await served.report("claude", 600, model="opus")
    await served.report("claude", 600)
    await view.open(served.address)
    lift = view.page.get_by_role("button", name="Lift the limit of claude/opus")
    await expect(view.limit("opus")).to_be_visible()
    await expect(lift).to_have_count(0)

    await unlock(view, "a wrong one")
    await lift.click()
    await lift.click()
    # The server knows another token, so that this one is forgotten.
    await expect(view.page.get_by_role("button", name="Unlock")).to_be_visible()
    await expect(view.limit("opus")).to_be_visible()
    assert [trouble for trouble in view.troubles if "401" not in trouble] == []
    view.troubles.clear()

    await unlock(view, TOKEN)
    await lift.click()
    await expect(lift).to_have_text("Lift for everyone?")
    await lift.click()
    await expect(view.limit("opus")).to_have_count(0)
    await expect(view.limit("claude")).to_be_visible()


async def test_a_hold_tells_who_holds_it_and_why_also_where_a_report_lasts_longer(view: View, served: Served) -> None:
    await served.clear()
    note = "<img src=x onerror=\"document.title='run'\">"
    await served.post("hold", {"backend": "gemini", "seconds": 7200, "reason": note})
    await served.report("openai", 3000)
    await served.post("hold", {"backend": "openai", "seconds": 600, "reason": "contract"})
    await view.open(served.address)

    facts = view.limit("gemini").locator(".facts")
    await expect(facts).to_contain_text(re.compile(r"held by hand.*by .+:\d+.*until "))
    await expect(facts.locator(".held")).to_have_text(note)
    facts = view.limit("openai").locator(".facts")
    await expect(facts.locator(".reason")).to_have_text("rate limit")
    await expect(facts.locator(".held")).to_have_text(re.compile(r"also held by hand until .+ by .+:\d+: contract"))
    await expect(view.page.locator("#events > li").filter(has_text=f"2 h, {note}")).to_have_count(1)
    assert await view.page.locator("main img, main script").count() == 0
    await expect(view.page.get_by_role("button", name="Hold a backend")).to_have_count(0)
    for backend in ("gemini", "openai"):
        await served.post("release", {"backend": backend})


async def test_whoever_has_the_token_holds_and_releases_from_the_page(view: View, served: Served) -> None:
    await served.clear()
    await served.report("claude", 600, model="opus")
    await view.open(served.address)
    await unlock(view, TOKEN)
    page, dialog = view.page, view.page.locator("#hold")

    await page.get_by_role("button", name="Hold claude/opus by hand").click()
    await expect(dialog.get_by_label("Backend")).to_have_value("claude")
    await expect(dialog.get_by_label("Model")).to_have_value("opus")
    await dialog.get_by_label("For", exact=True).fill("0")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("alert")).to_contain_text("seconds: must be greater than 0")
    assert [trouble for trouble in view.troubles if "422" not in trouble] == []
    view.troubles.clear()
    await dialog.get_by_label("For", exact=True).fill("1.5")
    await dialog.get_by_label("Reason").fill("maintenance")
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_hidden()
    await expect(view.limit("opus").locator(".held")).to_have_text("maintenance")
    await expect(view.limit("opus").locator(".time")).to_have_text(re.compile(r"1:(30:00|29:\d\d)"))
    await expect(page.get_by_role("button", name="Lift the limit of claude/opus")).to_have_count(0)

    await page.get_by_role("button", name="Hold a backend").click()
    await dialog.get_by_label("Backend").fill("gemini")
    await dialog.get_by_label("Unit").select_option("days")
    await page.keyboard.press("Tab")
    await dialog.get_by_role("button", name="Hold").click()
    await expect(view.limit("gemini").locator(".time")).to_have_text(re.compile(r"1 d 1[12]:"))

    for name in ("claude/opus", "gemini"):
        release = page.get_by_role("button", name=f"Release {name}")
        await release.click()
        await expect(release).to_have_text("Release for everyone?")
        await release.click()
        await expect(release).to_have_count(0)
    await expect(view.limit("opus").locator(".reason")).to_have_text("rate limit")
    await expect(view.limit("gemini")).to_have_count(0)


async def test_after_a_restart_of_the_server_the_page_knows_everything(view: View, redis_server: RedisServer) -> None:
    place = Place(redis_server.url, f"test {uuid4()}")
    coordinator = RateLimitCoordinator.from_url(place.url, place.namespace)
    with serving(place) as first:
        await view.open(first.address)
        await coordinator.report_rate_limit("before", 600)
        await expect(view.limit("before")).to_be_visible()
        # Without a token there is nothing to change.
        await expect(view.page.get_by_text("read-only: the server has no token")).to_be_visible()
        await expect(view.page.get_by_role("button")).to_have_count(0)
    await view.connection("lost").wait_for()
    await expect(view.page.locator("#trouble")).to_contain_text("does not answer")
    await expect(view.limit("before")).to_be_visible()
    await coordinator.report_rate_limit("meanwhile", 600)
    await coordinator.clear_limits("before")

    with serving(place, port=first.port):
        await view.connection("live").wait_for()
        await expect(view.limit("meanwhile")).to_be_visible()
        await expect(view.limit("before")).to_have_count(0)
        await expect(view.page.locator("#trouble")).to_be_hidden()
    await coordinator.aclose()


async def test_while_redis_is_away_the_page_says_so_and_counts_on(view: View) -> None:
    with RedisServer(SERVERS[0].path) as redis, serving(Place(redis.url, "test"), token=TOKEN) as served:
        await served.report("claude", 600)
        await view.open(served.address)
        redis.stop()
        await view.connection("degraded").wait_for()
        await expect(view.page.locator("#trouble")).to_contain_text("Redis has been away for")
        await served.report("openai", 300)
        await expect(view.limit("openai").locator(".pending")).to_be_visible()
        await expect(view.limit("claude")).to_be_visible()

        redis.start()
        await view.connection("live").wait_for()
        await expect(view.limit("openai").locator(".pending")).to_be_hidden()


async def test_a_tab_that_nobody_sees_keeps_no_stream_and_begins_anew_when_it_is_seen(
    view: View, served: Served
) -> None:
    await served.clear()
    await view.open(served.address)
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    await view.page.evaluate(hide, True)
    await served.report("meanwhile", 600)
    # What was reported would be seen within half a second.
    await asyncio.sleep(0.5)
    assert await view.limit("meanwhile").count() == 0

    await view.page.evaluate(hide, False)
    await expect(view.limit("meanwhile")).to_be_visible()


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *((text, "surface") for text in ("text", "quiet", "limited", "pace", "good", "warn")),
        *((text, "ground") for text in ("text", "quiet")),
        *((name, f"{name}-soft") for name in ("good", "bad", "warn")),
    ],
)
async def test_every_text_stands_out_from_its_ground(scheme: int, text: str, ground: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5."""
    blocks = re.findall(r":root \{(.*?)\}", (PAGE / "page.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)

    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
