"""What becomes of a good request in hostile hands: one function for each kind of damage."""

import json
import random
from dataclasses import replace
from urllib.parse import quote

from newsletter.provider.events import BATCH, ISSUE, MADE, NOTICE, SEND, SUBSCRIBER
from newsletter.sandbox.events import Signer
from tests.fuzz.requests import TEXTS, Hostile, Raw

HEADERS = tuple(
    name.encode()
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "connection", "cookie"),
        *("content-encoding", "content-length", "content-type", "expect", "forwarded", "host"),
        *("if-match", "if-modified-since", "if-none-match", "if-range", "keep-alive", "origin"),
        *("hx-request", "last-event-id", "range", "referer", "sec-fetch-site", "te", "trailer"),
        *("transfer-encoding", "upgrade", "user-agent", "via", "x-csrf-token", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-proto", "x-twilio-email-event-webhook-signature"),
        *("x-twilio-email-event-webhook-timestamp", "x-http-method-override", "x", ""),
    )
)
METHODS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PRI get G\xc3\xa9T".split()
METHODS += [b"", b"A" * 20_000, b"GET\0", b"M-SEARCH", b"PROPFIND"]
#: In the place of the header, and of none that is repeated: a repeated Host ends at the parser.
IN_PLACE: dict[bytes, tuple[bytes, ...]] = {
    b"Host": (
        *(b"", b"evil.example", b"[::1", b"[::1]:99999", b"a" * 9000, b"\xff\xfe", b"..", b"a b"),
        *(b"127.0.0.1:x", b"evil.example/..", b"user:pass@evil.example", b"127.0.0.1, evil", b":"),
        *(b"xn--a", b"\xe2\x80\xae.example", b"a%00b", b"]", b"[", b"127.0.0.1:-1", b"?a#b"),
    ),
    b"X-Forwarded-For": (
        *(
            b"192.0.2.1",
            b"::1",
            b"[::ffff:1.2.3.4]:80",
            b"1.2.3.4, " * 2000,
            b"," * 8000,
            b"_hidden",
        ),
        *(b"999.1.1.1", b"fe80::1%eth0", b"\xff", b"127.0.0.1:80:80", b"unknown", b"[" * 100),
    ),
    b"X-Forwarded-Proto": (b"javascript", b"https", b"http,https", b"\xff", b"h" * 9000),
    b"X-Forwarded-Host": (
        b"evil.example",
        b"[",
        b"a:b:c",
        b"\xff",
        b"a" * 9000,
        b"127.0.0.1:99999",
    ),
    b"X-Forwarded-Prefix": (b"/evil", b"//evil.example", b"/news/news"),
    b"Forwarded": (
        *(
            b"for=192.0.2.1;host=evil.example;proto=javascript",
            b'for="[::1',
            b'for="' + b"\\" * 8000,
        ),
        *(b"for=" * 2000, b";,;,;" * 1600, b'for="\\"";' * 800, b"for=_x;by=\xff", b"=" * 8000),
    ),
    b"Cookie": (
        *(b"console=", b"console=" + b"a" * 43, b"console=" + b"\xff" * 43, b"console" * 3000),
        *(
            b'a="' + b"\\" * 60_000,
            b";" * 60_000,
            b"=" * 8000,
            b"a=b; " * 8000,
            b"__Host-console=x",
        ),
        *(b'console="' + b"\\012" * 9000 + b'"', b"\0", b"console=" + b"\xd9\xa3" * 43),
    ),
    b"Content-Length": (
        *(
            b"-1",
            b"+5",
            b"5, 5",
            b"5, 6",
            b"0x5",
            b"9" * 30,
            b"",
            b"1e3",
            b"\xc2\xb2",
            b"0",
            b"00005",
        ),
        *(b"99999999", b" 5", b"5 ", b"5;a=b", b"\xd9\xa3", b"1_0", b"9" * 5000),
    ),
    b"Content-Type": (
        *(b"", b";", b"text/html; charset=" + b"x" * 8000, b"multipart/form-data; boundary="),
        *(
            b'multipart/form-data; boundary="' + b"\\" * 3000,
            b"a" * 9000,
            b"application/json; charset=x",
        ),
        *(
            b"application/x-www-form-urlencoded; charset=\xff",
            b"multipart/form-data; boundary=a;" * 500,
        ),
    ),
    b"Accept": (b"text/html;q=x", b"," * 9000, b"\xff", b"application/json", b"text/event-stream"),
    b"Accept-Language": (b"de-" * 3000, b"*;q=-1", b"\xff", b"zz-ZZ,;q"),
    b"Range": (b"bytes=9-1", b"bytes=" + b"0-," * 3000, b"bytes=-" + b"9" * 400, b"bytes=\xff"),
    b"If-None-Match": (b'W/"', b"*", b'"",' * 3000, b"\xff"),
    b"If-Modified-Since": (b"x", b"Thu, 01 Jan 9999999 00:00:00 GMT", b"\xff", b"9" * 400),
    b"Origin": (b"null", b"http://[", b"\xff", b"https://127.0.0.1:99999999"),
    b"Expect": (b"100-continue", b"200-ok", b"100-continue, 100-continue"),
    b"Connection": (b"upgrade, close", b"keep-alive, close", b"content-length, host, close"),
    b"Authorization": (b"Basic " + b"=" * 3000, b"Bearer \xff", b"Basic OmE=", b"Basic /w==", b"x"),
    b"Transfer-Encoding": (b"chunked", b"identity", b"chunked, identity", b"gzip", b"\x0bchunked"),
}
BODIES = (
    (b"application/json", b"{"),
    (b"application/json", b"[" * 30_000),
    (b"application/json", b'{"a": 1e999, "b": "\\u0000", "c": "\\ud800"}'),
    (b"application/json", b'{"email": ["a"], "topics": {"a": 1}, "attributes": [[]], "next": 5}'),
    (b"application/json", b'{"email": "a@example.org", "name": "\\ud800", "opened": 1e308}'),
    (b"application/json", b"\xff\xfe"),
    (b"application/x-www-form-urlencoded", b"a=%ff%00&a&&=&csrf=%ff"),
    (b"application/x-www-form-urlencoded; charset=utf-7", b"email=+AGE-"),
    (b"application/x-www-form-urlencoded", b"email=a%40example.org&email=b&name=%00&topics=%ff"),
    (b"application/x-www-form-urlencoded", b"&".join(b"a%d=b" % n for n in range(3000))),
    (b"application/x-www-form-urlencoded", b"a=" + b"b" * 70_000),
    (b"multipart/form-data", b"--x\r\n"),
    (
        b"multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n\0\r\n--x--",
    ),
    (b"multipart/form-data; boundary=" + b"x" * 300, b"--" + b"x" * 300),
    (b"multipart/form-data; boundary=x", b"--x\r\nA" * 1000),
    (b"multipart/form-data; boundary=\xff", b"--\xff--"),
    (b"text/xml", b"<a/>"),
    (b"", b"\0" * 1000),
)
#: What a value of an event may be.
VALUES = (*TEXTS, 0, -1, 10**30, 1.5, None, True, [], {}, [["a"]], {"a": {"b": []}})
EVENTS = "delivered bounce dropped open click spamreport unsubscribe deferred processed x".split()
FIELDS = (
    *("email", "event", "timestamp", "sg_event_id", "sg_message_id", "sg_machine_open", "url"),
    *("reason", "response", "type", "status", "bounce_classification", "useragent", "ip"),
    *("attempt", "smtp-id", "url_offset", "asm_group_id", "category"),
    *(ISSUE, SEND, BATCH, SUBSCRIBER, MADE, NOTICE),
)
#: SendGrid's key, by which events are signed that get past the door.
SIGNER = Signer()


