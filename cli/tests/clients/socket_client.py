"""Talks to an echo server with Python's socket module.

Usage: socket_client.py PATH URI...

PATH is where this client may bind a Unix datagram socket of its own. Prints each URI whose server
echoed everything.
"""

import os
import socket
import sys
from urllib.parse import urlsplit

PATIENCE = 20


def connect(uri, own_path):
    parts = urlsplit(uri)
    kind = socket.SOCK_DGRAM if parts.scheme in ("udp", "unixgram") else socket.SOCK_STREAM
    if parts.scheme in ("unix", "unixgram"):
        client = socket.socket(socket.AF_UNIX, kind)
        if kind == socket.SOCK_DGRAM:
            client.bind(own_path)
        there = parts.path
    else:
        family = socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET
        client = socket.socket(family, kind)
        there = (parts.hostname, parts.port)
    client.settimeout(PATIENCE)
    client.connect(there)
    return client


def receive_exactly(client, count):
    received = b""
    while len(received) < count:
        piece = client.recv(count - len(received))
        assert piece, f"the end came after {len(received)} bytes of {count}"
        received += piece
    return received


def talk_by_stream(client):
    for message in (b"good morning\n", b"\0\xff" * 5000):
        client.sendall(message)
        assert receive_exactly(client, len(message)) == message
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b"", "more came than was sent"


def talk_by_datagrams(client):
    messages = [b"one", b"", b"two", b"\0\xff" * 500]
    for message in messages:
        client.send(message)
    for message in messages:
        assert client.recv(65536) == message


def main():
    own_path, *uris = sys.argv[1:]
    for uri in uris:
        with connect(uri, own_path) as client:
            if client.type == socket.SOCK_STREAM:
                talk_by_stream(client)
            else:
                talk_by_datagrams(client)
        if os.path.exists(own_path):
            os.remove(own_path)
        print(uri)


main()
