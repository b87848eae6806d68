"""A page of HTML as a test reads it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes, and text, in all and inside each tag; fails on a tag that is not closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.text, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, len(self.texts)))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag):
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
