"""Prints what a server says first. Usage: greet_client.py HOST PORT"""

import socket
import sys

client = socket.socket()
client.connect((sys.argv[1], int(sys.argv[2])))
print(client.recv(1024).decode())
assert client.recv(1024) == b"", "more than one greeting"
client.close()
