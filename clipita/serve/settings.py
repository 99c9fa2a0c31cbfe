"""Define `Settings`, what the server allows, and the names under which it answers as another model."""

import dataclasses
import ipaddress
from collections.abc import Mapping

from clipita.errors import ClipitaError

# The width that Immich's own list gives to the embeddings of some models, which its database is made for.
KNOWN_WIDTHS = {
    "ViT-B-32__openai": 512,
    "ViT-B-32__laion2b_e16": 512,
    "XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k": 512,
    "ViT-B-32-SigLIP2-256__webli": 768,
    "ViT-B-16-SigLIP2__webli": 768,
}
_LEAST_TOKEN = 16  # characters; those that are made here have 43


@dataclasses.dataclass(frozen=True)
class Settings:
    """Says who may ask, how much at once, and under which names.

    Attributes:
        host: The address to listen at.
        port: 0 takes a free one.
        token: What a client must know; None only where no other machine can connect.
        hosts: Further names by which browsers and programs may call this machine.
        open_to_immich: Whether Immich's own requests need no token, which Immich cannot send. They embed what they
            bring, and read nothing that is here.
        aliases: Names of models of other projects that this one answers to, each with the width that vectors get by
            zeros at their end. Cosines do not change.
        max_upload: The most bytes of a request's body.
        max_pixels: The most pixels of a picture.
        max_waiting: The most pictures, texts and other questions that wait, each; further ones are answered 503.
        max_requests: The most requests at one time, those included that are still being sent.
        body_seconds: How long a client may take to send a request's head, and then its body.
    """

    host: str = "127.0.0.1"
    port: int = 3003
    token: str | None = None
    hosts: tuple[str, ...] = ()
    open_to_immich: bool = False
    aliases: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    max_upload: int = 32 << 20
    max_pixels: int = 100_000_000
    max_waiting: int = 256
    max_requests: int = 512
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ClipitaError(f"at {self.host!r} other machines can connect, so a token is needed.")
        if self.token is not None and (len(self.token) < _LEAST_TOKEN or not self.token.isascii()):
            raise ClipitaError(f"a token has at least {_LEAST_TOKEN} ASCII characters. Leave it out to get a good one.")

    def allowed_hosts(self) -> frozenset[str]:
        """Return the names in a request's Host header that mean this machine, in lower case and without a port."""
        own = {self.host} - {"0.0.0.0", "::", ""}
        return frozenset(name.lower().strip("[]") for name in {"localhost", "127.0.0.1", "::1", *own, *self.hosts})


def is_loopback(host: str) -> bool:
    """Tell whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_alias(text: str) -> tuple[str, int]:
    """Read "NAME=WIDTH", or "NAME" alone where its width is known.

    Raises:
        ClipitaError: The width is missing or no number.
    """
    name, _, width = text.partition("=")
    if not width and name in KNOWN_WIDTHS:
        return name, KNOWN_WIDTHS[name]
    if not name or not width.isdigit() or not 1 <= int(width) <= 65536:
        known = ", ".join(KNOWN_WIDTHS)
        raise ClipitaError(f"{text!r} is no NAME=WIDTH, such as ViT-B-32__openai=512. Without a width: {known}.")
    return name, int(width)
