"""Calls actions in JSON and prints the replies. Usage: dispatch_client.py HOST PORT"""

import json
import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((sys.argv[1], int(sys.argv[2])))
requests = [
    {"action": "echo", "message": "hello"},
    {"action": "sum", "numbers": [1, 2, 3]},
    {"action": "__class__"},
]
for request in requests:
    client.send(json.dumps(request).encode("utf-8"))
    reply = json.loads(client.recv(1024).decode("utf-8"))
    print(reply["result"] if reply["ok"] else reply["error"]["code"])
client.close()
