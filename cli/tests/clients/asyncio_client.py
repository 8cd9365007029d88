"""Talks to an echo server with Python's asyncio, to all its sockets at once.

Usage: asyncio_client.py PATH URI...

PATH is where this client may bind a Unix datagram socket of its own. Prints each URI whose server
echoed everything.
"""

import asyncio
import socket
import sys
from urllib.parse import urlsplit

PATIENCE = 20


class Inbox(asyncio.DatagramProtocol):
    """Keeps the datagrams that come until they are asked for."""

    def __init__(self):
        self.datagrams = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.datagrams.put_nowait(data)


async def talk_by_stream(parts):
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    for message in (b"good morning\n", b"\0\xff" * 5000):
        writer.write(message)
        await writer.drain()
        assert await reader.readexactly(len(message)) == message
    writer.write_eof()
    assert await reader.read() == b"", "more came than was sent"
    writer.close()
    await writer.wait_closed()


async def talk_by_datagrams(parts, own_path):
    if parts.scheme == "unixgram":
        where = {"family": socket.AF_UNIX, "local_addr": own_path, "remote_addr": parts.path}
    else:
        where = {"remote_addr": (parts.hostname, parts.port)}
    loop = asyncio.get_running_loop()
    transport, inbox = await loop.create_datagram_endpoint(Inbox, **where)
    # asyncio leaves an empty datagram out, so there is none here.
    messages = [b"one", b"two", b"\0\xff" * 500]
    for message in messages:
        transport.sendto(message)
    for message in messages:
        assert await inbox.datagrams.get() == message
    transport.close()


async def talk(uri, own_path):
    parts = urlsplit(uri)
    if parts.scheme in ("udp", "unixgram"):
        await talk_by_datagrams(parts, own_path)
    else:
        await talk_by_stream(parts)
    return uri


async def main():
    own_path, *uris = sys.argv[1:]
    conversations = [talk(uri, own_path) for uri in uris]
    for uri in await asyncio.wait_for(asyncio.gather(*conversations), PATIENCE):
        print(uri)


asyncio.run(main())
