"""name_server.py ADDRESS NAME IPV4: a name server that knows one name. For tests in containers."""
import socket
import struct
import sys

address, name, answer = sys.argv[1:]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
known = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
while True:
    query, client = server.recvfrom(512)
    if len(query) < 12 + len(known) + 4:
        continue
    question = query[12:12 + len(known) + 4]
    kind = struct.unpack(">H", question[-4:-2])[0]
    found = question[:-4].lower() == known
    records = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(answer) if found and kind == 1 else b""
    flags = 0x8580 if found else 0x8583
    server.sendto(query[:2] + struct.pack(">HHHHH", flags, 1, 1 if records else 0, 0, 0) + question + records, client)
