"""Introduces three people, each after the last one was greeted. Usage: hello_client.py HOST PORT"""

import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((sys.argv[1], int(sys.argv[2])))
print(client.recv(1024).decode())
for data in [b"Michael", b"Tracy", b"Chenqi"]:
    client.send(data)
    print(client.recv(1024).decode())
client.send(b"exit")
client.close()
