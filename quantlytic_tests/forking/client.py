"""What is started in a program's place: it lets the fork server beside it do the work, and ends as that ends.

Whoever starts it sees a process like any other: arguments, environment, directory and open files are those of the work,
a signal that asks it to end reaches the work, and the work ends with it when it is killed. It runs without
site-packages, for most of what the real program costs is what it imports.
"""

import json
import os
import signal
import socket
import sys


def inherited() -> list[int]:
    """The files, beside the standard streams, that whoever started this has left open for it."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            # The directory's own is closed by now.
            continue
    return found


def main() -> None:
    """Ask for the program that this one is named after, with this process's arguments."""
    directory, name = os.path.split(sys.argv[0])
    files = [0, 1, 2, *inherited()]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(directory, "socket"))
        request = json.dumps([name, sys.argv[1:], dict(os.environ), os.getcwd(), files]).encode()
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], files)
        connection.sendall(request)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        told = connection.recv(4)
    code = int.from_bytes(told, "big", signed=True) if told else -signal.SIGKILL
    if code < 0:
        # The work was ended by a signal, and so is this process.
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
