"""Runs commands on a server that tells the length of each reply and waits for ready.

Usage: command_ready.py HOST PORT; commands are read from standard input, quit ends.
"""

import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.settimeout(20)
s.connect((sys.argv[1], int(sys.argv[2])))
while True:
    msg = sys.stdin.readline().strip()
    if len(msg) == 0:
        continue
    if msg == "quit":
        break
    s.send(msg.encode("utf-8"))

    length = int(s.recv(1024).decode("utf-8"))
    s.send("ready".encode("utf-8"))
    send_size = 0
    data = b""
    while send_size < length:
        part = s.recv(1024)
        data += part
        send_size += len(part)
    print(data.decode("utf-8"), end="")
s.close()
