"""A server that speaks TLS by Python's ssl: secure.py CERTIFICATE KEY ACTION [ARGUMENT]. It prints its port."""

import socket
import ssl
import sys

certificate, key, action, *arguments = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


def head(connection):
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += connection.recv(1)
    return request


def answer(connection):
    if action == "sized":
        body = bytes(range(251)) * (int(arguments[0]) // 251)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    elif action == "to-end":
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello, world")
        connection.unwrap()
    elif action == "cut":
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello, wor")
    elif action == "redirect":
        location = arguments[0].encode()
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n")
    elif action == "request":
        body = request.decode().encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


while True:
    stream, _ = listener.accept()
    stream.settimeout(30)
    try:
        connection = context.wrap_socket(stream, server_side=True)
        if action in ("echo", "cut-echo"):
            while data := connection.recv(65536):
                connection.sendall(data)
            if action == "echo":
                # The client's end has come, and ours is still open.
                connection.sendall(b"after the end\n")
                connection.unwrap()
        else:
            request = head(connection)
            answer(connection)
        # Reads what is left, so that nothing is reset.
        stream.close()
        connection.close()
    except OSError:
        stream.close()