def as_it_is(raw: Raw, _dice: random.Random) -> bytes:
    """Nothing but the values is odd."""
    return bytes(raw)


def method(raw: Raw, dice: random.Random) -> bytes:
    """Another method."""
    return bytes(replace(raw, method=dice.choice(METHODS)))


def target(raw: Raw, dice: random.Random) -> bytes:
    """Another address."""
    number = dice.choice([b"0", b"9" * 18, b"9" * 19, b"9" * 5000, b"-1", b"%D9%A3", b"1.0"])
    odd = dice.choice(
        [
            raw.target.replace(b"/", b"//"),
            raw.target + b"/",
            raw.target + b"/%2e%2e/%00/%ff",
            raw.target.replace(b"/", b"/%2e/"),
            raw.target.replace(b"/", b"%2f"),
            b"/news" * 500 + raw.target,
            b"http://evil.example" + raw.target,
            b"//evil.example" + raw.target,
            b"*",
            b"evil.example:443",
            raw.target + b"#" + bytes(dice.randrange(33, 255) for _ in range(9)),
            raw.target + b"?" + b"a=b&" * 3000,
            raw.target + b"?" + b"%" * 3000,
            raw.target + b"?csrf=%ff&next=//evil.example&page=%00&after=" + b"9" * 30,
            raw.target.replace(b"1", number),
            raw.target.replace(b"x", quote(dice.choice(TEXTS)[:2000], safe="").encode()),
            b"",
            b"/" + b"a" * 70_000,
        ]
    )
    return bytes(replace(raw, target=odd))


