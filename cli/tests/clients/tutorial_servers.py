"""Servers as tutorials on sockets write them: what one recv gives is taken for one message, and
nothing is checked. `tutorial_servers.py NAME` prints its port and serves one connection."""

import socket
import struct
import subprocess
import sys
import time


def messages(connection):
    while True:
        data = connection.recv(1024)
        if not data:
            break
        yield data


def hello(connection):
    connection.send(b"Welcome!")
    for data in messages(connection):
        time.sleep(0.01)
        if data.decode("utf-8") == "exit":
            break
        connection.send(("Hello,%s" % data.decode("utf-8")).encode("utf-8"))


def echo(connection):
    for data in messages(connection):
        connection.send(data)


def timestamp(connection):
    for data in messages(connection):
        connection.send(b"[%s] %s" % (time.ctime().encode("utf-8"), data))


def output_of(data):
    return subprocess.run(data.decode("utf-8").split(), stdout=subprocess.PIPE).stdout


def ready(connection):
    for data in messages(connection):
        output = output_of(data)
        connection.send(str(len(output)).encode("utf-8"))
        if connection.recv(1024) == b"ready":
            connection.sendall(output)


def struct_i(connection):
    for data in messages(connection):
        output = output_of(data)
        connection.send(struct.pack("i", len(output)))
        connection.sendall(output)


SERVERS = {"hello": hello, "echo": echo, "timestamp": timestamp, "ready": ready, "struct": struct_i}

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.bind(("127.0.0.1", 0))
server.listen(5)
print(server.getsockname()[1], flush=True)
connection, address = server.accept()
SERVERS[sys.argv[1]](connection)
connection.close()
server.close()
