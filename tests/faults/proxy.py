"""A TCP proxy that is slow, resets connections, or stops answering, as told."""

import random
import selectors
import socket
import struct
import threading
import time


class Proxy:
    """Forwards to an address. `delay_s`: before each piece is passed on. `reset_share`: of pieces after which both ends are reset.
    `is_deaf`: takes connections and passes nothing on, nor on those that are open. `lose_share`: of answers that are cut off by a reset
    before any of it is passed on, so that what was asked has happened and nobody knows."""

    def __init__(self, host, port, seed=1):
        self.target, self.random = (host, port), random.Random(seed)
        self.delay_s = self.reset_share = self.lose_share = 0.0
        self.is_deaf, self.is_ended = False, False
        self.n_connections = self.n_resets = self.n_lost = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def calm(self):
        self.delay_s = self.reset_share = self.lose_share = 0.0
        self.is_deaf = False

    def end(self):
        self.is_ended = True
        self.listener.close()

    def accept(self):
        while not self.is_ended:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.n_connections += 1
            threading.Thread(target=self.forward, args=(client,), daemon=True).start()

    def forward(self, client):
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        ends = {client: server, server: client}
        selector = selectors.DefaultSelector()
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        try:
            while not self.is_ended:
                for key, _ in selector.select(1.0):
                    end = key.fileobj
                    while self.is_deaf and not self.is_ended:
                        time.sleep(0.05)
                    piece = end.recv(1 << 16)
                    if not piece:
                        return
                    if self.delay_s:
                        time.sleep(self.delay_s * self.random.uniform(0.5, 1.5))
                    if end is server and self.random.random() < self.lose_share:
                        self.n_lost += 1
                        return reset(client, server)
                    ends[end].sendall(piece)
                    if self.random.random() < self.reset_share:
                        self.n_resets += 1
                        return reset(client, server)
        except OSError:
            pass
        finally:
            selector.close()
            client.close()
            server.close()


def reset(*ends):
    """Closes so that the peer sees a reset, not an end."""
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
