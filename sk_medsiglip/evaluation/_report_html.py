"""The HTML of a report: elements whose texts are escaped, and the page around them.

Whatever is not :class:`Html` is text, and escaped where it is put in: nobody has to
remember to, and a label named ``<script>`` stays a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

__all__ = [
    "Html",
    "box",
    "element",
    "figure",
    "join",
    "page",
    "paragraph",
    "pictures",
    "section",
    "table",
    "terms",
]

# The browser itself refuses scripts and every request, whatever the page holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_ALONE = {"img", "meta", "link"}


class Html(str):
    """Text that is HTML and not to be escaped again."""

    __slots__ = ()


def element(tag: str, *inside: Any, **attributes: str) -> Html:
    """Return an element.

    Parameters
    ----------
    tag : str
        Its name.
    *inside
        Elements, and texts, which are escaped.
    **attributes
        Escaped too. ``class_`` is "class", and ``_`` within a name is "-".

    Returns
    -------
    Html
    """
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    if tag in _ALONE:
        return Html(f"<{tag}{said}>")
    return Html(f"<{tag}{said}>{join(*inside)}</{tag}>")


def join(*parts: Any) -> Html:
    """Return parts one after the other; texts among them are escaped."""
    return Html(
        "".join(one if isinstance(one, Html) else escape(str(one)) for one in parts)
    )


def paragraph(*inside: Any) -> Html:
    """Return a paragraph."""
    return element("p", *inside)


def box(*inside: Any, kind: str = "note") -> Html:
    """Return a paragraph that stands out: a "note", "bad" news, or a "blank"."""
    return element("div", paragraph(*inside), class_=kind)


def section(name: str, title: str, *inside: Any) -> Html:
    """Return a part of the page with its heading, to which ``#name`` leads."""
    heading = element("h2", title, id=f"{name}-title")
    return element(
        "section", heading, *inside, id=name, aria_labelledby=f"{name}-title"
    )


def table(
    caption: str,
    head: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    n_words: int = 1,
) -> Html:
    """Return a table that scrolls in its own box where the page is narrow.

    Parameters
    ----------
    caption : str
        What it holds.
    head : sequence
        Names of the columns.
    rows : sequence of sequences
        Cells; the first of each names its row.
    n_words : int, default=1
        Columns that hold words, not numbers; the first ones.

    Returns
    -------
    Html
    """
    aligned = [{"class_": "word"} if i < n_words else {} for i in range(len(head))]
    names = [
        element("th", name, scope="col", **how)
        for name, how in zip(head, aligned, strict=True)
    ]
    lines = []
    for first, *rest in rows:
        cells = zip(rest, aligned[1:], strict=True)
        lines.append(
            element(
                "tr",
                element("th", first, scope="row", class_="word"),
                *(element("td", cell, **how) for cell, how in cells),
            )
        )
    whole = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *names)),
        element("tbody", *lines),
    )
    # Focusable, so that it scrolls by keyboard too.
    return element(
        "div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption
    )


def terms(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """Return a list of terms and what they mean."""
    return element(
        "dl", *(Html(element("dt", term) + element("dd", what)) for term, what in pairs)
    )


def figure(source: str, alt: str, *caption: Any) -> Html:
    """Return a picture from a data URI, with words for who cannot see it."""
    return element(
        "figure",
        element("img", src=source, alt=alt),
        element("figcaption", *caption) if caption else "",
    )


def pictures(figures: Iterable[Html], kind: str = "") -> Html:
    """Return figures beside each other, as many as fit: "tiles" small, "wide" alone."""
    return element("div", *figures, class_=f"pictures {kind}".strip())


def page(title: str, top: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """Return the whole file.

    Parameters
    ----------
    title : str
        Of the page.
    top : Html
        What stands under the title.
    sections : sequence of (str, str, Html)
        Name, title and contents of each part.

    Returns
    -------
    str
    """
    css = files("sk_medsiglip.evaluation").joinpath("report.css").read_text("utf-8")
    links = (
        element("li", element("a", title, href=f"#{name}"))
        for name, title, _ in sections
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        # Without it a browser asks a server for /favicon.ico.
        element("link", rel="icon", href="data:,"),
        element("style", Html(css)),
    )
    body = element(
        "body",
        element("header", element("h1", title), top),
        element("nav", element("ol", *links), aria_label="Contents"),
        element("main", *(section(*one) for one in sections)),
        element(
            "footer",
            "For research only: not a medical device, not for clinical use. This page "
            "holds everything it shows and asks nothing of any network.",
        ),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'
