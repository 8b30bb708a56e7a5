"""Reads the pages of the book, and chooses a few mistakes of the museum for its tests."""

from functools import cached_property
from html.parser import HTMLParser

from scratchgen.museum import tour


class Parsed(HTMLParser):
    """Tags of a page, in their order, and the text of each of them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.path = [], [], path
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, *names):
        """The attributes of all tags with these names."""
        return [attributes for tag, attributes in self.tags if tag in names]

    @cached_property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def few_exhibits():
    """Mistakes of equations, and one of running code alone."""
    functions = "ddpm.q_sample", "ddpm.total_noise_loss", "sde.exponential_sampler", "nn.Adam"
    return tuple(shown for shown in tour.EXHIBITS if shown.function in functions)


def few_faults():
    """A fault that an equation sees, one of running code, and one that a test sees."""
    seen = [next(fault for fault in tour.FAULTS if fault.seen_by.startswith("verify: (29)"))]
    seen += [next(fault for fault in tour.FAULTS if fault.row == "Algorithm 1")]
    return (*seen, next(fault for fault in tour.FAULTS if fault.row is None))
