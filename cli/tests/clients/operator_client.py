"""Asks a person at the server's terminal. Usage: operator_client.py HOST PORT"""

import socket
import sys

client = socket.socket()
client.connect((sys.argv[1], int(sys.argv[2])))
while True:
    message = input(">>> ").strip()
    if message == "exit":
        break
    client.send(message.encode("utf-8"))
    reply = client.recv(1024)
    print("server:", reply.decode("utf-8"))
client.close()
