"""Reports: every number where programs expect it, pages that hostile text can't break, files whole."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from accordance.core import figures
from accordance.core import report as report_module
from accordance.core.errors import ConfigError, DataError, TrainingError
from accordance.core.record import Account
from accordance.core.report import Report
from accordance.core.stats import Interval, wilson

HOSTILE = "</script></style></pre><img src=x onerror=alert(1)>\x00\x1b[2J\u202egnp.exe {{7*7}} ]]> & \"'"


class Page(HTMLParser):
    """Collects the elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def full_report(text: str = "words") -> Report:
    report = Report(text, text, meta={text: [text]})
    report.add("rate", wilson(7, 10), unit="share", headline=True, label=text, note=text)
    report.warn(text).section(text, text).text(text, text).code(text, text)
    report.table(text, [text, "n"], [[text, 3], [None, 4.5]], note=text)
    report.samples(
        text, [{"prompt": text, "before": text, "after": text, "score": 1.5, "highlights": [text[:9]]}]
    )
    report.figure(text, figures.forest([(text, wilson(3, 9)), ("b", wilson(4, 9))], xlabel=text))
    return report


def test_numbers_and_intervals_stand_at_the_top_level_of_the_json(tmp_path: Path) -> None:
    report = (
        Report("t").add("win_rate", 0.7, ci=(0.6, 0.8)).add("accuracy", wilson(3, 4)).add("kl", np.float32(2))
    )
    report.data("records", Account(read=5)).data("win_rate_before", None)
    saved = json.loads(report.save(tmp_path)[0].read_text())
    assert saved["win_rate"] == 0.7 and saved["win_rate_ci95"] == [0.6, 0.8]
    assert saved["accuracy"] == 0.75 and saved["accuracy_ci95"] == pytest.approx(wilson(3, 4).bounds)
    assert saved["kl"] == 2.0 and "kl_ci95" not in saved
    assert saved["records"]["read"] == saved["records"]["kept"] == 5 and saved["win_rate_before"] is None
    assert {"title", "warnings", "meta", "sections"} <= set(saved)


def test_a_key_can_not_be_written_twice_or_hide_the_frame_of_the_report() -> None:
    report = Report("t").add("a", 1, ci=(0, 2))
    for key in ("a", "a_ci95", "warnings", "sections"):
        with pytest.raises(ConfigError, match=key):
            report.add(key, 2)


def test_numbers_that_are_not_finite_become_null_with_a_warning(tmp_path: Path) -> None:
    report = Report("t").add("a", math.nan, ci=(-math.inf, 1.0)).data("d", {"x": [np.float64("inf"), 1]})
    text = report.save(tmp_path)[0].read_text()
    saved = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert saved["a"] is None and saved["a_ci95"] == [None, 1.0] and saved["d"] == {"x": [None, 1]}
    assert [w for w in saved["warnings"] if w.startswith("a is not a finite number")]
    assert len(saved["warnings"]) == 3


def test_hostile_text_neither_acts_nor_disappears(tmp_path: Path) -> None:
    html = full_report(HOSTILE).save(tmp_path)[1].read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in page.tags}
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert "\x00" not in html and "\x1b" not in html and "\u202e" not in html
    assert "‹U+0000›" in page.text and "‹U+202E›" in page.text and "{{7*7}}" in page.text
    assert page.text.count("<img src=x onerror=alert(1)>") >= 10


def test_a_browser_may_fetch_nothing_and_everything_stands_in_one_file() -> None:
    html = full_report().to_html()
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    for _, attrs in Page(html).tags:
        for name in ("src", "href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)


def test_every_block_is_on_the_page_with_its_numbers() -> None:
    page = Page(full_report("words").to_html())
    assert "70.0%" in page.text and "95%: 39.7% to 89.2%" in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 1
    assert "4.50" in page.text and "score 1.50" in page.text
    assert ("mark", {}) in page.tags


def test_the_direction_that_is_good_is_shown() -> None:
    html = Report("t").add("a", 1, good="high", headline=True).add("b", 2, good="low").to_html()
    assert "higher is better" in html and "lower is better" in html


def test_a_scatter_of_very_many_points_stays_light_and_says_so() -> None:
    svg = figures.to_svg(figures.scatter(np.arange(50_000), np.arange(50_000), xlabel="x", ylabel="y"))
    assert "1,500 of 50,000 points" in svg and len(svg) < 300_000


def test_figures_on_one_page_share_no_ids() -> None:
    report = Report("t")
    for _ in range(2):
        report.figure("f", figures.histogram({"a": [1, 2, 3]}, xlabel="x"))
    html = report.to_html()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) > 4 and len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


