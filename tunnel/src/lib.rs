//! IP packets between two tun devices through an SSH channel, and plain port forwarding.
