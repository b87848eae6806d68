"""A page of HTML as a test reads it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input"}
ENDED_BY = {"td": {"td", "tr", "tbody"}, "tr": {"tr", "tbody"}}
"""Tags that need no end → the tags before, or at the end of, which they end."""


class Page(HTMLParser):
    """Tags with their attributes, and text, in all and inside each tag; fails on a tag that is not closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.text, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    @property
    def said(self) -> str:
        """All text, blanks and lines as single blanks."""
        return " ".join("".join(self.text).split())

    def _end_what_needs_no_tag(self, tag):
        while self.open and tag in ENDED_BY.get(self.open[-1][0], ()):
            self.open.pop()

    def handle_starttag(self, tag, attrs):
        self._end_what_needs_no_tag(tag)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, len(self.texts)))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag):
        if self.open[-1][0] != tag:
            self._end_what_needs_no_tag(tag)
        opened, _ = self.open.pop()
        assert opened == tag

    def handle_data(self, data):
        self.text.append(data)
        for tag, place in self.open:
            self.texts[place] = (tag, self.texts[place][1] + data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def inside(self, tag: str) -> list[str]:
        """The text of each such tag, on one line."""
        return [" ".join(text.split()) for name, text in self.texts if name == tag]