@pytest.mark.parametrize(
    "svg",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
        '<svg onload="alert(1)"/>',
        '<svg><a href="javascript:alert(1)"/></svg>',
        '<svg><image href="https://example.org/x.png"/></svg>',
        '<svg><rect style="fill: url(https://example.org/#a)"/></svg>',
        "<svg><foreignObject/></svg>",
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg/>',
        "<p>no drawing</p>",
        "<svg><g></svg>",
    ],
)
def test_a_drawing_that_runs_or_fetches_is_refused(svg: str) -> None:
    with pytest.raises(ConfigError):
        Report("t").figure("f", svg)


def test_a_figure_of_anyone_is_taken_and_text_in_it_stays_text() -> None:
    figure = Figure()
    figure.subplots().set_title("a <b> title")
    block = Report("t").figure("f", figure).blocks[0]
    assert (
        "a &lt;b&gt; title" in block["svg"] and "<metadata" not in block["svg"] and "<?xml" not in block["svg"]
    )


def test_labels_of_figures_are_names_and_never_formulas() -> None:
    svg = figures.to_svg(figures.forest([("$x_{", wilson(1, 2)), ("a\x00b", wilson(1, 2))], xlabel="$y^{"))
    assert "$x_{" in svg and "$y^{" in svg and "\x00" not in svg


@pytest.mark.parametrize("values", [[], [1.0], [2.0] * 50, [math.nan, 1.0, 1e9]])
def test_figures_are_drawn_from_little_or_odd_data(values: list[float]) -> None:
    assert "<svg" in figures.to_svg(figures.histogram({"a": values}, xlabel="x", mark=0))
    assert "<svg" in figures.to_svg(figures.scatter(values, values, xlabel="x", ylabel="y", diagonal=True))
    assert "<svg" in figures.to_svg(figures.lines({"a": (values, values)}, xlabel="x", ylabel="y"))
    assert "<svg" in figures.to_svg(figures.forest([], xlabel="x"))
    assert "<svg" in figures.to_svg(figures.bars({}, xlabel="x"))


def test_the_same_figure_gives_the_same_bytes() -> None:
    draw = lambda: figures.to_svg(figures.bars({"a": 1, "b": 2}, xlabel="x"))  # noqa: E731
    assert draw() == draw()


def test_a_saved_report_loads_and_renders_the_same(tmp_path: Path) -> None:
    report = full_report()
    report.save(tmp_path)
    again = Report.load(tmp_path)
    assert again.to_dict() == report.to_dict() and again.to_html() == report.to_html()
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a report"):
        Report.load(tmp_path / "other.json")
    with pytest.raises(DataError, match="can't read"):
        Report.load(tmp_path / "none.json")


def test_an_included_report_brings_its_numbers_warnings_and_sections() -> None:
    part = Report("part", "found", meta={"seed": 1}).add("n", 3).section("inner").text("a", "b").warn("careful")
    whole = Report("whole").include(part)
    assert whole.values["n"] == 3 and whole.warnings == ["careful"] and whole.meta == {"part": {"seed": 1}}
    assert [(b["title"], b["level"]) for b in whole.blocks if b["kind"] == "section"] == [
        ("part", 1),
        ("inner", 2),
    ]
    assert [b["level"] for b in part.blocks if b["kind"] == "section"] == [1]
    with pytest.raises(ConfigError, match="prefix"):
        whole.include(part)
    assert whole.include(part, prefix="second_").values["second_n"] == 3


def test_the_terminal_shows_it_all_and_obeys_nothing() -> None:
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    full_report("[bold red]" + HOSTILE).print(console)
    shown = console.export_text()
    assert "70.0%" in shown and "[bold red]" in shown and "39.7% to 89.2%" in shown
    assert "\x1b" not in shown and "\x00" not in shown and "\u202e" not in shown and "‹U+001B›" in shown


def test_an_unwritable_folder_is_a_clear_error_and_leaves_no_debris(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="can't write the report") as caught:
        Report("t").save(tmp_path / "file" / "run")
    assert caught.value.remedy


def test_a_full_disk_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Report("old").save(tmp_path)
    before = {p.name: p.read_text() for p in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report_module.os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left"):
        Report("new").save(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == before


def test_odd_text_survives_the_round_trip(tmp_path: Path) -> None:
    text = "مرحبا שלום 😀 \u202e \x00 é"
    Report("t").data("text", text).data("broken", "a\ud800b").text("t", text).save(tmp_path)
    loaded = Report.load(tmp_path)
    assert loaded.values["text"] == text and loaded.values["broken"] == "a?b"


def test_what_has_no_plain_form_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="model"):
        Report("t").data("model", object())
    with pytest.raises(ConfigError, match="one cell per column"):
        Report("t").table("t", ["a", "b"], [[1]])


def test_an_interval_without_bounds_is_shown_as_a_number_alone() -> None:
    report = Report("t").add("a", Interval(0.5, math.nan, math.nan, 1), headline=True)
    assert report.values["a_ci95"] == [None, None]
    assert "95%:" not in Page(report.to_html()).text
