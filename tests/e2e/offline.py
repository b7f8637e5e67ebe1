"""Run a command with only the loopback interface: `unshare --net python offline.py COMMAND...`"""

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914
UP_AND_RUNNING = 0x41

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
    fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError:
    os.execvp(sys.argv[1], sys.argv[1:])
sys.exit("the network is still reachable")
