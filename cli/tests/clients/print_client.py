"""Says hello to a print server, as beginners' tutorials do. Usage: print_client.py HOST PORT"""

import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((sys.argv[1], int(sys.argv[2])))
client.sendall(b"hello from client")
client.close()
