"""HTML of what the page shows; all that comes from models, files and users is escaped."""

from pathlib import Path

from blip2vqa.reporting.pages import page

STYLE = Path(__file__).with_name("page.css")


def render(template: str, **values: object) -> str:
    """Fill a template of the folder `templates/`."""
    return page.render(f"demo/templates/{template}.html", **values)


def alert(message: str | None) -> str:
    """Show what is wrong, if anything is."""
    return render("alert", message=message) if message else ""
