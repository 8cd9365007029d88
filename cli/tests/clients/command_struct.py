"""Runs commands on a server that sends a header before each reply: struct.pack('i', length).

Usage: command_struct.py HOST PORT; commands are read from standard input, quit ends.
"""

import struct
import sys
from socket import AF_INET, SOCK_STREAM, socket

phone = socket(AF_INET, SOCK_STREAM)
phone.settimeout(20)
phone.connect((sys.argv[1], int(sys.argv[2])))
while True:
    cmd = sys.stdin.readline().strip()
    if not cmd:
        continue
    if cmd == "quit":
        break
    phone.send(cmd.encode("utf-8"))

    header = phone.recv(4)
    total_size = struct.unpack("i", header)[0]
    recv_size = 0
    recv_data = b""
    while recv_size < total_size:
        res = phone.recv(1024)
        recv_data += res
        recv_size += len(res)
    print(recv_data.decode("utf-8"), end="")
phone.close()
