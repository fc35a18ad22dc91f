"""A Hub-compatible server on loopback: what `huggingface_hub`, `datasets` and `hf_xet` ask for, in their own protocol.

It exists so that publishing is tested against a server that refuses, forgets, delays and drops, with the stock clients:
`with HubServer(folder) as hub:` and `HF_ENDPOINT=hub.url`. It keeps commits in memory and files in `folder`. Xet is
real: the token route sends the client to a `local://` store in that folder, where the `hf_xet` wheel chunks and
deduplicates as it does against the Hub's own store; client and server must therefore share a disk.
"""

from tests.hub_server.faults import DROP, DROP_AFTER, Fault
from tests.hub_server.messages import RefusalError
from tests.hub_server.server import HubServer

__all__ = ["DROP", "DROP_AFTER", "Fault", "HubServer", "RefusalError"]
