"""`eozip serve STORE...`."""

from __future__ import annotations

import webbrowser
from urllib.parse import urlsplit

import click

from eozip import serve as served
from eozip.arguments import Place
from eozip.cli.common import RASTER, READ_STORE, say, tell, threads_option, use_threads
from eozip.errors import InputError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("stores", nargs=-1, required=True, type=READ_STORE, metavar="STORE...")
@click.option(
    "--original",
    multiple=True,
    type=RASTER,
    metavar="IN",
    help="What was encoded, to swipe against and to draw the error of; may be repeated (dates of one scene).",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one."
)
@click.option(
    "--cache",
    default=512,
    show_default=True,
    type=click.IntRange(16, 1 << 20),
    metavar="MB",
    help="Decoded pixels that are kept at most.",
)
@click.option(
    "--at-once",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Requests that compute at the same time.",
)
@click.option("--base", metavar="URL", help="Address from outside, where a proxy stands before the server.")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@threads_option
def serve(
    stores: tuple[Place, ...],
    original: tuple[str, ...],
    host: str,
    port: int,
    cache: int,
    at_once: int,
    base: str | None,
    show: bool,
    threads: int | None,
) -> None:
    """Show stores on a map in a browser, and as tiles, WMTS and series for other programs.

    Only this machine can reach it, unless --host says otherwise.
    """
    try:
        create_app, open_layers = served.create_app, served.open_layers
    except ImportError as error:
        raise InputError(f"eozip serve needs {error.name}: pip install 'eozip[serve]'") from error
    if base is not None and not _is_address(base):
        raise InputError(f"base: expected an address such as https://example.org/maps, got {base!r:.80}")
    use_threads(threads)
    layers = open_layers(stores, original, cache_bytes=cache << 20)
    bound = served.bind("127.0.0.1" if host == "localhost" else host, port)
    is_open = host not in _LOOPBACK
    hosts = () if is_open else _LOOPBACK
    app = create_app(
        layers, limits=served.Limits(at_once=at_once), hosts=hosts, base=base and base.rstrip("/")
    )
    address = served.address_of(bound)
    if is_open:
        say(f"anyone who reaches {host} can look at these stores; nothing asks for a password")
    tell(f"{address}\n  QGIS: Layer > Add WMS/WMTS > {address}/wmts\n  Ctrl+C ends")
    if show:
        webbrowser.open(address)
    served.run_app(app, bound)


def _is_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text
