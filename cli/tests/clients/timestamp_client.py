"""Sends what is typed and prints what comes back; an empty line quits.

Usage: timestamp_client.py HOST PORT
"""

import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((sys.argv[1], int(sys.argv[2])))
while True:
    data = input("> ")
    if not data:
        break
    client.send(data.encode())
    data = client.recv(1024)
    if not data:
        break
    print(data.decode())
client.close()
