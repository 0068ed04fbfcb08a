"""``deployc serve``: `serve run`, with what people must know about it already done."""

from __future__ import annotations

from importlib.util import find_spec

import click

from serve.session import LOCAL, ServeOptions
from serve.supervisor import supervise

__all__ = ["serve"]


@click.command()
@click.argument("config", default="deploy.yaml", metavar="[DEPLOY_YAML]")
@click.option("--host", help="Listen here instead of where the file says.")
@click.option("--port", type=click.IntRange(0, 65535), help="As --host; 0: any free port.")
@click.option(
    "--address",
    default=LOCAL,
    show_default=True,
    help="'local': a Ray of its own. 'auto' or HOST:PORT: join that cluster.",
)
@click.option("--haproxy/--no-haproxy", default=True, help="HTTP ingress; on where there is one.")
@click.option("--unprotected", is_flag=True, help="Let other machines in without API keys.")
@click.option("--dashboard/--no-dashboard", default=False, help="Ray's dashboard; off.")
@click.option(
    "--try",
    "file",
    metavar="FILE",
    help="Once ready, send FILE to the first model and print the answer.",
)
@click.pass_context
def serve(ctx: click.Context, **options: str | int | bool | None) -> None:
    """Serve artifacts by Ray Serve, as deploy.yaml says.

    Prints the address and an example once the models are loaded and warm. Ctrl-C or SIGTERM
    answers what is in flight and stops everything that was started; a second one hurries.
    """
    if find_spec("ray") is None:  # said here: the process that imports it is another one
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    ctx.exit(supervise(ServeOptions(**options)))  # pyright: ignore[reportArgumentType] - click's values
