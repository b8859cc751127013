"""SVG drawings made safe and fit to stand inside an HTML page: no script, no requests, ids of their own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from accordance.core.errors import ConfigError

_DRAWING = frozenset(
    re.findall(
        r"\w+",
        """svg g defs path use clippath rect circle ellipse line polyline polygon text tspan title desc
        lineargradient radialgradient stop image marker pattern symbol mask""",
    )
)
#: Left out: descriptions for editors, and style sheets, which would reach the whole page.
_LEFT_OUT = frozenset({"metadata", "style"})
_DATA_IMAGE = re.compile(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=\s]*\Z")


def inline(svg: str, prefix: str = "") -> str:
    """An SVG document as an element of an HTML page.

    The declaration, metadata and namespaces go, width and height give way to the view box, every id gets
    `prefix` so that several drawings can share a page.

    Raises:
        ConfigError: it is not SVG, or holds something that runs or fetches (scripts, event handlers, foreign
            content, addresses outside the document).
    """
    if re.search(r"<!ENTITY", svg, re.IGNORECASE):
        raise ConfigError("a figure may not define XML entities", where="SVG figure")
    try:
        root = ET.fromstring(re.sub(r"<\?xml.*?\?>|<!DOCTYPE[^>\[]*>", "", svg, flags=re.DOTALL).strip())
    except (ET.ParseError, ValueError) as error:
        raise ConfigError("this is not well-formed SVG", where="SVG figure", found=str(error)) from error
    if _local(root.tag) != "svg":
        raise ConfigError("this is not SVG", where="SVG figure", found=f"<{_local(root.tag)}>")
    _clean(root, prefix)
    if "viewBox" in root.attrib:
        root.attrib.pop("width", None)
        root.attrib.pop("height", None)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, prefix: str) -> None:
    element.tag = _local(element.tag)
    element.tail = element.tail if element.tail and element.tail.strip() else None
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        element.set(_local(name), _attribute(_local(name), value, prefix))
    for child in list(element):
        name = _local(child.tag) if isinstance(child.tag, str) else ""
        if not name or name.lower() in _LEFT_OUT:
            element.remove(child)
        elif name.lower() not in _DRAWING:
            raise ConfigError("a figure holds something other than a drawing", where="SVG", found=f"<{name}>")
        else:
            _clean(child, prefix)


def _attribute(name: str, value: str, prefix: str) -> str:
    lower = name.lower()
    if lower.startswith("on"):
        raise ConfigError("a figure may not carry event handlers", where="SVG", found=name)
    if lower == "id":
        return prefix + value
    if lower in ("href", "src"):
        if value.startswith("#"):
            return "#" + prefix + value[1:]
        if not _DATA_IMAGE.match(value):
            raise ConfigError("a figure may not point outside itself", where="SVG", found=value)
        return value
    if re.search(r"url\(\s*(?!#)|@import|expression\(|\\", value, re.IGNORECASE):
        raise ConfigError("a figure may not point outside itself", where="SVG", found=value)
    return re.sub(r"url\(\s*#", f"url(#{prefix}", value)


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
