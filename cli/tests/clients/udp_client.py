"""Sends datagrams and prints what each of them brings back. Usage: udp_client.py HOST PORT"""

import socket
import sys

server = (sys.argv[1], int(sys.argv[2]))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
for data in [b"hello", b"world", b"", b"egon"]:
    client.sendto(data, server)
for _ in range(4):
    data, sender = client.recvfrom(1024)
    assert sender == server
    print(len(data), data.decode())
client.close()
