"""Python imports this by itself: what a run, and each process that it starts, does behind one's back goes to $KDJAX_WATCHED.

Connections, names looked up, processes, what a pickle asks for, and where torch is imported:
https://docs.python.org/3/library/audit_events.html
"""

import os
import sys

EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
EVENTS += ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")


def tell(event: str, args: tuple) -> None:
    if event in EVENTS or (event == "import" and args[0] == "torch"):
        os.write(told, f"{event} {args[0]}{f' in {os.path.basename(sys.argv[0])}' * (event == 'import')}\n".encode())


told = os.open(os.environ["KDJAX_WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(told, b"began\n")
sys.addaudithook(tell)