def header(raw: Raw, dice: random.Random) -> bytes:
    """More headers, some of them many times."""
    more = [
        (dice.choice(HEADERS), dice.choice(TEXTS)[:4000].encode("utf-8", "replace"))
        for _ in range(dice.randint(1, 5))
    ]
    if dice.random() < 0.2:
        more = [(dice.choice(HEADERS), b"a")] * dice.choice([50, 500, 3000])
    return bytes(replace(raw, headers=dice.sample(raw.headers, len(raw.headers)) + more))


def in_place(raw: Raw, dice: random.Random) -> bytes:
    """Hostile values in the place of a header's own: Host, Forwarded, Cookie and all others."""
    names = dice.sample(sorted(IN_PLACE), dice.randint(1, 4))
    # What a proxy says counts as a whole.
    if dice.random() < 0.3:
        names = [b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto"]
    kept = [one for one in raw.headers if one[0] not in names]
    odd = [(name, dice.choice(IN_PLACE[name])) for name in names]
    return bytes(replace(raw, headers=kept + odd))


def without(raw: Raw, dice: random.Random) -> bytes:
    """Some headers less."""
    return bytes(replace(raw, headers=dice.sample(raw.headers, dice.randint(0, len(raw.headers)))))


def body(raw: Raw, dice: random.Random) -> bytes:
    """A body of another kind."""
    kind, odd = dice.choice(BODIES)
    return _with_body(raw, kind, odd)


def parts(raw: Raw, dice: random.Random) -> bytes:
    """The form as its page sends it with a file, and a file that nobody expects."""
    edge = dice.choice([b"x", b"-" * 60, b"x" * 70])
    pieces = [
        b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), text.encode())
        for name, text in raw.fields.items()
    ]
    called = dice.choice([b"a.csv", b"../../a", b"\0", b"a" * 3000, b"\xff", b'"', b""])
    holds = dice.choice(
        [
            b"email,name\na@example.org,A\n",
            b"email\n" + b'"' * 3000,
            dice.randbytes(3000),
            b"\xff\xfee\0m\0",
            b"email," * 2000 + b"\n" + b"," * 5000,
            b"PK\x03\x04" + dice.randbytes(300),
            b"",
        ]
    )
    file = b'Content-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s' % (called, holds)
    pieces.insert(dice.choice([0, len(pieces)]), file)
    whole = b"".join(b"--" + edge + b"\r\n" + one + b"\r\n" for one in pieces)
    end = dice.choice([b"--" + edge + b"--\r\n", b"", b"--" + edge])
    return _with_body(raw, b"multipart/form-data; boundary=" + edge, whole + end)


def events(raw: Raw, dice: random.Random) -> bytes:
    """A post of events with SendGrid's own signature, and nothing else that is as it should be."""
    names = (
        "email event timestamp sg_event_id reason type status url useragent ip send batch".split()
    )
    names += ["subscriber", "variant", "sg_message_id", "bounce_classification", "response"]
    posted: object = [
        {name: dice.choice(VALUES) for name in FIELDS if dice.random() < 0.5}
        | ({"event": dice.choice(EVENTS), "timestamp": 1796000000} if dice.random() < 0.8 else {})
        for _ in range(dice.choice([0, 1, 3, 50]))
    ]
    if dice.random() < 0.1:
        posted = dice.choice(VALUES)
    data = json.dumps(posted).encode()
    signed = [(name.encode(), value.encode()) for name, value in SIGNER.headers(data).items()]
    below = raw.target[:5] if raw.target.startswith(b"/news/") else b""
    asked = replace(raw, method=b"POST", target=below + b"/webhooks/sendgrid/events")
    return _with_body(replace(asked, headers=raw.headers + signed), b"application/json", data)


