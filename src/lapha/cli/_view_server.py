"""One page on loopback. It answers GET of itself alone, and no foreign Host."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOSTS = ("127.0.0.1", "localhost")


def make_server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of `page` on 127.0.0.1, not yet serving.

    Raises:
        OSError: the port is taken.
    """
    content = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            if host not in HOSTS:  # a name that a web page made point here
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path.split("?")[0] != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Requests for one's own page are no news."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def serve_page(page: str, port: int) -> None:
    """Serve `page` until Ctrl-C."""
    with make_server(page, port) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
