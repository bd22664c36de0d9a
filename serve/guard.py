"""What every request passes: host, key, limits; and what every answer carries away."""

import asyncio
import logging
import os
import re
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Mapping,
    MutableMapping,
)
from types import coroutine
from typing import Any

import msgspec

from housing_lib.settings import Settings, get_settings
from serve import metrics
from serve.champion import NoChampionError, StartingError
from serve.keys import Key, find_key, is_loopback
from serve.prediction_log import LogOffError, LogUnavailableError
from serve.problems import RefusedError, refuse
from serve.schemas import Notice, Problem
from serve.service import Service

log = logging.getLogger("uvicorn.error")

LARGEST_BODY = 8 * 1024 * 1024
BODY_SECONDS = 10.0
ANSWER_SECONDS = 60.0
# What a route asks of a key; all others are open.
SCOPES = {
    "/predict": "predict",
    "/predict/batch": "predict",
    "/districts": "predict",
    "/districts/nearest": "predict",
    "/model": "predict",
    "/actuals": "actuals",
    "/metrics": "metrics",
}
ALWAYS_OPEN = ("/health/live", "/health/ready", "/metrics")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
CLOSING = ((b"connection", b"close"),)
_POLICY = (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'")
# The documentation's page starts itself by a script within the page.
_DOCS_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class StoppedError(Exception):
    """A request that is not let through, with its status and what to do."""

    def __init__(self, status: int, kind: str, notice: Notice, **headers: str) -> None:
        super().__init__(notice.detail)
        self.status, self.kind, self.notice, self.headers = status, kind, notice, headers


class Call:
    """One request on its way, and what is noted of it."""

    __slots__ = ("headers", "key", "method", "path", "request_id", "started", "status", "version")

    def __init__(self, scope: Scope) -> None:
        self.started = time.perf_counter()
        self.method, self.path = scope["method"], _path(scope)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex().encode()
        self.status, self.key, self.version = 0, "", 0


def _path(scope: Scope) -> str:
    """The path by which the routes are found: without the prefix of a proxy before the server."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    below = path.removeprefix(root)
    return below if below.startswith("/") else path


class Guard:
    """The outermost layer: an ASGI application around the routes.

    Parameters
    ----------
    service
        What answers `POST /predict`, before the routes are searched for it.
    keys
        Whoever may call; nobody has to show one if there are none.
    """

    def __init__(self, app: Any, *, service: Service, keys: Collection[Key] = ()) -> None:
        settings = get_settings()
        self.app, self.service = app, service
        self.keys = keys
        self.hosts = allowed_hosts(settings)
        self.open = settings.without_keys or bool(self.keys)
        self.most = settings.concurrency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, have it answered, and note it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = Call(scope)
        sending = self._noting(call, send)
        self.service.at_work += 1
        try:
            self._let_in(call, scope)
            await self._answer(call, scope, receive, sending)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._answer_failure(call, error, sending)
        finally:
            self.service.at_work -= 1
            self.service.answered += 1
            self._note(call, scope)

    async def _answer(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        if call.method != "POST" or call.path not in SCOPES:
            await self.app(scope, receive, send)
            return
        body = await read_body(call.headers, receive)
        if call.path == "/predict" and not scope["query_string"]:
            answer, call.version = await self.service.predict(body, call.headers)
            await respond(send, 200, answer)
        else:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app(scope, _replaying(body, receive), send)

    def _let_in(self, call: Call, scope: Scope) -> None:
        host = call.headers.get(b"host", b"").lower()
        if host not in self.hosts and _name_of(host) not in self.hosts and b"*" not in self.hosts:
            raise stopped(400, "host", "the Host header names no host of this server",
                          "use its own address, or name the host in HOUSING_HOSTS")  # fmt: skip
        if not self.open and not _is_local(scope.get("client")):
            raise stopped(403, "key", "the server has no API keys and answers this machine only",
                          "set HOUSING_API_KEYS; `housing key NAME` makes one")  # fmt: skip
        if self.keys and call.path in SCOPES:
            self._check_key(call, SCOPES[call.path])
        if self.service.at_work > self.most and call.path not in ALWAYS_OPEN:
            at_work, advice = f"{self.most} requests are at work already", "try again in a second"
            raise stopped(503, "busy", at_work, advice, retry_after="1")

    def _check_key(self, call: Call, scope: str) -> None:
        given = call.headers.get(b"authorization", b"")
        kind, _, bearer = given.partition(b" ")
        shown = bearer.strip() if kind.lower() == b"bearer" else given
        secret = call.headers.get(b"x-api-key", shown).decode("latin-1")
        key = find_key(self.keys, secret) if secret else None
        if key is None:
            raise stopped(401, "key", "no valid API key", "send one in the header X-API-Key",
                          www_authenticate="Bearer")  # fmt: skip
        call.key = key.name
        if scope not in key.scopes:
            raise stopped(403, "key", f"the key '{key.name}' is not for {scope}",
                          "use a key with that scope")  # fmt: skip

    def _noting(self, call: Call, send: Send) -> Send:
        policy = _DOCS_POLICY if call.path.startswith("/docs") else _POLICY
        added = [*_SAFE, policy, (b"x-request-id", call.request_id)]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                closing = CLOSING if self.service.leaving else ()
                message["headers"] = [*message.get("headers", ()), *added, *closing]
            await send(message)

        return sending

    async def _answer_failure(self, call: Call, error: Exception, send: Send) -> None:
        status, kind, content, headers = failure(error)
        metrics.refused.labels(kind).inc()
        if status == 500:
            request = call.request_id.decode()
            log.error("Request %s failed", request, exc_info=error)
        if not call.status:
            await respond(send, status, msgspec.json.encode(content), headers)

    def _note(self, call: Call, scope: Scope) -> None:
        seconds = time.perf_counter() - call.started
        call.version = call.version or scope.get("state", {}).get("model_version", 0)
        metrics.note(call.path, call.status, call.version, seconds)
        self.service.access_log.add(call, scope, seconds)


def failure(error: Exception) -> tuple[int, str, msgspec.Struct, dict[str, str]]:
    """The status, kind, content and headers of the answer to a request that failed."""
    if isinstance(error, RefusedError):
        closing = {"connection": "close"} if error.status in (408, 413) else {}
        return error.status, "refused", error.refusal, closing
    if isinstance(error, StoppedError):
        return error.status, error.kind, error.notice, error.headers
    if isinstance(error, StartingError):
        return 503, "no model", Notice(str(error), "try again in a second"), {"retry-after": "1"}
    if isinstance(error, NoChampionError):
        return 503, "no model", Notice(str(error), WAY_OUT), {"retry-after": "5"}
    if isinstance(error, LogOffError):
        advice = "keep true prices until the server's operator has switched the log on"
        return 503, "log", Notice(str(error), advice), {}
    if isinstance(error, LogUnavailableError):
        advice = "try again; the server's operator finds the reason in its log"
        return 503, "log", Notice(str(error), advice), {"retry-after": "5"}
    if isinstance(error, TimeoutError):
        notice = Notice(f"no answer within {ANSWER_SECONDS:.0f} s", "send smaller batches")
        return 503, "time", notice, {"retry-after": "5"}
    return 500, "failed", Notice("the server failed", "its log says why"), {}


WAY_OUT = (
    "Mend what `detail` says (`housing run` trains and promotes a model); "
    "the server takes it up by itself."
)


def stopped(status: int, kind: str, detail: str, what_to_do: str, **headers: str) -> StoppedError:
    """The error of a request that is not let through."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return StoppedError(status, kind, Notice(detail, what_to_do), **named)


async def respond(
    send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Send a whole answer in JSON."""
    fixed = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    more = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    start = {"type": "http.response.start", "status": status, "headers": [*fixed, *more]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def read_body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """The whole body of a request.

    Raises
    ------
    RefusedError
        If it is larger than `LARGEST_BODY`, or takes longer than `BODY_SECONDS` to arrive.
    """
    if int(headers.get(b"content-length", b"0")) > LARGEST_BODY:
        raise _too_large(headers[b"content-length"].decode())
    receiving = _received(receive)
    try:
        wish = receiving.send(None)
    except StopIteration as done:  # most bodies are there already, and a timer costs more than they
        arrived: bytes = done.value
        return arrived
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _going_on(receiving, wish)
    except TimeoutError:
        expected = f"the whole body within {BODY_SECONDS:.0f} s"
        late = Problem("(body)", "did not arrive in time", "a part of it", expected)
        raise refuse([late], status=408, what="request") from None


@coroutine
def _going_on(begun: Coroutine[Any, Any, bytes], wish: object) -> Generator[object, Any, bytes]:
    """The result of a coroutine that was begun, and wishes to wait for something."""
    try:
        yield wish
    except BaseException:
        begun.close()
        raise
    found: bytes = yield from begun
    return found


async def _received(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    parts, size = [], 0
    while True:
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            raise _too_large(f"more than {LARGEST_BODY}")
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _too_large(found: str) -> RefusedError:
    expected = f"at most {LARGEST_BODY:,} bytes; send several batches"
    problem = Problem("(body)", "too large", f"{found} bytes", expected)
    return refuse([problem], status=413, what="request")


def _replaying(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def allowed_hosts(settings: Settings) -> frozenset[bytes]:
    """The names by which the server may be called, without ports."""
    more = [name.strip() for name in settings.hosts.split(",") if name.strip()]
    own = f"[{settings.host}]" if ":" in settings.host else settings.host
    return frozenset(
        name.lower().encode() for name in ("localhost", "127.0.0.1", "[::1]", own, *more)
    )


def _name_of(host: bytes) -> bytes:
    name, _, port = host.rpartition(b":")
    return name if port.isdigit() else host


def _is_local(client: Any) -> bool:
    return not client or is_loopback(client[0])  # none: a Unix socket
