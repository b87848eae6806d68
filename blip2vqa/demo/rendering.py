"""HTML of what the page shows; all that comes from models, files and users is escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blip2vqa.utils.formatting import percent

STYLE = Path(__file__).with_name("page.css")


def render(template: str, **values: object) -> str:
    """Fill a template of the folder `templates/`."""
    return _environment().get_template(f"{template}.html").render(**values)


def alert(message: str | None) -> str:
    """Show what is wrong, if anything is."""
    return render("alert", message=message) if message else ""


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = percent
    return environment
