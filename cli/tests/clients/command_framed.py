"""Runs commands on a server that has a length of four bytes before each request and each reply.

Usage: command_framed.py HOST PORT; commands are read from standard input, quit ends.
"""

import socket
import struct
import sys


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise EOFError(f"{len(data)} of {count} bytes came")
        data += piece
    return data


with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as server:
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            break
        if not command:
            continue
        request = command.encode()
        server.sendall(struct.pack("!I", len(request)) + request)
        (length,) = struct.unpack("!I", read_exactly(server, 4))
        print(read_exactly(server, length).decode(), end="")
