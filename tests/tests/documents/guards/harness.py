"""A shop behind the ASGI guard. Arguments: the port."""
import asyncio
import http.server
import sys

from shadow_guard import ShadowGuard, outward

effects = 0


def send_mail():
    global effects
    effects += 1


async def shop(scope, receive, send):
    status, body = 200, b""
    if scope["method"] == "POST":
        outward(send_mail)
        status = 201
    elif scope["path"] == "/effects":
        body = str(effects).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = ShadowGuard(shop, neutral=["/orders"])


class Server(http.server.BaseHTTPRequestHandler):
    """As much of an ASGI server as it takes."""

    protocol_version = "HTTP/1.1"

    def serve(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        path = self.path.split("?")[0]
        scope = {"type": "http", "method": self.command, "path": path, "headers": headers}

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                self.send_response(message["status"])
                for name, value in message["headers"]:
                    self.send_header(name.decode(), value.decode())
                self.end_headers()
            else:
                self.wfile.write(message["body"])

        asyncio.run(app(scope, receive, send))

    do_GET = do_HEAD = do_POST = serve

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
