//! RFC 7143 PDUs, text keys and digests: bytes in, typed values out; no I/O, no clock.
