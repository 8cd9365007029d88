"""A TLS client by Python and OpenSSL: `peer.py PORT CA ACTION [KEY=VALUE...]` prints what happened."""

import select
import socket
import ssl
import sys

port, authority, action = int(sys.argv[1]), sys.argv[2], sys.argv[3]
options = dict(word.split("=", 1) for word in sys.argv[4:])

context = ssl.create_default_context(cafile=authority)
if "version" in options:
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[options["version"]]
    context.minimum_version = context.maximum_version = version
if "certificate" in options:
    context.load_cert_chain(options["certificate"], options["key"])
if "alpn" in options:
    context.set_alpn_protocols(options["alpn"].split(","))
name = options.get("name", "localhost")


def connect(**more):
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(plain, server_hostname=name, **more)


def echo(stream, text):
    stream.sendall(text)
    got = b""
    while len(got) < len(text):
        part = stream.recv(65536)
        if not part:
            sys.exit("the stream ended after %d bytes" % len(got))
        got += part
    if got != text:
        sys.exit("other bytes came back")


def end(stream):
    stream.unwrap().close()


def run():
    if action == "echo":
        stream = connect()
        for length in [1, 100, 16384, 16385, 300000]:
            echo(stream, bytes(range(256)) * (length // 256) + b"x" * (length % 256))
        version = stream.version()
        end(stream)
        return "echo, %s" % version

    if action == "alpn":
        stream = connect()
        echo(stream, b"hello")
        agreed = stream.selected_alpn_protocol()
        end(stream)
        return "agreed on %s" % agreed

    if action == "truncate":
        stream = connect()
        echo(stream, b"hello")
        stream.close()
        return "cut off"

    if action == "wait":
        stream = connect(suppress_ragged_eofs=False)
        echo(stream, b"hello")
        more = stream.recv(100)
        return "more came: %r" % more if more else "closed by the server"

    if action == "resume":
        first = connect()
        echo(first, b"hello")
        session = first.session
        end(first)
        second = connect(session=session)
        echo(second, b"hello")
        resumed = second.session_reused
        end(second)
        return "resumed" if resumed else "not resumed"

    if action == "half-close":
        return half_close(b"question", wait=True).decode()

    if action == "finish":
        text = b"x" * int(options["size"])
        if half_close(text, wait=False) != text:
            sys.exit("other bytes came back")
        return "all came back after the end"

    if action == "frames":
        return frames()

    if action == "pump":
        return pump(bytes(range(256)) * (int(options["size"]) // 256))

    sys.exit("unknown action")


def frames():
    """Exchanges lines with `serveloop serve hello`, until that closes."""
    stream = connect()
    stream.sendall(b"bob\neve\nexit\n")
    got = b""
    while True:
        part = stream.recv(65536)
        if not part:
            break
        got += part
    stream.close()
    if got != b"Welcome!\nHello,bob\nHello,eve\n":
        sys.exit("other bytes came back: %r" % got)
    return "frames"


def pump(text):
    """Sends and reads the same, and reads only while it cannot send."""
    stream = connect()
    stream.setblocking(False)
    view, sent, got = memoryview(text), 0, bytearray()
    while len(got) < len(text):
        try:
            if sent < len(text):
                sent += stream.send(view[sent : sent + 16384])
                continue
        except ssl.SSLWantWriteError:
            pass
        try:
            part = stream.recv(16384)
            if not part:
                sys.exit("the stream ended after %d bytes" % len(got))
            got += part
        except ssl.SSLWantReadError:
            select.select([stream], [stream] if sent < len(text) else [], [], 10)
    stream.setblocking(True)
    end(stream)
    if got != text:
        sys.exit("other bytes came back")
    return "all came back"


def half_close(text, wait):
    """Sends this and `close_notify`, and reads what the server says, some of it before if we `wait`."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stream = context.wrap_bio(incoming, outgoing, server_hostname=name)

    def until(call):
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                result = None
            if outgoing.pending:
                plain.sendall(outgoing.read())
            if result is not None:
                return result
            part = plain.recv(65536)
            if part:
                incoming.write(part)
            else:
                incoming.write_eof()

    until(lambda: stream.do_handshake() or True)
    stream.write(text)
    got = until(lambda: stream.read(100)) if wait else b""
    try:
        stream.unwrap()
    except ssl.SSLWantReadError:
        plain.sendall(outgoing.read())
    plain.shutdown(socket.SHUT_WR)
    while True:
        try:
            part = until(lambda: stream.read(65536))
        except ssl.SSLZeroReturnError:
            break
        if not part:
            break
        got += part
    return got


try:
    print(run())
except ssl.SSLError as error:
    print("refused: %s" % (error.reason or error))
except OSError as error:
    print("refused: %s" % error.strerror)