def chunks(raw: Raw, dice: random.Random) -> bytes:
    """A body in chunks, whose sizes and codings are garbage."""
    kept = [one for one in raw.headers if one[0] != b"Content-Length"]
    size = dice.choice(
        [
            *(b"%x" % len(raw.body), b"-1", b"zz", b"f" * 20, b"0x5", b"", b"0", b" 5", b"5 "),
            *(b"5;a=" + b"b" * 5000, b"00000000005", b"\xff", b'5;a="\r\n"', b"5\n5"),
        ]
    )
    odd = size + b"\r\n" + raw.body + b"\r\n0\r\n" + dice.choice([b"\r\n", b"A: b\r\n\r\n", b""])
    if dice.random() < 0.3:
        odd = b"".join(b"1\r\n%c\r\n" % byte for byte in raw.body[:2000]) + b"0\r\n\r\n"
    coding = dice.choice(
        [b"chunked", b"chunked", b"chunked, chunked", b"gzip, chunked", b"identity", b"\x0bchunked"]
    )
    return bytes(replace(raw, headers=[*kept, (b"Transfer-Encoding", coding)], body=odd))


def lengths(raw: Raw, dice: random.Random) -> bytes:
    """More lengths than one."""
    more = [(b"Content-Length", dice.choice(IN_PLACE[b"Content-Length"]))]
    if dice.random() < 0.5:
        more.append((b"Transfer-Encoding", b"chunked"))
    return bytes(replace(raw, headers=[*raw.headers, *more]))


def version(raw: Raw, dice: random.Random) -> bytes:
    """Another version of HTTP, or none."""
    odd = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"http/1.1", b"HTTP/1.1 x", b""]
    return bytes(replace(raw, version=dice.choice(odd)))


def lines(raw: Raw, dice: random.Random) -> bytes:
    """Lines that end in another way."""
    return bytes(replace(raw, end=dice.choice([b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\0\r\n"])))


def flipped(raw: Raw, dice: random.Random) -> bytes:
    """Some bytes are others."""
    data = bytearray(bytes(raw))
    for _ in range(dice.choice([1, 2, 5, 30])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def cut(raw: Raw, dice: random.Random) -> bytes:
    """The end is missing."""
    data = bytes(raw)
    return data[: dice.randrange(len(data))]


def spliced(raw: Raw, dice: random.Random) -> bytes:
    """A piece is missing, or comes often, with noise before it."""
    data = bytes(raw)
    a, b = sorted(dice.randrange(len(data)) for _ in range(2))
    noise = dice.randbytes(dice.choice([0, 1, 10, 1000]))
    return data[:a] + noise + data[a:b] * dice.choice([0, 2, 20]) + data[b:]


def noise(_raw: Raw, dice: random.Random) -> bytes:
    """No HTTP at all."""
    return dice.choice([dice.randbytes(2000), b"\x16\x03\x01\x02\x00\x01", b"\r\n" * 500, b"\0"])


def pipelined(raw: Raw, dice: random.Random) -> bytes:
    """Some requests at once, without waiting for an answer."""
    kept = replace(raw, headers=[one for one in raw.headers if one[0] != b"Connection"])
    return bytes(kept) * dice.choice([2, 5]) + bytes(raw)


def _with_body(raw: Raw, kind: bytes, data: bytes) -> bytes:
    kept = [one for one in raw.headers if not one[0].startswith(b"Content-")]
    length = (b"Content-Length", b"%d" % len(data))
    return bytes(replace(raw, headers=[*kept, (b"Content-Type", kind), length], body=data))


#: Odd values in a request that is otherwise good get furthest, and so come more often.
HOSTILE: tuple[Hostile, ...] = (
    *(as_it_is, as_it_is, as_it_is, in_place, in_place, parts),
    *(method, target, header, without, body, events, chunks, lengths, version, lines),
    *(flipped, cut, spliced, noise, pipelined),
)
