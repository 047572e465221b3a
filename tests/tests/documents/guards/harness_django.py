"""A shop behind the Django guard, with Django where it is installed and what the guard uses of it where not. Arguments:
the port."""
import http.server
import sys
import types

try:
    import django
    from django.conf import settings

    settings.configure(SHADOW_NEUTRAL=["/orders"])
    from django.http import HttpResponse
    from django.test import RequestFactory
except ImportError:
    django = None

    class HttpResponse(dict):
        def __init__(self, content=b"", status=200):
            super().__init__()
            self.content = content
            self.status_code = status

    package = types.ModuleType("django")
    package.conf = types.ModuleType("django.conf")
    package.conf.settings = types.SimpleNamespace(SHADOW_NEUTRAL=["/orders"])
    package.http = types.ModuleType("django.http")
    package.http.HttpResponse = HttpResponse
    for module in (package, package.conf, package.http):
        sys.modules[module.__name__] = module

from shadow_guard import outward
from shadow_guard_django import ShadowGuard

effects = 0


def send_mail():
    global effects
    effects += 1


def shop(request):
    if request.method == "POST":
        outward(send_mail)
        return HttpResponse(status=201)
    return HttpResponse(str(effects).encode() if request.path == "/effects" else b"")


app = ShadowGuard(shop)


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if django:
            known = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
            request = RequestFactory().generic(self.command, self.path, **known)
        else:
            request = types.SimpleNamespace(method=self.command, path=self.path, headers=headers)
        response = app(request)
        self.send_response(response.status_code)
        for name, value in response.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("content-length", str(len(response.content)))
        self.end_headers()
        self.wfile.write(response.content)

    do_GET = do_HEAD = do_POST = serve

    def log_message(self, *_):
        pass


print("Django is", "installed" if django else "not installed: what the guard uses of it is stood in for")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
