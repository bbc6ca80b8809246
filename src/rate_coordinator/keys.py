"""Names of the keys and the channel of one namespace.

==================================  =========  ====================================================================
key                                 type       content
==================================  =========  ====================================================================
``{ns}:limit:<target>``             string     resume time in ms of the server's clock; expires with the limit
``{ns}:active``                     zset       target -> resume time: the index of all limits
``{ns}:causes``                     hash       target -> the event that set its present resume time (JSON)
``{ns}:events``                     stream     every report and every clear, capped
``{ns}:order``                      hash       ``epoch``, ``notice`` (ID of the last one), ``run_id`` of the server
``{ns}:applied:<client>``           string     the last call of one coordinator and its reply; expires
``{ns}:pace:<target>``              hash       what was learned of the target's rate; expires when it is forgotten
``{ns}:paces``                      zset       target -> when its pace is forgotten: the index of all paces
``{ns}:turns:<target>``             zset       coordinator -> when it was told to ask for turns again
``{ns}:holds``                      hash       target -> its hold by hand, and what reports alone ask for beside it
``{ns}:clears``                     zset       what was cleared lately (``*``, ``<backend>/*`` or a target), or held or
                                               released by hand (``hold:<target>``) -> when
``{ns}:notices``                    channel    JSON, one notice per changed target per script call
==================================  =========  ====================================================================

The braces are a Redis Cluster hash tag: all keys of a namespace share one slot, so that one script can touch them.
Names inside keys are percent-encoded (RFC 3986), so that none can collide with another or break the tag.
"""

from __future__ import annotations

from urllib.parse import quote

from rate_coordinator.targets import Target, check_name

DEFAULT_NAMESPACE = "rate_coordinator"


class Keys:
    """The keys of one namespace.

    Args:
        namespace: Any name that ``check_name`` takes.

    Raises:
        ValueError: ``namespace`` is not usable.
    """

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        self.namespace = check_name("namespace", namespace)
        self.prefix = "{" + quote(namespace, safe="") + "}"
        self.paces = f"{self.prefix}:paces"
        self.active = f"{self.prefix}:active"
        self.clears = f"{self.prefix}:clears"
        self.causes = f"{self.prefix}:causes"
        self.events = f"{self.prefix}:events"
        self.holds = f"{self.prefix}:holds"
        self.order = f"{self.prefix}:order"
        self.notices = f"{self.prefix}:notices"
        self.scratch = f"{self.prefix}:scratch"

    def limit(self, target: Target) -> str:
        """Return the key of a target's limit."""
        return f"{self.prefix}:limit:{target.encode()}"

    def pace(self, target: Target) -> str:
        """Return the key of a target's pace."""
        return f"{self.prefix}:pace:{target.encode()}"

    def turns(self, target: Target) -> str:
        """Return the key of who waits for a target's turns."""
        return f"{self.prefix}:turns:{target.encode()}"

    def applied(self, client_id: str) -> str:
        """Return the key under which a coordinator's last call is remembered."""
        return f"{self.prefix}:applied:{client_id}"
