import re
from html.parser import HTMLParser

from suite_kit import failed_row, learning_row
from textgym_agents.suite_page import write_page

from textgym.suite.setting import Block, Group
from textgym.suite.summary import tables


class Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_loads_nothing(tmp_path):
    rows = [learning_row("copying", "<b>", 0, [0.0, 0.5, 1.0]) | {"warnings": ["W: 1 < 2"]}, failed_row()]
    figure = tmp_path / "figure.svg"
    figure.write_text('<?xml version="1.0"?><!DOCTYPE svg><svg><path d="M 0 0"></path></svg>')
    group = Group("mine", "a & b", 1, [Block("copying", ("dense",), ("ppo",), 1)])
    write_page(tmp_path / "page.html", group, rows, tables(rows), [figure])
    text = (tmp_path / "page.html").read_text()
    parts = Parts()
    parts.feed(text)
    assert parts.open == []
    assert parts.links == []
    assert parts.seen.count("table") == 2
    assert parts.seen.count("svg") == 1
    assert "<?xml" not in text
    for said in (
        "a &amp; b",
        "ppo, &lt;b&gt;",
        "W: 1 &lt; 2",
        "1 runs failed",
        "RuntimeError: no | rewards",
        "&quot;python&quot;",
    ):
        assert said in text
    assert not re.search(r"<script|url\(http", text)
