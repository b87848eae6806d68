"""Serve the page: load the model, bind the address, answer until Ctrl-C."""

import errno
import ipaddress
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from blip2vqa.api import VQAModel
from blip2vqa.config.demo import DemoArguments
from blip2vqa.demo.answers import loaded_names
from blip2vqa.demo.cards import short_name
from blip2vqa.demo.pictures import MAX_MEGABYTES
from blip2vqa.demo.starting import example_pictures, load_model
from blip2vqa.utils.console import say
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import scratch_folder

LAST_ANSWERS = 60
"""Seconds that answers under way may take after Ctrl-C."""


def serve(args: DemoArguments) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then give the answers under way, and delete what was uploaded.

    Raises `InputError` for an address that cannot be had, and for a model that cannot be loaded.
    """
    with bind(args.host, args.port) as listening, scratch_folder() as uploads:
        examples = example_pictures(args.image_dir)
        model = load_model(args)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = make_server(model, examples, args.host, uploads)
        host, port = listening.getsockname()[:2]
        say(f"Models: {', '.join(loaded_names(model))}, on {model.spec.base_model_id}")
        say(f"Demo: http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops it)")
        with suppress(KeyboardInterrupt):  # which uvicorn raises once more when it has stopped
            server.run(sockets=[listening])
    say("Stopped")


def bind(host: str, port: int) -> socket.socket:
    """Listen at an address. Raises `InputError` where that is not possible."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN):
            raise InputError(
                f"--host {host}: is no address of this machine; give another, such as 127.0.0.1"
            ) from error
        remedy = "choose another, or 0 for any that is free"
        why = os.strerror(error.errno).lower()
        raise InputError(f"--port {port}: cannot be had on {host}: {why}; {remedy}") from error


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def make_server(model: VQAModel, examples: list[Path], host: str, uploads: Path):
    """Make the uvicorn server of the page, its API and `/health`; `uploads`: folder for what users send."""
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from blip2vqa.demo.guard import Guard
    from blip2vqa.demo.page import STYLING, build_page

    blocks = build_page(model, examples, open_to_changes=is_loopback(host))
    app = FastAPI(title="blip2vqa demo", openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/health")
    def health() -> dict:
        return {"status": "ok", "base_model": short_name(model.spec.base_model_id), "models": loaded_names(model)}

    gradio.mount_gradio_app(
        app, blocks, path="/", max_file_size=MAX_MEGABYTES * 10**6, show_error=False, allowed_paths=[], run_history=False,
        ssr_mode=False, footer_links=["api"], mcp_server=False, enable_monitoring=False, **STYLING,
    )  # fmt: skip
    blocks.has_launched = True  # a mounted page is not marked so, and would take any path of this machine for an upload
    app.add_middleware(Guard, uploads=uploads)
    if is_loopback(host):  # a page of another site, whose name leads here, is no user
        # "[": how the middleware reads an IPv6 address.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[", host])

    class Server(uvicorn.Server):
        async def shutdown(self, sockets=None) -> None:
            blocks.app.stop_event.set()  # ends the connections of pages that are open and wait for nothing
            await super().shutdown(sockets)

    return Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=LAST_ANSWERS))
