"""Sends what is typed, if it is something, and prints the echo; exit quits.

Usage: echo_client.py HOST PORT
"""

import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((sys.argv[1], int(sys.argv[2])))
while True:
    message = input("message: ").strip()
    if not message:
        continue
    if message == "exit":
        break
    client.sendall(message.encode("utf-8"))
    print(client.recv(1024).decode("utf-8"))
client.close()
