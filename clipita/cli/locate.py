"""Define the command `locate`, which shows where in a photograph something is."""

from pathlib import Path
from typing import get_args

import click

from clipita.cli.options import Unusable, common_options, crop_option, echo, print_json
from clipita.images.pixels import Crop
from clipita.loading.load import load
from clipita.locale.language import phrase
from clipita.locate.maps import Method


@click.command(short_help="Show where in a picture something is.")
@click.argument("image", metavar="IMAGE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("text", metavar="TEXT")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the map over the photograph into this file, a PNG, JPEG or WebP.",
)
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    default="auto",
    show_default=True,
    help="The shares of the tower's positions in the cosine, the cosine of each, or what the cosine loses where the "
    "photograph is hidden; auto takes the first where the model allows it, else the last.",
)
@crop_option
@common_options
def locate(image: Path, text: str, output: Path | None, method: Method, crop: Crop, model: str, as_json: bool) -> None:
    """Show where in IMAGE the thing is that TEXT says.

    \b
        clipita locate foto.jpg "il gatto" -o mappa.png

    The place is that of the highest value, from the left and from the top.
    """  # noqa: D301 (click's mark is the character, not its escape)
    if output is not None and output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise Unusable(phrase("{path!r} must end in .png, .jpg or .webp.", path=str(output)))
    loaded = load(model)
    found = loaded.locate(image, text, method=method, crop=crop)
    across, down = found.peak
    if output is not None:
        found.overlay().save(output)
    if as_json:
        print_json(
            image=str(image),
            text=text,
            cosine=found.cosine,
            method=found.method,
            peak=[across, down],
            map=[[None if value != value else round(value, 6) for value in row] for row in found.map.tolist()],
            model=loaded.name,
            fingerprint=loaded.fingerprint,
        )
    else:
        place = phrase("{across:.0%} from the left, {down:.0%} from the top", across=across, down=down)
        echo(f"{found.cosine:6.3f}  {place}")
    if output is not None:
        echo(str(output), err=True)
