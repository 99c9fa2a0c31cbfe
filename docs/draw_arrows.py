"""Draw the picture of the rooms of clipita and who may import whom, from the contracts in pyproject.toml.

    python docs/draw_arrows.py

It writes docs/pictures/arrows.svg. What each room is for is the first sentence of its docstring.
"""

import ast
import html
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "pictures" / "arrows.svg"
SOURCES = {"clipita": ROOT / "clipita", "clipita_train": ROOT / "training" / "clipita_train"}

WIDTH, ROW, GAP, LEFT, NAMES = 1180, 34, 16, 20, 230
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b1f24}.name{font:600 14px ui-monospace,monospace}"
    ".title{font:600 17px system-ui,sans-serif}rect{fill:#e6f2f1;stroke:#00796b}path{stroke:#00796b;fill:none}"
)


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


def picture() -> str:
    """Return the picture as SVG: the layers of both packages, one below the other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    drawn, y = [], 20
    for package, above in (
        ("clipita_train", "clipita_train imports clipita, and never the other way"),
        ("clipita", ""),
    ):
        drawn.append(f'<text class="title" x="{LEFT}" y="{y + 14}">{package}</text>')
        y += 26
        for number, layer in enumerate(_layers(contracts, package)):
            if number:
                drawn.append(_arrow(LEFT + NAMES / 2, y, y + GAP))
                y += GAP
            for room in layer:
                drawn.append(_room(room, _purpose(SOURCES[package], room), y))
                y += ROW
        if above:
            drawn.append(_arrow(LEFT + NAMES / 2, y, y + 2 * GAP))
            drawn.append(f'<text x="{LEFT + NAMES / 2 + 16}" y="{y + GAP + 6}">{above}</text>')
            y += 2 * GAP + 6
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" role="img">'
    background = f'<path d="M0 0H{WIDTH}V{y + 20}H0z" style="fill:#fff;stroke:none"/>'
    marker = '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    point = '<path d="M0 0 8 4 0 8z" style="fill:#00796b;stroke:none"/></marker></defs>'
    title = "<title>The rooms of clipita and clipita_train; each imports only those below it</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", marker + point, background, *drawn, "</svg>", ""])


def _layers(contracts: list[dict[str, object]], package: str) -> list[list[str]]:
    """Return the layers of a package from the top, each as its rooms."""
    for contract in contracts:
        if contract["type"] == "layers" and contract["containers"] == [package]:
            layers = contract["layers"]
            assert isinstance(layers, list)
            return [[room.strip() for room in layer.split("|")] for layer in layers]
    raise LookupError(f"pyproject.toml has no contract of layers for {package}")


def _purpose(source: Path, room: str) -> str:
    file = source / room / "__init__.py"
    file = file if file.exists() else source / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return docstring.split("\n")[0].rstrip(".").replace("`", "")


def _room(name: str, purpose: str, y: float) -> str:
    box = f'<rect x="{LEFT}" y="{y}" width="{NAMES}" height="{ROW - 6}" rx="5"/>'
    label = f'<text class="name" x="{LEFT + 12}" y="{y + 19}">{name}</text>'
    return f'{box}{label}<text x="{LEFT + NAMES + 16}" y="{y + 19}">{html.escape(purpose)}</text>'


def _arrow(x: float, top: float, bottom: float) -> str:
    return f'<path d="M{x:g} {top - 5:g}V{bottom:g}" marker-end="url(#a)"/>'


if __name__ == "__main__":
    main()
