"""A Hub-compatible server on loopback: what `huggingface_hub`, `datasets` and `hf_xet` ask for, in their own protocol.

It exists so that publishing is tested against a server that refuses, forgets, delays and drops, with the stock clients:
`with HubServer(folder) as hub:` and `HF_ENDPOINT=hub.url`. It keeps commits in memory and files in `folder`. Xet is
real: the token route sends the client to a store on the same port, which the `hf_xet` wheel asks over HTTP for every
chunk, block and list as it asks the Hub's own, and where each of these questions may go wrong as well.
"""

from tests.hub_server.faults import CUT, DROP, DROP_AFTER, DROP_HALFWAY, SHORT, Fault
from tests.hub_server.messages import RefusalError
from tests.hub_server.server import HubServer

__all__ = ["CUT", "DROP", "DROP_AFTER", "DROP_HALFWAY", "SHORT", "Fault", "HubServer", "RefusalError"]
